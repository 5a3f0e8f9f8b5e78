"""Additive attention: which of the source's steps a decoder reads."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.dtypes import promote


class Memory(NamedTuple):
    """What a decoder attends to."""

    values: jax.Array  # [B, T, H]: the encoder's outputs, the paper's annotations h_j
    keys: jax.Array  # [B, T, A]: U h_j, computed once per source
    mask: jax.Array  # [B, T] bool: False for padding


class AdditiveAttention(nn.Module):
    """Attention whose scores come from a layer of tanh units.

        e_ij = v . tanh(W s_{i-1} + U h_j)       a_ij = exp(e_ij) / sum_k exp(e_ik)
        c_i = sum_j a_ij h_j

    s_{i-1} is the decoder's state before step i, and h_j the encoder's output at step j. Padding
    gets no weight; a source without steps gives a context of zeros.

    Source: Bahdanau, Cho and Bengio (2015), "Neural Machine Translation by Jointly Learning to
    Align and Translate", section 3.1, eqs. 5 and 6, and appendix A.1.2. The matrices start from
    Flax's default, not from the paper's normal distribution.

    Attributes:
      size: A, the number of tanh units.

    >>> import numpy as np
    >>> attention = AdditiveAttention(5)
    >>> values = jnp.ones((2, 7, 4))  # [B, T, H]
    >>> mask = jnp.arange(7)[None] < jnp.array([[7], [3]])
    >>> (context, weights), _ = attention.init_with_output(
    ...     jax.random.key(0), jnp.ones((2, 6)), values, mask
    ... )
    >>> context.shape, np.asarray(weights[1, :4]).round(2)
    ((2, 4), array([0.33, 0.33, 0.33, 0.  ], dtype=float32))
    """

    size: int

    def setup(self) -> None:
        """Name the matrices by the paper's letters."""
        self.W = nn.Dense(self.size, use_bias=False)
        self.U = nn.Dense(self.size, use_bias=False)
        self.v = nn.Dense(1, use_bias=False)

    def remember(self, values: jax.Array, mask: jax.Array) -> Memory:
        """Prepare what is the same for all of the decoder's steps.

        Args:
          values: [B, T, H] float.
          mask: [B, T] bool, False for padding.
        """
        with jax.numpy_dtype_promotion("standard"):  # Flax needs it if a cell has another dtype
            return Memory(values, self.U(values), mask)

    def attend(self, query: jax.Array, memory: Memory) -> tuple[jax.Array, jax.Array]:
        """Query [B, H'] -> context [B, H] and the weights [B, T], which add up to 1."""
        with jax.numpy_dtype_promotion("standard"):
            sums = self.W(query)[:, None] + memory.keys  # [B, T, A]
            scores = self.v(jnp.tanh(sums))[..., 0]  # [B, T]
        # The lowest number, not -inf: a row that is all padding must not become NaN.
        scores = jnp.where(memory.mask, scores, jnp.finfo(scores.dtype).min)
        weights = jnp.where(memory.mask, jax.nn.softmax(scores), 0.0)
        context = jnp.einsum("bt,bth->bh", *promote(weights, memory.values))
        return context, weights

    def __call__(
        self, query: jax.Array, values: jax.Array, mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """`attend` to values [B, T, H] once: the context [B, H] and the weights [B, T]."""
        return self.attend(query, self.remember(values, mask))
