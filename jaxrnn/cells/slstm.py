"""The sLSTM of xLSTM: exponential gates, a normalizer, and a state that keeps them in range."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer

from jaxrnn.cells.base import BlockDense, Cell, check_forget_gate, check_heads, register_carry
from jaxrnn.cells.initializers import initializer
from jaxrnn.dtypes import promote


@register_carry
class SLSTMCarry(NamedTuple):
    """The carry of an sLSTM, [B, H] each. c and n are divided by exp(m).

    >>> SLSTMCarry(*SLSTMCell(4).initialize_carry(None, (2, 3))).n.shape
    (2, 4)
    """

    c: jax.Array  # the cell state
    n: jax.Array  # the normalizer state; 0 where no step has been
    m: jax.Array  # the stabilizer state
    h: jax.Array  # the hidden state, also the step's output


class SLSTMCell(Cell):
    """The sLSTM: an LSTM with exponential gates, whose cell state is a weighted mean.

        i~, f~, z~, o~ = W x + R h + b of each gate
        z = tanh(z~)                             o = sigmoid(o~)
        m' = max(log f + m, i~)                  log f = log(sigmoid(f~))
        i = exp(i~ - m')                         f = exp(log f + m - m')
        c' = f * c + i * z                       n' = f * n + i
        h' = o * c' / n'

    m' shifts both exponents by the larger one, so that nothing overflows; it cancels in c' / n'.
    Before the first step n is 0, and m' is i~. (What is added to i~ at every step cancels, too:
    from a zero carry, the bias of i has no effect.) The scaled gates i and f, z and o, and the
    states c, n and m are sown as intermediates, for `read_gates`.

    Source: Beck et al. (2024), "xLSTM: Extended Long Short-Term Memory", eq. 8 to 17. The block
    around it, with its convolution, norm and projections, is not part of the cell.

    Attributes:
      features, kernel_init, bias_init, dtype, param_dtype: as in `Cell`. `bias_init` is for the
        gates i, z and o.
      recurrent_kernel_init: initializer of each block of R: a name in `INITIALIZERS`, or a
        function. The authors' code starts with zeros.
      num_heads: the number of blocks of each R [H, H], which is block-diagonal; it divides H.
      forget_gate: "sigmoid", or "exp" for f = exp(f~), that is log f = f~: both are in the paper.
      forget_bias_range: f~'s biases start evenly spaced between these over each head's units, so
        that their memories differ: the authors' `small_init`.

    >>> cell = SLSTMCell(4, num_heads=2)
    >>> inputs = jnp.ones((2, 3))  # [B, F]
    >>> carry = cell.initialize_carry(None, inputs.shape)
    >>> (carry, outputs), variables = cell.init_with_output(jax.random.key(0), carry, inputs)
    >>> outputs.shape, variables["params"]["hf"]["bias"].tolist()
    ((2, 4), [3.0, 6.0, 3.0, 6.0])
    """

    recurrent_kernel_init: str | Initializer = "glorot_uniform"
    num_heads: int = 1
    forget_gate: Literal["sigmoid", "exp"] = "sigmoid"
    forget_bias_range: tuple[float, float] = (3.0, 6.0)

    def __post_init__(self) -> None:
        """Check the options."""
        check_heads(self)
        check_forget_gate(self)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, carry: SLSTMCarry, inputs: jax.Array, hidden_mask: jax.Array | None = None
    ) -> tuple[SLSTMCarry, jax.Array]:
        """One step: carry [B, H] each, inputs [B, F] -> new carry, outputs [B, H].

        `hidden_mask` [B, H], if given, multiplies h in the matrix products (recurrent dropout).
        """
        hidden = carry.h if hidden_mask is None else carry.h * hidden_mask

        def products(gate: str) -> jax.Array:
            from_hidden = BlockDense(
                self.features,
                self.num_heads,
                initializer(self.recurrent_kernel_init),
                self._init_forget_bias if gate == "f" else self.bias_init,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name="h" + gate,
            )(hidden)
            return self._dense("i" + gate, use_bias=False)(inputs) + from_hidden

        z, o = jnp.tanh(products("z")), nn.sigmoid(products("o"))
        log_i, log_f, z, o, c, n, m = promote(
            products("i"), products("f"), z, o, carry.c, carry.n, carry.m
        )  # the carry may be wider than the gates, and exponents need its precision
        if self.forget_gate == "sigmoid":
            log_f = nn.log_sigmoid(log_f)
        kept = log_f + m
        m = jnp.where(n == 0, log_i, jnp.maximum(kept, log_i))
        i, f = jnp.exp(log_i - m), jnp.exp(jnp.where(n == 0, -jnp.inf, kept - m))
        c, n = f * c + i * z, f * n + i
        h = o * c / n
        self._sow(i=i, f=f, z=z, o=o, c=c, n=n, m=m)
        return SLSTMCarry(c, n, m, h), h

    def _init_forget_bias(
        self, key: jax.Array, shape: Any, dtype: Any = None, out_sharding: Any = None
    ) -> jax.Array:
        """Evenly spaced over each head's units; the first end if there is one unit."""
        del key, out_sharding
        start, end = self.forget_bias_range
        one_head = jnp.linspace(start, end, shape[0] // self.num_heads, dtype=dtype)
        return jnp.tile(one_head, self.num_heads)

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array | None, input_shape: tuple[int, ...]) -> SLSTMCarry:
        """The initial carry, zeros [..., H] each, for inputs of shape [..., F]."""
        zeros = super().initialize_carry(rng, input_shape)
        return SLSTMCarry(zeros, zeros, zeros, zeros)
