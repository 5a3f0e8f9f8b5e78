"""ONNX: the operators LSTM, GRU and RNN, in either direction or both.

Weights have the names of the operator's inputs; with D directions they are `W` [D, kH, F], `R`
[D, kH, H], `B` [D, 2kH] and, in an LSTM with peepholes, `P` [D, 3H] in the order i, o, f. The
number of gates k is 4 in an LSTM (i, o, f, g; ONNX calls g c), 3 in a GRU (z, r, n; ONNX calls n h)
and 1 in an RNN. A GRU's `linear_before_reset` is our `reset_after`; ONNX's default is 0. An LSTM's
`input_forget=1` is our `coupled_gates`: ONNX keeps weights of the forget gate that have no effect,
which are dropped on the way in and zero on the way out.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from jaxrnn.interop import matrices, structure
from jaxrnn.interop.matrices import Arrays, Matrices
from jaxrnn.interop.structure import Weights
from jaxrnn.interop.weights import WeightReader
from jaxrnn.layers.stack import Stack
from jaxrnn.types import Params

ORDER = {"lstm": "iofg", "gru": "zrn", "rnn": ("",)}
PEEPHOLES = "iof"
FORGET = {"if": "ii", "hf": "hi", "pf": "pi"}
"""The parameters of the forget gate, and those of the input gate, which have the same shapes."""
OPTIONS = ("peepholes", "coupled_gates")


def from_onnx(layer: nn.Module, weights: Weights | Sequence[Weights]) -> Params:
    """A layer's parameters from the inputs of an ONNX operator.

    Args:
      layer: `Recurrent`, `Bidirectional` or `Stack`, of LSTM, GRU or Elman cells.
      weights: the operator's constant inputs by name, one dictionary; for a `Stack` a list of
        them, one per layer. `B` and `P` are optional, and zero if missing.

    Returns:
      the parameters, in each cell's `param_dtype`.

    Raises:
      ValueError: if ONNX has no such layer, or an array is missing, unused or misshapen.
    """
    cells = []
    every = structure.weights_by_layer(layer, weights)
    for level, directions in zip(every, structure.levels(layer), strict=True):
        reader, count = WeightReader(level), len(directions)
        structure.check_alike(directions, "ONNX", OPTIONS)
        cell = directions[0][1].cell
        gates = ORDER[structure.kind_of(cell, "ONNX", OPTIONS)]
        k, hidden = len(gates), cell.features
        kernels = reader.take("W", f"D, {k}H, F", (count, k * hidden, None))
        recurrents = reader.take("R", f"D, {k}H, H", (count, k * hidden, hidden))
        biases = reader.take_or_zeros("B", f"D, {2 * k}H", (count, 2 * k * hidden))
        peepholes = np.zeros((count, 3 * hidden))
        if getattr(cell, "peepholes", False):
            peepholes = reader.take_or_zeros("P", "D, 3H", (count, 3 * hidden))
        for d, (path, direction) in enumerate(directions):
            theirs = Matrices(kernels[d].T, recurrents[d].T, *np.split(biases[d], 2))
            ours = matrices.to_params(direction.cell, theirs, gates)
            if getattr(direction.cell, "peepholes", False):
                parts = zip(PEEPHOLES, np.split(peepholes[d], 3), strict=True)
                ours |= matrices.cast(direction.cell, {"p" + gate: part for gate, part in parts})
            if getattr(direction.cell, "coupled_gates", False):
                ours = {name: part for name, part in ours.items() if name not in FORGET}
            cells.append((path, ours))
        reader.finish()
    return matrices.nest(cells)


def to_onnx(layer: nn.Module, params: Params) -> Arrays | list[Arrays]:
    """The inverse of `from_onnx`: a layer's parameters as inputs of an ONNX operator.

    Args:
      layer: as for `from_onnx`.
      params: its parameters.

    Returns:
      one dictionary; for a `Stack` a list of them, one per layer.

    Raises:
      ValueError: if ONNX has no such layer, or the parameters belong to another layer.
    """
    every = []
    for directions in structure.levels(layer):
        structure.check_alike(directions, "ONNX", OPTIONS)
        parts = []
        for path, direction in directions:
            cell, own = direction.cell, matrices.cell_params(params, path)
            gates = ORDER[structure.kind_of(cell, "ONNX", OPTIONS)]
            ours = matrices.to_matrices(cell, _with_forget(cell, own), gates)
            part = {
                "W": ours.kernel.T,
                "R": ours.recurrent_kernel.T,
                "B": np.concatenate([ours.input_bias, ours.hidden_bias]),
            }
            if getattr(cell, "peepholes", False):
                own = _with_forget(cell, own)
                part["P"] = np.concatenate([np.asarray(own["p" + gate]) for gate in PEEPHOLES])
            parts.append(part)
        level = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        every.append({name: np.asarray(array, order="C") for name, array in level.items()})
    return every if isinstance(layer, Stack) else every[0]


def _with_forget(cell: Any, params: Params) -> Params:
    """Add zeros for the forget gate that a cell with coupled gates does not have."""
    if not getattr(cell, "coupled_gates", False):
        return params
    return dict(params) | {
        name: jax.tree.map(np.zeros_like, params[like])
        for name, like in FORGET.items()
        if like in params
    }
