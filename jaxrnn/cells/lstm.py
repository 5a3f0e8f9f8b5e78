"""Long short-term memory, with a forget gate's bias, peepholes and layer normalisation."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer

from jaxrnn.cells.initializers import initializer

GATES = "ifgo"


class LSTMCarry(NamedTuple):
    """What an LSTM remembers from one step to the next."""

    c: jax.Array  # [B, H]: the cell state
    h: jax.Array  # [B, H]: the hidden state, also the step's output


class LSTMCell(nn.LSTMCell):
    """Flax's LSTM cell, and what the literature has made of it since.

        i = sigmoid(W_ii x + W_hi h + b_hi)      f = sigmoid(W_if x + W_hf h + b_hf)
        g = tanh(W_ig x + W_hg h + b_hg)         o = sigmoid(W_io x + W_ho h + b_ho)
        c' = f * c + i * g                       h' = o * tanh(c')

    As it stands, parameters and equations are those of `flax.linen.LSTMCell`, whose one bias
    initialiser cannot tell the forget gate from the others; the weights start otherwise. The gates
    are sown as intermediates, for `gates.read_gates`; where nobody reads them they cost nothing.

    Sources: Hochreiter and Schmidhuber (1997); the forget gate is from Gers et al. (2000).

    Attributes:
      features: H.
      kernel_init, recurrent_kernel_init: names in `INITIALIZERS`, or initialisers; each gate's
        matrix is made by itself.
      forget_bias: what the forget gate's bias starts at. 1.0 is from Jozefowicz et al. (2015), and
        is what TensorFlow's BasicLSTMCell and Keras do.
      peepholes: the gates see the cell state: `p_i * c` and `p_f * c` are added in i and f, and
        `p_o * c'` in o, the p [H] each. Gers et al. (2002); Graves (2013), eq. 7 to 11.
      layer_norm: the products with x and with h, the four gates of each side by side, [B, 4H],
        are normalised before they are summed, and c' before it goes into h'. Ba et al. (2016),
        eq. 20 to 22. The biases b become the shift of the product with h.
      dtype: of products and gates; None: that of inputs and parameters. The carry keeps
        `param_dtype`.
      param_dtype: of parameters and carry.
    """

    kernel_init: str | Initializer = "glorot_uniform"
    recurrent_kernel_init: str | Initializer = "glorot_uniform"
    forget_bias: float = 1.0
    peepholes: bool = False
    layer_norm: bool = False

    @nn.compact
    def __call__(
        self, carry: LSTMCarry, inputs: jax.Array, hidden_mask: jax.Array | None = None
    ) -> tuple[LSTMCarry, jax.Array]:
        """One step: carry [B, H] each, inputs [B, F] -> new carry, outputs [B, H].

        `hidden_mask` [B, H], if any, multiplies the h that the gates see (recurrent dropout).
        """
        dense = partial(nn.Dense, self.features, dtype=self.dtype, param_dtype=self.param_dtype)
        from_input = partial(dense, use_bias=False, kernel_init=initializer(self.kernel_init))
        from_hidden = partial(dense, kernel_init=initializer(self.recurrent_kernel_init))
        hidden = carry.h if hidden_mask is None else carry.h * hidden_mask
        x = [from_input(name="i" + gate)(inputs) for gate in GATES]  # [B, H] each
        if self.layer_norm:
            h = [from_hidden(name="h" + gate, use_bias=False)(hidden) for gate in GATES]
            x = self._norm("norm_i", x, use_bias=False)
            h = self._norm("norm_h", h, bias_init=self._biases)
        else:
            h = [from_hidden(name="h" + gate, bias_init=self._bias(gate))(hidden) for gate in GATES]
        i, f, g, o = (from_x + from_h for from_x, from_h in zip(x, h, strict=True))

        i = self.gate_fn(self._peep("pi", carry.c, i))
        f = self.gate_fn(self._peep("pf", carry.c, f))
        g = self.activation_fn(g)
        c = f * carry.c + i * g
        o = self.gate_fn(self._peep("po", c, o))
        h = o * self.activation_fn(self._norm("norm_c", [c])[0] if self.layer_norm else c)
        for name, value in {"i": i, "f": f, "g": g, "o": o, "c": c}.items():
            self.sow("intermediates", name, value)
        return LSTMCarry(c, h), h

    def _peep(self, name: str, c: jax.Array, gate: jax.Array) -> jax.Array:
        """What a gate sums up, with its look at the cell state where there are peepholes."""
        if not self.peepholes:
            return gate
        weight = self.param(name, self.bias_init, (self.features,), self.param_dtype)
        return (gate + jnp.broadcast_to(weight, c.shape) * c).astype(gate.dtype)

    def _norm(self, name: str, parts: list[jax.Array], **options: Any) -> list[jax.Array]:
        """Normalise parts side by side: over the units of all of them together."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = nn.LayerNorm(use_fast_variance=False, name=name, **types, **options)
        return jnp.split(norm(jnp.concatenate(parts, axis=-1)), len(parts), axis=-1)

    def _bias(self, gate: str) -> Initializer:
        """How a gate's bias starts."""
        forget = gate == "f" and self.forget_bias
        return nn.initializers.constant(self.forget_bias) if forget else self.bias_init

    def _biases(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        """How the four biases start, side by side."""
        each = (shape[0] // len(GATES),)
        return jnp.concatenate([self._bias(gate)(key, each, dtype) for gate in GATES])

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array, input_shape: tuple[int, ...]) -> LSTMCarry:
        """The carry that inputs of `input_shape` ([..., F]) start from: `carry_init`'s."""
        c, h = super().initialize_carry(rng, input_shape)
        return LSTMCarry(c, h)
