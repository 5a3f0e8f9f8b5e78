"""The mLSTM of xLSTM: a matrix memory with exponential gates."""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.cells.base import Cell, check_forget_gate, check_heads, register_carry
from jaxrnn.dtypes import promote


@register_carry
class MLSTMCarry(NamedTuple):
    """The carry of an mLSTM with K heads; c and n are divided by exp(m).

    >>> MLSTMCarry(*MLSTMCell(4, num_heads=2).initialize_carry(None, (3, 5))).n.shape
    (3, 2, 2)
    """

    c: jax.Array  # [B, K, H/K, H/K]: the memory, a matrix from keys to values
    n: jax.Array  # [B, K, H/K]: the normalizer state
    m: jax.Array  # [B, K]: the stabilizer state


class MLSTMCell(Cell):
    """The mLSTM: stores values under keys in a matrix, with exponential gates of each head.

        q = W_q x + b_q    k = (W_k x + b_k) / sqrt(H/K)    v = W_v x + b_v
        i~ = w_i x + b_i   f~ = w_f x + b_f                 o = sigmoid(W_o x + b_o)
        m' = max(log f + m, i~)                             log f = log(sigmoid(f~))
        i = exp(i~ - m')                                    f = exp(log f + m - m')
        C' = f C + i k v^T                                  n' = f n + i k
        h' = o * C'^T q / max(|n'^T q|, exp(-m'))

    m' shifts both exponents by the larger one, so that nothing overflows; it cancels in h'. No gate
    sees h, so there is nothing for recurrent dropout to mask. The scaled gates i and f, [B, T, K],
    and o are sown as intermediates, for `read_gates`.

    Source: Beck et al. (2024), "xLSTM: Extended Long Short-Term Memory", eq. 19 to 27, stabilized
    as in eq. 15 to 17. The block around it is not part of the cell.

    Attributes:
      features, kernel_init, bias_init, dtype, param_dtype: as in `Cell`. `bias_init` is for all but
        the forget gate.
      num_heads: K; it divides H.
      forget_gate: "sigmoid", or "exp" for f = exp(f~), that is log f = f~: both are in the paper.
      forget_bias_range: b_f starts evenly spaced between these over the heads, as in the authors'
        code.

    >>> cell = MLSTMCell(4, num_heads=2)
    >>> inputs = jnp.ones((3, 5))  # [B, F]
    >>> carry = cell.initialize_carry(None, inputs.shape)
    >>> (carry, outputs), variables = cell.init_with_output(jax.random.key(0), carry, inputs)
    >>> outputs.shape, variables["params"]["gate_f"]["bias"].tolist()
    ((3, 4), [3.0, 6.0])
    """

    num_heads: int = 1
    forget_gate: Literal["sigmoid", "exp"] = "sigmoid"
    forget_bias_range: tuple[float, float] = (3.0, 6.0)

    def __post_init__(self) -> None:
        """Check the options."""
        check_heads(self)
        check_forget_gate(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, carry: MLSTMCarry, inputs: jax.Array) -> tuple[MLSTMCarry, jax.Array]:
        """One step: carry [B, K, ...], inputs [B, F] -> new carry, outputs [B, H]."""
        heads, size = self.num_heads, self.features // self.num_heads
        q, k, v, o = (self._dense("i" + name)(inputs) for name in "qkvo")
        log_i = self._dense("gate_i", features=heads)(inputs)
        log_f = self._dense("gate_f", features=heads, bias_init=self._init_forget_bias)(inputs)
        q, k, v, o, log_i, log_f, c, n, m = promote(
            q, k, v, nn.sigmoid(o), log_i, log_f, *carry
        )  # the carry may be wider than the products, and exponents need its precision
        q, k, v = (part.reshape(*part.shape[:-1], heads, size) for part in (q, k, v))
        k = k / math.sqrt(size)
        if self.forget_gate == "sigmoid":
            log_f = nn.log_sigmoid(log_f)
        kept = log_f + m
        m = jnp.maximum(kept, log_i)
        i, f = jnp.exp(log_i - m), jnp.exp(kept - m)
        # Elementwise, not as products: the memory is read once, and keeps the carry's precision.
        written = i[..., None] * k
        c = f[..., None, None] * c + written[..., None] * v[..., None, :]
        n = f[..., None] * n + written
        scale = jnp.maximum(jnp.abs((n * q).sum(-1)), jnp.exp(-m))
        h = (c * q[..., None]).sum(-2) / scale[..., None]
        h = o * h.reshape(*h.shape[:-2], self.features)
        self._sow(i=i, f=f, o=o)
        return MLSTMCarry(c, n, m), h

    def _init_forget_bias(
        self, key: jax.Array, shape: Any, dtype: Any = None, out_sharding: Any = None
    ) -> jax.Array:
        """Evenly spaced over the heads; the first end if there is one."""
        del key, out_sharding
        return jnp.linspace(*self.forget_bias_range, shape[0], dtype=dtype)

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array | None, input_shape: tuple[int, ...]) -> MLSTMCarry:
        """The initial carry, zeros, for inputs of shape [..., F]."""
        del rng
        size, batch = self.features // self.num_heads, input_shape[:-1]
        shapes = ((self.num_heads, size, size), (self.num_heads, size), (self.num_heads,))
        return MLSTMCarry(*(jnp.zeros((*batch, *shape), self.param_dtype) for shape in shapes))
