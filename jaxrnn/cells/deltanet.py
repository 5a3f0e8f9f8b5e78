"""DeltaNet: a matrix state that the delta rule corrects at the written key."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.cells.base import Cell, check_flags, check_heads, register_carry
from jaxrnn.dtypes import promote


@register_carry
class DeltaNetCarry(NamedTuple):
    """The carry of a DeltaNet.

    >>> DeltaNetCarry(*DeltaNetCell(4, num_heads=2).initialize_carry(None, (3, 5))).s.shape
    (3, 2, 2, 2)
    """

    s: jax.Array  # [B, K, H/K, H/K]: a matrix for each of K heads, from keys to values


class DeltaNetCell(Cell):
    """DeltaNet: a linear recurrence over matrices, of one or more heads.

        q = normed(silu(W_q x))    k = normed(silu(W_k x))    v = silu(W_v x)
        beta = sigmoid(W_b x)      or 2 sigmoid(W_b x) with `negative_eigenvalues`
        S' = (I - beta k k^T) S + beta k v^T
        h' = S'^T q

    The value stored at the key k is replaced by v in part, or for beta = 1 as a whole. I -
    beta k k^T has the eigenvalue 1 - beta along k: from 0 to 1, or with `negative_eigenvalues` from
    -1 to 1, which tasks such as parity need. The state is fast to train in chunks, which this
    cell's scan does not do. beta [B, T, K] is sown as an intermediate, for `read_gates`.

    Source: Yang et al. (2024), "Parallelizing Linear Transformers with the Delta Rule over Sequence
    Length", section 2.2, with its normalized keys, but without the short convolutions and the
    output's norm of its layer; the eigenvalues are from Grazzi et al. (2025), "Unlocking
    State-Tracking in Linear RNNs Through Negative Eigenvalues".

    Attributes:
      features, kernel_init, dtype, param_dtype: as in `Cell`; `bias_init` is not used.
      num_heads: K; it divides H.
      negative_eigenvalues: whether beta is from 0 to 2, not from 0 to 1.

    >>> cell = DeltaNetCell(4, num_heads=2, negative_eigenvalues=True)
    >>> inputs = jnp.ones((3, 5))  # [B, F]
    >>> carry = cell.initialize_carry(None, inputs.shape)
    >>> (carry, outputs), variables = cell.init_with_output(jax.random.key(0), carry, inputs)
    >>> outputs.shape, sorted(variables["params"])
    ((3, 4), ['gate_b', 'ik', 'iq', 'iv'])
    """

    num_heads: int = 1
    negative_eigenvalues: bool = False

    def __post_init__(self) -> None:
        """Check the options."""
        check_heads(self)
        check_flags(self, "negative_eigenvalues")
        super().__post_init__()

    @nn.compact
    def __call__(self, carry: DeltaNetCarry, inputs: jax.Array) -> tuple[DeltaNetCarry, jax.Array]:
        """One step: carry [B, K, H/K, H/K], inputs [B, F] -> new carry, outputs [B, H]."""
        q, k, v = (nn.silu(self._dense("i" + name, use_bias=False)(inputs)) for name in "qkv")
        beta = nn.sigmoid(self._per_head("gate_b", inputs))
        beta = 2 * beta if self.negative_eigenvalues else beta
        self._sow(beta=beta)
        decay = self._decay(inputs)
        q, k, v, beta, state = promote(q, k, v, beta, carry.s)  # the carry may be wider
        q, k, v = (part.reshape(*part.shape[:-1], self.num_heads, -1) for part in (q, k, v))
        q, k = normalized(q), normalized(k)
        if decay is not None:
            decay, state = promote(decay, state)
            state = decay[..., None, None] * state
        # Elementwise, not as products: the state is read once, and keeps the carry's precision.
        stored = (state * k[..., None]).sum(-2)
        state = state + k[..., None] * (beta[..., None] * (v - stored))[..., None, :]
        h = (state * q[..., None]).sum(-2)
        return DeltaNetCarry(state), h.reshape(*h.shape[:-2], self.features)

    def _per_head(self, name: str, inputs: jax.Array) -> jax.Array:
        """A product with the inputs for each head, [B, K]."""
        return self._dense(name, features=self.num_heads, use_bias=False)(inputs)

    def _decay(self, inputs: jax.Array) -> jax.Array | None:
        """The decay of each head's state, [B, K]; None for none."""
        del inputs

    @nn.nowrap
    def initialize_carry(
        self, rng: jax.Array | None, input_shape: tuple[int, ...]
    ) -> DeltaNetCarry:
        """The initial carry, zeros [..., K, H/K, H/K], for inputs of shape [..., F]."""
        del rng
        size = self.features // self.num_heads
        shape = (*input_shape[:-1], self.num_heads, size, size)
        return DeltaNetCarry(jnp.zeros(shape, self.param_dtype))


def normalized(x: jax.Array) -> jax.Array:
    """x [..., D] with a Euclidean length of 1; near 0 shorter, so that its slope is finite."""
    return x * jax.lax.rsqrt((x * x).sum(-1, keepdims=True) + 1e-6)
