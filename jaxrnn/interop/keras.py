"""Keras: `LSTM`, `GRU` and `SimpleRNN`, and `Bidirectional` around them.

Weights have Keras's names: `kernel` [F, kH], `recurrent_kernel` [H, kH] and `bias` [kH]. A
bidirectional layer has them twice, as `forward/kernel`, `backward/kernel` and so on. The number of
gates k is 4 in an LSTM (i, f, g, o; Keras calls g c), 3 in a GRU (z, r, n; Keras calls n h) and 1
in a SimpleRNN. A GRU with `reset_after=True`, the default, has a `bias` [2, 3H]: first that of the
input product, then that of the hidden state.
"""

from collections.abc import Sequence

import numpy as np
from flax import linen as nn

from jaxrnn.interop import matrices, structure
from jaxrnn.interop.matrices import Arrays, Matrices
from jaxrnn.interop.structure import Weights
from jaxrnn.interop.weights import WeightReader
from jaxrnn.layers.stack import Path, Stack
from jaxrnn.types import Params

ORDER = {"lstm": "ifgo", "gru": "zrn", "rnn": ("",)}


def from_keras(layer: nn.Module, weights: Weights | Sequence[Weights]) -> Params:
    """A layer's parameters from weights of a Keras layer.

    Args:
      layer: `Recurrent`, `Bidirectional` or `Stack`, of LSTM, GRU or Elman cells.
      weights: by name, one dictionary; for a `Stack` a list of them, one per layer. Missing
        biases (`use_bias=False`) are zero.

    Returns:
      the parameters, in each cell's `param_dtype`.

    Raises:
      ValueError: if Keras has no such layer, or an array is missing, unused or misshapen.
    """
    cells = []
    every = structure.weights_by_layer(layer, weights)
    for level, directions in zip(every, structure.levels(layer), strict=True):
        reader = WeightReader(level)
        for path, direction in directions:
            cell, prefix = direction.cell, _prefix(path, directions)
            gates = ORDER[structure.kind_of(cell, "Keras")]
            k, hidden = len(gates), cell.features
            kernel = reader.take(prefix + "kernel", f"F, {k}H", (None, k * hidden))
            recurrent = reader.take(prefix + "recurrent_kernel", f"H, {k}H", (hidden, k * hidden))
            if structure.resets_after(cell):
                biases = reader.take_or_zeros(prefix + "bias", f"2, {k}H", (2, k * hidden))
            else:
                bias = reader.take_or_zeros(prefix + "bias", f"{k}H", (k * hidden,))
                biases = (bias, np.zeros_like(bias))
            theirs = Matrices(kernel, recurrent, *biases)
            cells.append((path, matrices.to_params(cell, theirs, gates)))
        reader.finish()
    return matrices.nest(cells)


def to_keras(layer: nn.Module, params: Params) -> Arrays | list[Arrays]:
    """The inverse of `from_keras`: a layer's parameters as Keras weights.

    Args:
      layer: as for `from_keras`.
      params: its parameters.

    Returns:
      one dictionary; for a `Stack` a list of them, one per layer.

    Raises:
      ValueError: if Keras has no such layer, or the parameters belong to another layer.
    """
    every = []
    for directions in structure.levels(layer):
        level = {}
        for path, direction in directions:
            cell, prefix = direction.cell, _prefix(path, directions)
            gates = ORDER[structure.kind_of(cell, "Keras")]
            ours = matrices.to_matrices(cell, matrices.cell_params(params, path), gates)
            level[prefix + "kernel"] = ours.kernel
            level[prefix + "recurrent_kernel"] = ours.recurrent_kernel
            both = np.stack([ours.input_bias, ours.hidden_bias])
            level[prefix + "bias"] = both if structure.resets_after(cell) else both.sum(0)
        every.append(level)
    return every if isinstance(layer, Stack) else every[0]


def _prefix(path: Path, directions: Sequence[object]) -> str:
    """The prefix of an array's name: the direction, if there are two."""
    return f"{path[-1]}/" if len(directions) == 2 else ""
