"""TensorFlow 1: `BasicLSTMCell` under `dynamic_rnn`, alone or several in a `MultiRNNCell`.

The names are those of the variables: `rnn/basic_lstm_cell/kernel` [F+H, 4H], the input's rows
first, and `rnn/basic_lstm_cell/bias` [4H]; in a `MultiRNNCell`,
`rnn/multi_rnn_cell/cell_0/basic_lstm_cell/kernel` and so on. The gates stand as i, g, f, o
(TensorFlow calls g j). The cell adds its `forget_bias` at every step, where ours is a parameter.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from flax import linen as nn

from jaxrnn.interop import matrices
from jaxrnn.interop.matrices import Matrices, Names, Weights
from jaxrnn.layers.stack import Path, Stack
from jaxrnn.types import Params

GATES = "igfo"


def from_tf1(
    layer: nn.Module, weights: Weights, forget_bias: float = 1.0, scope: str = "rnn"
) -> Params:
    """The parameters of a layer that computes what TensorFlow 1's does.

    Args:
      layer: a `Recurrent`, or a `Stack` for a `MultiRNNCell`, of LSTM cells that run forwards.
      weights: by the variables' names, without `:0`.
      forget_bias: what the cell was made with.
      scope: what stands before the names.

    Returns:
      the parameters, in each cell's `param_dtype`.

    Raises:
      ValueError: if the layer is no such one, or an array is missing, left over, or misshapen.
    """
    names, cells = Names(weights), []
    for path, cell, prefix in _cells(layer, scope):
        hidden = cell.features
        both = names.take(prefix + "kernel", "F+H, 4H", (None, 4 * hidden))
        bias = names.take(prefix + "bias", "4H", (4 * hidden,))
        if len(both) <= hidden:
            raise ValueError(f"{prefix}kernel must have F+H rows, more than H = {hidden}")
        theirs = Matrices(both[:-hidden], both[-hidden:], _forget(hidden, forget_bias), bias)
        cells.append((path, matrices.to_params(cell, theirs, GATES)))
    names.finish()
    return matrices.nest(cells)


def to_tf1(
    layer: nn.Module, params: Params, forget_bias: float = 1.0, scope: str = "rnn"
) -> dict[str, np.ndarray]:
    """The same the other way: what a cell with that `forget_bias` must be given.

    Raises:
      ValueError: if the layer is no such one, or the parameters are another layer's.
    """
    weights = {}
    for path, cell, prefix in _cells(layer, scope):
        ours = matrices.to_matrices(cell, matrices.cell_params(params, path), GATES)
        added = _forget(cell.features, forget_bias).astype(ours.hidden_bias.dtype)
        weights[prefix + "kernel"] = np.concatenate([ours.kernel, ours.recurrent_kernel])
        weights[prefix + "bias"] = ours.hidden_bias - added
    return weights


def _forget(hidden: int, forget_bias: float) -> np.ndarray:
    """What the cell adds to its gates: [4H]."""
    return np.repeat([forget_bias if gate == "f" else 0.0 for gate in GATES], hidden)


def _cells(layer: nn.Module, scope: str) -> Iterator[tuple[Path, Any, str]]:
    """Each cell: its layer's path, itself, and the start of its variables' names."""
    matrices.check_plain(layer, "MultiRNNCell")
    for level, directions in enumerate(matrices.levels(layer)):
        path, direction = directions[0]
        kind = matrices.kind_of(direction.cell, "BasicLSTMCell")
        if kind != "lstm" or len(directions) > 1 or direction.reverse:
            raise ValueError("BasicLSTMCell is for LSTM cells that run forwards")
        inner = f"multi_rnn_cell/cell_{level}/" if isinstance(layer, Stack) else ""
        yield path, direction.cell, f"{scope}/{inner}basic_lstm_cell/"
