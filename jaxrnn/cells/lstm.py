"""Long short-term memory, with the options of its literature."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer

from jaxrnn.cells.base import check_clip, check_flags, register_carry
from jaxrnn.cells.initializers import initializer
from jaxrnn.dtypes import promote


@register_carry
class LSTMCarry(NamedTuple):
    """The carry of an LSTM, read by name: `carry.c`, `carry.h`."""

    c: jax.Array  # [B, H]: the cell state
    h: jax.Array  # [B, H], or [B, P] if projected: the hidden state, also the step's output


class LSTMCell(nn.LSTMCell):
    """Flax's LSTM cell, with options.

        i = sigmoid(W_ii x + W_hi h + b_hi)      f = sigmoid(W_if x + W_hf h + b_hf)
        g = tanh(W_ig x + W_hg h + b_hg)         o = sigmoid(W_io x + W_ho h + b_ho)
        c' = f * c + i * g                       h' = o * tanh(c')

    Without the options, its parameters and equations are those of `flax.linen.LSTMCell`; only the
    default initializers differ. The gates are sown as intermediates, for `read_gates`; this costs
    nothing unless they are read.

    Source: Hochreiter and Schmidhuber (1997); the forget gate is from Gers et al. (2000).

    Attributes:
      features: H.
      kernel_init, recurrent_kernel_init: initializers of each gate's [F, H] and [H, H] matrix:
        names in `INITIALIZERS`, or functions.
      bias_init: initializer of the other gates' biases, [H] each.
      forget_bias: initial value of the forget gate's bias b_hf; if 0, `bias_init` sets it. 1.0 is
        from Jozefowicz et al. (2015); TensorFlow's BasicLSTMCell and Keras use it, too.
      input_bias: initial value of the input gate's bias b_hi; if 0, `bias_init` sets it. Negative
        values keep what is read at first from filling the cell state: Hochreiter and Schmidhuber
        (1997), section 4, on internal state drift.
      peepholes: whether the gates see the cell state: adds `p_i * c` and `p_f * c` in i and f, and
        `p_o * c'` in o, with p [H] each. Gers et al. (2002); Graves (2013), eq. 7 to 11.
      layer_norm: whether to normalize the products with x and with h, [B, 4H] each over all four
        gates, before they are added, and c' before it enters h'. Ba et al. (2016), eq. 20 to 22.
        The biases b become the shift of the normalized product with h.
      projection_size: P; the step's output and h' are `W_p (o * tanh(c'))`, [B, P], and h is [B, P]
        everywhere. None for no projection. Sak, Senior and Beaufays (2014), eq. 7; PyTorch's
        `proj_size`.
      coupled_gates: whether the forget gate is `f = 1 - i`, without parameters of its own: the CIFG
        of Greff et al. (2017), ONNX's `input_forget`. The input gate's bias starts at
        -`forget_bias`, or at `input_bias` if that is not 0.
      cell_clip: clips c' to -cell_clip..cell_clip, as TensorFlow's LSTMCell does, so that the cell
        state cannot grow without bounds; None for no clipping. Sak et al. (2014) clip it to 50.
      dtype: the type of products and gates; if None, that of inputs and parameters. The carry
        keeps `param_dtype`.
      param_dtype: the type of parameters and carry.

    >>> cell = LSTMCell(4, forget_bias=1.5)
    >>> inputs = jnp.ones((2, 3))  # [B, F]
    >>> carry = cell.initialize_carry(jax.random.key(0), inputs.shape)
    >>> (carry, outputs), variables = cell.init_with_output(jax.random.key(0), carry, inputs)
    >>> outputs.shape, carry.c.shape, variables["params"]["hf"]["bias"].tolist()
    ((2, 4), (2, 4), [1.5, 1.5, 1.5, 1.5])
    """

    kernel_init: str | Initializer = "glorot_uniform"
    recurrent_kernel_init: str | Initializer = "glorot_uniform"
    forget_bias: float = 1.0
    input_bias: float = 0.0
    peepholes: bool = False
    layer_norm: bool = False
    projection_size: int | None = None
    coupled_gates: bool = False
    cell_clip: float | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        size = self.projection_size
        if size is not None and not (type(size) is int and size > 0):
            raise ValueError(f"projection_size must be a whole number from 1 or None, not {size!r}")
        check_clip(self, "cell_clip")
        check_flags(self, "peepholes", "layer_norm", "coupled_gates")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, carry: LSTMCarry, inputs: jax.Array, hidden_mask: jax.Array | None = None
    ) -> tuple[LSTMCarry, jax.Array]:
        """One step: carry [B, H] each, inputs [B, F] -> new carry, outputs [B, H].

        `hidden_mask` [B, H], if given, multiplies h in the matrix products (recurrent dropout).
        With a projection, h, the outputs and the mask are [B, P].
        """
        gates = "igo" if self.coupled_gates else "ifgo"
        dense = partial(nn.Dense, self.features, dtype=self.dtype, param_dtype=self.param_dtype)
        from_input = partial(dense, use_bias=False, kernel_init=initializer(self.kernel_init))
        from_hidden = partial(dense, kernel_init=initializer(self.recurrent_kernel_init))
        hidden = carry.h if hidden_mask is None else carry.h * hidden_mask
        x = [from_input(name="i" + gate)(inputs) for gate in gates]  # [B, H] each
        if self.layer_norm:
            h = [from_hidden(name="h" + gate, use_bias=False)(hidden) for gate in gates]
            x = self._norm("norm_i", x, use_bias=False)
            h = self._norm("norm_h", h, bias_init=self._biases)
        else:
            h = [from_hidden(name="h" + gate, bias_init=self._bias(gate))(hidden) for gate in gates]
        sums = [from_x + from_h for from_x, from_h in zip(x, h, strict=True)]
        i, f, g, o = (sums[0], None, *sums[1:]) if self.coupled_gates else sums

        i = self.gate_fn(self._peep("pi", carry.c, i))
        f = 1 - i if f is None else self.gate_fn(self._peep("pf", carry.c, f))
        g = self.activation_fn(g)
        kept, old, new = promote(f, carry.c, i * g)  # the carry may be wider than the gates
        c = kept * old + new
        if self.cell_clip is not None:
            c = jnp.clip(c, -self.cell_clip, self.cell_clip)
        o = self.gate_fn(self._peep("po", c, o))
        squashed = self.activation_fn(self._norm("norm_c", [c])[0] if self.layer_norm else c)
        shown, squashed = promote(o, squashed)
        h = shown * squashed
        if self.projection_size is not None:
            options = {"use_bias": False, "kernel_init": initializer(self.kernel_init)}
            types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
            h = nn.Dense(self.projection_size, name="projection", **options, **types)(h)
        for name, value in {"i": i, "f": f, "g": g, "o": o, "c": c}.items():
            self.sow("intermediates", name, value)
        return LSTMCarry(c, h), h

    def _peep(self, name: str, c: jax.Array, gate: jax.Array) -> jax.Array:
        """A gate's pre-activation [B, H], plus the peephole to the cell state if there is one."""
        if not self.peepholes:
            return gate
        weight = self.param(name, self.bias_init, (self.features,), self.param_dtype)
        wide, peep = promote(gate, jnp.broadcast_to(weight, c.shape) * c)
        return (wide + peep).astype(gate.dtype)

    def _norm(self, name: str, parts: list[jax.Array], **options: Any) -> list[jax.Array]:
        """Concatenate the parts, normalize over all their units together, and split them again."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = nn.LayerNorm(use_fast_variance=False, name=name, **types, **options)
        joined = jnp.concatenate(parts, axis=-1)
        with jax.numpy_dtype_promotion("standard"):  # Flax's norm needs it, for all but float32
            joined = norm(joined)
        return jnp.split(joined, len(parts), axis=-1)

    def _bias(self, gate: str) -> Initializer:
        """The initializer of a gate's bias."""
        if gate == "f" and self.forget_bias:
            return nn.initializers.constant(self.forget_bias)
        if gate == "i" and self.input_bias:
            return nn.initializers.constant(self.input_bias)
        if gate == "i" and self.coupled_gates and self.forget_bias:
            return nn.initializers.constant(-self.forget_bias)  # sigmoid(-b) = 1 - sigmoid(b)
        return self.bias_init

    def _biases(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        """Initialize the biases of all gates as one array [4H], or [3H] if they are coupled."""
        gates = "igo" if self.coupled_gates else "ifgo"
        each = (shape[0] // len(gates),)
        return jnp.concatenate([self._bias(gate)(key, each, dtype) for gate in gates])

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array, input_shape: tuple[int, ...]) -> LSTMCarry:
        """The initial carry, [..., H] each by `carry_init`, for inputs of shape [..., F].

        With a projection, h is [..., P].
        """
        c, h = super().initialize_carry(rng, input_shape)
        if self.projection_size is not None:
            shape = (*c.shape[:-1], self.projection_size)
            h = self.carry_init(jax.random.split(rng)[1], shape, self.param_dtype)
        return LSTMCarry(c, h)
