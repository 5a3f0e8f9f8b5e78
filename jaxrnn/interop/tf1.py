"""TensorFlow 1: `BasicLSTMCell` under `dynamic_rnn`, alone or several in a `MultiRNNCell`.

Weights have the names of the variables: `rnn/basic_lstm_cell/kernel` [F+H, 4H], the input's rows
first, and `rnn/basic_lstm_cell/bias` [4H]; in a `MultiRNNCell`
`rnn/multi_rnn_cell/cell_0/basic_lstm_cell/kernel` and so on. The order of the gates is i, g, f, o
(TensorFlow calls g j). TensorFlow's cell adds a constant `forget_bias` at every step; in our cell
it is part of the forget gate's bias.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from flax import linen as nn

from jaxrnn.interop import matrices, structure
from jaxrnn.interop.matrices import Matrices
from jaxrnn.interop.structure import Weights
from jaxrnn.interop.weights import WeightReader
from jaxrnn.layers.stack import Path, Stack
from jaxrnn.types import Params

GATES = "igfo"


def from_tf1(
    layer: nn.Module, weights: Weights, forget_bias: float = 1.0, scope: str = "rnn"
) -> Params:
    """A layer's parameters from TensorFlow 1 variables.

    Args:
      layer: a `Recurrent`, or a `Stack` for a `MultiRNNCell`, of LSTM cells that run forwards.
      weights: arrays by the variables' names, without `:0`.
      forget_bias: the `forget_bias` of the TensorFlow cell.
      scope: the prefix of the names.

    Returns:
      the parameters, in each cell's `param_dtype`.

    Raises:
      ValueError: if TensorFlow 1 has no such layer, or an array is missing, unused or misshapen.
    """
    reader, cells = WeightReader(weights), []
    for path, cell, prefix in _cells(layer, scope):
        hidden = cell.features
        both = reader.take(prefix + "kernel", "F+H, 4H", (None, 4 * hidden))
        bias = reader.take(prefix + "bias", "4H", (4 * hidden,))
        if len(both) <= hidden:
            raise ValueError(f"{prefix}kernel must have F+H rows, more than H = {hidden}")
        theirs = Matrices(both[:-hidden], both[-hidden:], _forget(hidden, forget_bias), bias)
        cells.append((path, matrices.to_params(cell, theirs, GATES)))
    reader.finish()
    return matrices.nest(cells)


def to_tf1(
    layer: nn.Module, params: Params, forget_bias: float = 1.0, scope: str = "rnn"
) -> dict[str, np.ndarray]:
    """The inverse of `from_tf1`: a layer's parameters as TensorFlow 1 variables.

    Args:
      layer: as for `from_tf1`.
      params: its parameters.
      forget_bias: the `forget_bias` of the TensorFlow cell; it is subtracted from our bias.
      scope: the prefix of the names.

    Returns:
      arrays by the variables' names.

    Raises:
      ValueError: if TensorFlow 1 has no such layer, or the parameters belong to another layer.
    """
    weights = {}
    for path, cell, prefix in _cells(layer, scope):
        ours = matrices.to_matrices(cell, matrices.cell_params(params, path), GATES)
        added = _forget(cell.features, forget_bias).astype(ours.hidden_bias.dtype)
        weights[prefix + "kernel"] = np.concatenate([ours.kernel, ours.recurrent_kernel])
        weights[prefix + "bias"] = ours.hidden_bias - added
    return weights


def _forget(hidden: int, forget_bias: float) -> np.ndarray:
    """The constant that TensorFlow's cell adds to its gates, [4H]."""
    return np.repeat([forget_bias if gate == "f" else 0.0 for gate in GATES], hidden)


def _cells(layer: nn.Module, scope: str) -> Iterator[tuple[Path, Any, str]]:
    """For each cell: its layer's path, the cell, and the prefix of its variables' names."""
    structure.check_plain(layer, "MultiRNNCell")
    for level, directions in enumerate(structure.levels(layer)):
        path, direction = directions[0]
        kind = structure.kind_of(direction.cell, "BasicLSTMCell")
        if kind != "lstm" or len(directions) > 1 or direction.reverse:
            raise ValueError("BasicLSTMCell is for LSTM cells that run forwards")
        inner = f"multi_rnn_cell/cell_{level}/" if isinstance(layer, Stack) else ""
        yield path, direction.cell, f"{scope}/{inner}basic_lstm_cell/"
