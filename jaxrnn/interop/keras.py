"""Keras: `LSTM`, `GRU` and `SimpleRNN`, and `Bidirectional` around them.

The names are those of a layer's weights: `kernel` [F, kH], `recurrent_kernel` [H, kH] and `bias`
[kH]; a bidirectional layer has them twice, as `forward/kernel` and so on, and `backward/kernel`.
k gates, 4 in an LSTM (i, f, g, o; Keras calls g c), 3 in a GRU (z, r, n; Keras calls n h), 1 in
a SimpleRNN. A GRU with `reset_after=True`, the default, has a `bias` [2, 3H]: with the input, and
with the hidden state.
"""

from collections.abc import Sequence

import numpy as np
from flax import linen as nn

from jaxrnn.interop import matrices
from jaxrnn.interop.matrices import Arrays, Matrices, Names, Weights
from jaxrnn.layers.stack import Stack
from jaxrnn.types import Params

ORDER = {"lstm": "ifgo", "gru": "zrn", "rnn": ("",)}


def from_keras(layer: nn.Module, weights: Weights | Sequence[Weights]) -> Params:
    """The parameters of a layer that computes what Keras's does.

    Args:
      layer: `Recurrent`, `Bidirectional` or `Stack`, of LSTM, GRU or Elman cells.
      weights: by name, one dictionary; for a `Stack` a list of them, one a layer. Without biases
        (`use_bias=False`) they are zero.

    Returns:
      the parameters, in each cell's `param_dtype`.

    Raises:
      ValueError: if Keras has no such layer, or an array is missing, left over, or misshapen.
    """
    cells = []
    every = matrices.one_a_level(layer, weights)
    for level, directions in zip(every, matrices.levels(layer), strict=True):
        names = Names(level)
        for path, direction in directions:
            cell, prefix = direction.cell, _prefix(path, directions)
            gates = ORDER[matrices.kind_of(cell, "Keras")]
            k, hidden = len(gates), cell.features
            kernel = names.take(prefix + "kernel", f"F, {k}H", (None, k * hidden))
            recurrent = names.take(prefix + "recurrent_kernel", f"H, {k}H", (hidden, k * hidden))
            if matrices.resets_after(cell):
                biases = names.take_or_zeros(prefix + "bias", f"2, {k}H", (2, k * hidden))
            else:
                bias = names.take_or_zeros(prefix + "bias", f"{k}H", (k * hidden,))
                biases = (bias, np.zeros_like(bias))
            theirs = Matrices(kernel, recurrent, *biases)
            cells.append((path, matrices.to_params(cell, theirs, gates)))
        names.finish()
    return matrices.nest(cells)


def to_keras(layer: nn.Module, params: Params) -> Arrays | list[Arrays]:
    """The same the other way: one dictionary; for a `Stack` a list of them, one a layer.

    Raises:
      ValueError: if Keras has no such layer, or the parameters are another layer's.
    """
    every = []
    for directions in matrices.levels(layer):
        level = {}
        for path, direction in directions:
            cell, prefix = direction.cell, _prefix(path, directions)
            gates = ORDER[matrices.kind_of(cell, "Keras")]
            ours = matrices.to_matrices(cell, matrices.cell_params(params, path), gates)
            level[prefix + "kernel"] = ours.kernel
            level[prefix + "recurrent_kernel"] = ours.recurrent_kernel
            both = np.stack([ours.input_bias, ours.hidden_bias])
            level[prefix + "bias"] = both if matrices.resets_after(cell) else both.sum(0)
        every.append(level)
    return every if isinstance(layer, Stack) else every[0]


def _prefix(path: matrices.Path, directions: Sequence[object]) -> str:
    """What stands before an array's name: the direction, if there are two."""
    return f"{path[-1]}/" if len(directions) == 2 else ""
