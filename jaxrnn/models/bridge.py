"""From an encoder's last carry to a decoder's first."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.dtypes import promote
from jaxrnn.errors import SettingError
from jaxrnn.layers import scan
from jaxrnn.layers.stack import Bidirectional, BidirectionalCarry, Stack
from jaxrnn.types import Carry


class DenseBridge(nn.Module):
    """The decoder's first carry from the encoder's last state: tanh(W h + b) for each array."""

    @nn.compact
    def __call__(self, hidden: jax.Array, like: Carry) -> Carry:
        """Hidden [B, H] -> a carry with the shapes and dtypes of `like`."""

        def start(n: int, leaf: jax.Array) -> jax.Array:
            dense = nn.Dense(leaf.shape[-1], name=f"dense_{n}")
            return jnp.tanh(dense(hidden)).astype(leaf.dtype)

        leaves, structure = jax.tree.flatten(like)
        with jax.numpy_dtype_promotion("standard"):
            return jax.tree.unflatten(structure, [start(n, leaf) for n, leaf in enumerate(leaves)])


def hidden_state(carry: Carry) -> jax.Array:
    """The hidden state [B, H] in a layer's carry: the top layer's, both directions concatenated.

    Raises:
      SettingError: if a cell's carry has no hidden state, as those of mLSTM, DeltaNet and LRU.
    """
    if isinstance(carry, BidirectionalCarry):
        return jnp.concatenate(promote(*map(hidden_state, carry)), axis=-1)
    if hasattr(carry, "h"):
        return carry.h
    if hasattr(carry, "_fields"):  # a named carry without h
        raise SettingError(
            f"an encoder-decoder needs cells with a hidden state, and a {type(carry).__name__} has"
            " none: choose other cells"
        )
    if isinstance(carry, tuple | list):  # the layers of a stack; or (c, h), of Flax's LSTM
        return hidden_state(carry[-1])
    return carry


def fresh_carry(layer: Any, rows: int) -> Carry:
    """The carry that a layer would start from by itself."""
    if isinstance(layer, Stack):
        return tuple(fresh_carry(part, rows) for part in layer.layers)
    if isinstance(layer, Bidirectional):
        return BidirectionalCarry(*(fresh_carry(x, rows) for x in (layer.forward, layer.backward)))
    return scan.fresh_carry(layer.cell, jnp.zeros((rows, 1, 1)))
