"""The LSTM with a refine gate and forget gates that start uniformly distributed."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer

from jaxrnn.cells.base import Cell, check_flags
from jaxrnn.cells.lstm import LSTMCarry
from jaxrnn.dtypes import promote


def uniform_gate_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Any:
    """A bias b for which sigmoid(b) is uniform from 1/H to 1 - 1/H, where H is the last size.

    Uniform gate initialization, section 3 of Gu et al. (2020): the units start with memories of
    different lengths, up to about H steps.
    """
    low = 1 / max(shape[-1], 2)
    u = jax.random.uniform(key, shape, dtype, low, 1 - low)
    return jnp.log(u) - jnp.log1p(-u)


class URLSTMCell(Cell):
    """The UR-LSTM: a refine gate r moves the forget gate f between f^2 and 1 - (1 - f)^2.

        f = sigmoid(W_if x + W_hf h + b)         r = sigmoid(W_ir x + W_hr h + b_hr - b)
        e = r * (1 - (1 - f)^2) + (1 - r) * f^2
        g = tanh(W_ig x + W_hg h + b_hg)         o = sigmoid(W_io x + W_ho h + b_ho)
        c' = e * c + (1 - e) * g                 h' = o * tanh(c')

    So the effective forget gate e reaches values near 0 and 1 without saturating f, and its initial
    values are spread over all lengths of memory. The gates are sown as intermediates, for
    `read_gates`.

    Source: Gu et al. (2020), "Improving the Gating Mechanism of Recurrent Neural Networks",
    section 3. The input gate is tied to the forget gate, as there.

    Attributes:
      features, kernel_init, bias_init, dtype, param_dtype: as in `Cell`. `bias_init` is for b_hr,
        b_hg and b_ho.
      recurrent_kernel_init: initializer of each gate's [H, H] matrix: a name in `INITIALIZERS`, or
        a function.
      refine_gate: whether there is r; if not, e = f.
      uniform_gate_init: whether sigmoid(b) starts uniform from 1/H to 1 - 1/H; if not, `bias_init`
        sets b. The paper's U-LSTM has this alone, its R-LSTM `refine_gate` alone.

    >>> cell = URLSTMCell(4)
    >>> inputs = jnp.ones((2, 3))  # [B, F]
    >>> carry = cell.initialize_carry(None, inputs.shape)
    >>> (carry, outputs), variables = cell.init_with_output(jax.random.key(0), carry, inputs)
    >>> outputs.shape, carry.c.shape, variables["params"]["forget_bias"].shape
    ((2, 4), (2, 4), (4,))
    """

    recurrent_kernel_init: str | Initializer = "glorot_uniform"
    refine_gate: bool = True
    uniform_gate_init: bool = True

    def __post_init__(self) -> None:
        """Check the options."""
        check_flags(self, "refine_gate", "uniform_gate_init")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, carry: LSTMCarry, inputs: jax.Array, hidden_mask: jax.Array | None = None
    ) -> tuple[LSTMCarry, jax.Array]:
        """One step: carry [B, H] each, inputs [B, F] -> new carry, outputs [B, H].

        `hidden_mask` [B, H], if given, multiplies h in the matrix products (recurrent dropout).
        """
        hidden = carry.h if hidden_mask is None else carry.h * hidden_mask
        init = uniform_gate_init if self.uniform_gate_init else self.bias_init
        bias = self.param("forget_bias", init, (self.features,), self.param_dtype)

        def products(gate: str) -> jax.Array:
            options = {"kernel_init": self.recurrent_kernel_init, "use_bias": gate != "f"}
            from_hidden = self._dense("h" + gate, **options)(hidden)
            return self._dense("i" + gate, use_bias=False)(inputs) + from_hidden

        def shifted(gate: jax.Array, bias: jax.Array) -> jax.Array:
            return gate + jnp.expand_dims(bias.astype(gate.dtype), range(gate.ndim - 1))

        f = effective = nn.sigmoid(shifted(products("f"), bias))
        if self.refine_gate:
            r = nn.sigmoid(shifted(products("r"), -bias))
            effective = r * (1 - (1 - f) ** 2) + (1 - r) * f**2
            self._sow(r=r)
        g, o = jnp.tanh(products("g")), nn.sigmoid(products("o"))
        kept, old, new = promote(effective, carry.c, (1 - effective) * g)  # the carry may be wider
        c = kept * old + new
        shown, squashed = promote(o, jnp.tanh(c))
        h = shown * squashed
        self._sow(f=f, e=effective, g=g, o=o, c=c)
        return LSTMCarry(c, h), h

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array | None, input_shape: tuple[int, ...]) -> LSTMCarry:
        """The initial carry, zeros [..., H] each, for inputs of shape [..., F]."""
        zeros = super().initialize_carry(rng, input_shape)
        return LSTMCarry(zeros, zeros)
