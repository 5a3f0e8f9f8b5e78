"""ONNX: the operators LSTM, GRU and RNN, in either direction or both.

The names are those of an operator's inputs, with D directions: `W` [D, kH, F], `R` [D, kH, H],
`B` [D, 2kH] and, in an LSTM with peepholes, `P` [D, 3H]. k gates, 4 in an LSTM (i, o, f, g; ONNX
calls g c), 3 in a GRU (z, r, n; ONNX calls n h), 1 in an RNN. The peepholes stand as i, o, f. A
GRU's `linear_before_reset` is our `reset_after`; ONNX has 0 by default.
"""

from collections.abc import Sequence

import numpy as np
from flax import linen as nn

from jaxrnn.interop import matrices
from jaxrnn.interop.matrices import Arrays, Matrices, Names, Weights
from jaxrnn.layers.stack import Stack
from jaxrnn.types import Params

ORDER = {"lstm": "iofg", "gru": "zrn", "rnn": ("",)}
PEEPHOLES = "iof"


def from_onnx(layer: nn.Module, weights: Weights | Sequence[Weights]) -> Params:
    """The parameters of a layer that computes what the ONNX operator does.

    Args:
      layer: `Recurrent`, `Bidirectional` or `Stack`, of LSTM, GRU or Elman cells.
      weights: the operator's constant inputs by name, one dictionary; for a `Stack` a list of
        them, one a layer. `B` and `P` may be left out, and are zero then.

    Returns:
      the parameters, in each cell's `param_dtype`.

    Raises:
      ValueError: if ONNX has no such layer, or an array is missing, left over, or misshapen.
    """
    cells = []
    every = matrices.one_a_level(layer, weights)
    for level, directions in zip(every, matrices.levels(layer), strict=True):
        names, count = Names(level), len(directions)
        matrices.check_alike(directions, "ONNX")
        cell = directions[0][1].cell
        gates = ORDER[matrices.kind_of(cell, "ONNX", peepholes=True)]
        k, hidden = len(gates), cell.features
        kernels = names.take("W", f"D, {k}H, F", (count, k * hidden, None))
        recurrents = names.take("R", f"D, {k}H, H", (count, k * hidden, hidden))
        biases = names.take_or_zeros("B", f"D, {2 * k}H", (count, 2 * k * hidden))
        peepholes = np.zeros((count, 3 * hidden))
        if getattr(cell, "peepholes", False):
            peepholes = names.take_or_zeros("P", "D, 3H", (count, 3 * hidden))
        for d, (path, direction) in enumerate(directions):
            theirs = Matrices(kernels[d].T, recurrents[d].T, *np.split(biases[d], 2))
            ours = matrices.to_params(direction.cell, theirs, gates)
            if getattr(direction.cell, "peepholes", False):
                parts = zip(PEEPHOLES, np.split(peepholes[d], 3), strict=True)
                ours |= matrices.cast(direction.cell, {"p" + gate: part for gate, part in parts})
            cells.append((path, ours))
        names.finish()
    return matrices.nest(cells)


def to_onnx(layer: nn.Module, params: Params) -> Arrays | list[Arrays]:
    """The same the other way: one dictionary; for a `Stack` a list of them, one a layer.

    Raises:
      ValueError: if ONNX has no such layer, or the parameters are another layer's.
    """
    every = []
    for directions in matrices.levels(layer):
        matrices.check_alike(directions, "ONNX")
        parts = []
        for path, direction in directions:
            cell, own = direction.cell, matrices.cell_params(params, path)
            gates = ORDER[matrices.kind_of(cell, "ONNX", peepholes=True)]
            ours = matrices.to_matrices(cell, own, gates)
            part = {
                "W": ours.kernel.T,
                "R": ours.recurrent_kernel.T,
                "B": np.concatenate([ours.input_bias, ours.hidden_bias]),
            }
            if getattr(cell, "peepholes", False):
                part["P"] = np.concatenate([np.asarray(own["p" + gate]) for gate in PEEPHOLES])
            parts.append(part)
        level = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        every.append({name: np.asarray(array, order="C") for name, array in level.items()})
    return every if isinstance(layer, Stack) else every[0]
