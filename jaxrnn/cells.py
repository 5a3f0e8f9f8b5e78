"""The recurrences: how one time step's carry follows from the last one's.

`CELLS` has one entry a cell. An entry is called with a hidden size and returns a Flax cell, a
module `(carry, inputs [B, F]) -> (carry, outputs [B, H])` that can make its own zero carry.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn


class LSTMCarry(NamedTuple):
    """What an LSTM remembers from one step to the next."""

    c: jax.Array  # [B, H]: the cell state
    h: jax.Array  # [B, H]: the hidden state, also the step's output


class LSTMCell(nn.LSTMCell):
    """Flax's LSTM cell, with the forget gate's bias started above zero.

        i = sigmoid(W_ii x + W_hi h + b_hi)      f = sigmoid(W_if x + W_hf h + b_hf)
        g = tanh(W_ig x + W_hg h + b_hg)         o = sigmoid(W_io x + W_ho h + b_ho)
        c' = f * c + i * g                       h' = o * tanh(c')

    Parameters and equations are those of `flax.linen.LSTMCell`, whose one bias initialiser cannot
    tell the forget gate from the others. The gates are sown as intermediates, for
    `recurrent.read_gates`; where nobody reads them they cost nothing.

    Sources: Hochreiter and Schmidhuber (1997); the forget gate is from Gers et al. (2000), eq. 3
    to 5; a starting bias of 1.0 is from Jozefowicz et al. (2015), section 5, and is what
    TensorFlow's BasicLSTMCell and Keras do.
    """

    forget_bias: float = 1.0

    @nn.compact
    def __call__(self, carry: LSTMCarry, inputs: jax.Array) -> tuple[LSTMCarry, jax.Array]:
        """One step: carry [B, H] each, inputs [B, F] -> new carry, outputs [B, H]."""

        def projection(gate: str, bias: float = 0.0) -> jax.Array:  # [B, H]
            dense = partial(nn.Dense, self.features, dtype=self.dtype, param_dtype=self.param_dtype)
            from_input = dense(use_bias=False, kernel_init=self.kernel_init, name="i" + gate)
            from_hidden = dense(
                kernel_init=self.recurrent_kernel_init,
                bias_init=nn.initializers.constant(bias) if bias else self.bias_init,
                name="h" + gate,
            )
            return from_input(inputs) + from_hidden(carry.h)

        i = self.gate_fn(projection("i"))
        f = self.gate_fn(projection("f", self.forget_bias))
        g = self.activation_fn(projection("g"))
        o = self.gate_fn(projection("o"))
        c = f * carry.c + i * g
        h = o * self.activation_fn(c)
        for name, value in {"i": i, "f": f, "g": g, "o": o, "c": c}.items():
            self.sow("intermediates", name, value)
        return LSTMCarry(c, h), h

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array | None, input_shape: tuple[int, ...]) -> LSTMCarry:
        """The zero carry for inputs of `input_shape` ([..., F]); `rng` is not used."""
        zeros = jnp.zeros((*input_shape[:-1], self.features), self.param_dtype)
        return LSTMCarry(c=zeros, h=zeros)


# Glorot's uniform initialiser is what TensorFlow 1 gives every kernel of the lab. It also keeps
# the start of a process quick: compiling the QR of Flax's orthogonal default takes about a second.
_GLOROT = {
    "kernel_init": nn.initializers.glorot_uniform(),
    "recurrent_kernel_init": nn.initializers.glorot_uniform(),
}

CELLS: dict[str, Callable[[int], nn.RNNCellBase]] = {
    "lstm": partial(LSTMCell, **_GLOROT),
    "gru": partial(nn.GRUCell, **_GLOROT),  # Cho et al. (2014), but resets after the product
    "rnn": partial(nn.SimpleCell, **_GLOROT),  # Elman (1990), tanh
}
