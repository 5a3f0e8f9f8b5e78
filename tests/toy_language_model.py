"""A small language model that says nothing sensible, for tests of what is drawn from one."""

from functools import cache, partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from variants import randomised

from jaxrnn.cells import ElmanCell, GRUCell, LSTMCell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Stack


class Language(nn.Module):
    """ids [B, T] -> logits [B, T, V], and the layers' carry."""

    recurrent: nn.Module
    size: int  # V

    @nn.compact
    def __call__(self, ids, initial_carry=None, *, lengths=None, resets=None, deterministic=True):
        inputs = nn.Embed(self.size, 3)(ids)
        hidden, carry = self.recurrent(
            inputs, initial_carry, lengths=lengths, resets=resets, deterministic=deterministic
        )
        return nn.Dense(self.size, name="readout")(hidden), carry


LAYERS = {
    "lstm": lambda: Recurrent(LSTMCell(6)),
    "gru": lambda: Recurrent(GRUCell(6)),
    "rnn": lambda: Recurrent(ElmanCell(6)),
    "two": lambda: Stack((Recurrent(LSTMCell(6)), Recurrent(ElmanCell(4)))),
}


@cache
def language(name, size, seed=24):
    """A model of one or two layers over V units, and parameters that are all different.

    They are such that what was read last matters much: its likeliest unit is not always the same.
    """
    model = Language(LAYERS[name](), size)
    key = jax.random.key(seed)
    shapes = jax.eval_shape(model.init, key, jnp.zeros((1, 1), jnp.int32))
    params = randomised(shapes["params"], key)
    params["Embed_0"]["embedding"] *= 3
    params["readout"]["kernel"] /= 2
    params["readout"]["bias"] /= 4
    return model, params


def with_bias(params, unit, value):
    """The parameters with another readout bias for one unit."""
    readout = params["readout"]
    return params | {"readout": readout | {"bias": readout["bias"].at[unit].set(value)}}


@partial(jax.jit, static_argnums=0)
def read_whole(model, params, ids):
    """The scores [B, T, V] of what comes after each unit of a text, read from its start."""
    return model.apply({"params": params}, ids)[0]
