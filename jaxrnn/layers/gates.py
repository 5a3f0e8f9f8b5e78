"""Inspecting a trained model: the gates and states of its recurrent layers over time."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.checks import check_lengths
from jaxrnn.layers.scan import valid_steps
from jaxrnn.layers.stack import recurrent_layers
from jaxrnn.types import Carry, Params


def read_gates(
    model: nn.Module,
    params: Params,
    inputs: jax.Array,
    initial_carry: Carry = None,
    *,
    lengths: jax.Array | None = None,
    resets: jax.Array | None = None,
) -> list[dict[str, jax.Array]]:
    """The gates and states of a model's recurrent layers at every time step.

    Args:
      model: a recurrent layer, or a module that has such layers as attributes and is called in the
        same way, such as `SequenceModel`.
      params: the model's parameters.
      inputs: [B, T, F].
      initial_carry: as for `Recurrent`.
      lengths: [B] int, as for `Recurrent`.
      resets: [B, T] bool, as for `Recurrent`.

    Returns:
      a list with a dictionary for each `Recurrent` layer, in the order of `recurrent_layers`. Its
      values are [B, T, H] (gates of a head [B, T, K], an LRU's states [B, T, N]) and zero past each
      row's length: the hidden state h, without a `Stack`'s residual, and what the cell sows. An
      LSTM sows the gates i, f, o (0 to 1), the candidate g (-1 to 1) and the cell state c; a GRU
      the gates r, z and the candidate n; minLSTM i, f, g; minGRU z, n; for the others see the cell.

    Raises:
      TypeError: as `Recurrent`.
      ValueError: as `Recurrent`; also if the model has no `Recurrent` layer in its attributes.

    >>> from jaxrnn.cells import LSTMCell
    >>> from jaxrnn.layers.recurrent import Recurrent
    >>> layer, inputs = Recurrent(LSTMCell(4)), jnp.ones((2, 7, 3))  # [B, T, F]
    >>> variables = layer.init(jax.random.key(0), inputs)
    >>> (gates,) = read_gates(layer, variables["params"], inputs)
    >>> sorted(gates), gates["f"].shape
    (['c', 'f', 'g', 'h', 'i', 'o'], (2, 7, 4))
    """
    if not list(recurrent_layers(model)):
        name = type(model).__name__
        raise ValueError(f"{name} has no Recurrent layer in its attributes, so there are no gates")
    if lengths is not None:
        lengths = check_lengths(lengths, *inputs.shape[:2])
    return _read(model, params, inputs, initial_carry, lengths, resets)


@partial(jax.jit, static_argnums=0)
def _read(
    model: nn.Module,
    params: Params,
    inputs: jax.Array,
    initial_carry: Carry,
    lengths: jax.Array | None,
    resets: jax.Array | None,
) -> list[dict[str, jax.Array]]:
    """`read_gates` after its checks, compiled once per model."""
    _, variables = model.apply(
        {"params": params},
        inputs,
        initial_carry,
        lengths=lengths,
        resets=resets,
        mutable=["intermediates"],
    )
    layers = []
    for path, _ in recurrent_layers(model):
        sown: Any = variables["intermediates"]
        for name in path:
            sown = sown[name]
        by_cell = sown.get("cell", {}).items()
        gates = {name: values[0] for name, values in by_cell if isinstance(values, tuple)}
        gates["h"] = sown["h"][0]
        if lengths is not None:
            valid = valid_steps(lengths, inputs.shape[1])
            gates = {
                name: jnp.where(jnp.expand_dims(valid, range(2, gate.ndim)), gate, 0)
                for name, gate in gates.items()
            }
        layers.append(gates)
    return layers
