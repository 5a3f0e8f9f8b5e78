"""Looking into a trained model: the gates and states of its recurrent layers over time."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.checks import check_axes, check_lengths
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
      model: a recurrent layer, or a module that holds some in its attributes, as `SequenceModel`
        does, and that is called as they are.
      params: the model's parameters.
      inputs: [B, T, F].
      initial_carry: as for `Recurrent`.
      lengths: [B] int, as for `Recurrent`.
      resets: [B, T] bool, as for `Recurrent`.

    Returns:
      One dictionary a `Recurrent` layer, in the order of `recurrent_layers`. In it by name, all
      [B, T, H] and zero past each row's length: the hidden state h, before what a `Stack` adds to
      it, and what the cell sows besides. An LSTM: the gates i, f, o (0 to 1), the candidate g (-1
      to 1) and the cell state c; a GRU: the gates r, z and the candidate n; minLSTM: i, f, g;
      minGRU: z, n.

    Raises:
      TypeError: as `Recurrent`.
      ValueError: as `Recurrent`; and if the model has no such layer in its attributes.
    """
    if not list(recurrent_layers(model)):
        name = type(model).__name__
        raise ValueError(f"{name} has no Recurrent layer in its attributes, so there are no gates")
    if lengths is not None:
        sizes = check_axes("inputs", inputs, "BTF")
        lengths = check_lengths(lengths, sizes["B"], sizes["T"])
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
        of_cell = sown.get("cell", {}).items()
        gates = {name: values[0] for name, values in of_cell if isinstance(values, tuple)}
        gates["h"] = sown["h"][0]
        if lengths is not None:
            counts = jnp.arange(inputs.shape[1])[None, :, None] < lengths[:, None, None]
            gates = {name: jnp.where(counts, gate, 0) for name, gate in gates.items()}
        layers.append(gates)
    return layers
