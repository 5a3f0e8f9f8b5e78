"""PyTorch: `torch.nn.LSTM`, `GRU` and `RNN`, stacked and bidirectional.

The names are those of `state_dict()`: `weight_ih_l0` [kH, F], `weight_hh_l0` [kH, H],
`bias_ih_l0` [kH], `bias_hh_l0` [kH], with `_reverse` behind them for the backward direction; k
gates, 4 in an LSTM (i, f, g, o), 3 in a GRU (r, z, n, reset after the product), 1 in an RNN.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from flax import linen as nn

from jaxrnn.interop import matrices
from jaxrnn.interop.matrices import Matrices, Names, Weights
from jaxrnn.layers.stack import Path
from jaxrnn.types import Params

ORDER = {"lstm": "ifgo", "gru": "rzn", "rnn": ("",)}


def from_torch(layer: nn.Module, weights: Weights) -> Params:
    """The parameters of a layer that computes what PyTorch's does.

    Args:
      layer: `Recurrent`, `Bidirectional` or `Stack`, of LSTM, GRU or Elman cells (with
        `activation_fn=nn.relu` for `nonlinearity="relu"`).
      weights: by PyTorch's names. Without biases (`bias=False`) they are zero. Of two biases that
        are added up anyway, the sum is kept.

    Returns:
      the parameters, in each cell's `param_dtype`.

    Raises:
      ValueError: if PyTorch has no such layer, or an array is missing, left over, or misshapen.
    """
    names, cells = Names(weights), []
    for path, cell, gates, suffix in _cells(layer):
        k, hidden = len(gates), cell.features
        kernel = names.take("weight_ih" + suffix, f"{k}H, F", (k * hidden, None))
        recurrent = names.take("weight_hh" + suffix, f"{k}H, H", (k * hidden, hidden))
        biases = (
            names.take_or_zeros(side + suffix, f"{k}H", (k * hidden,))
            for side in ("bias_ih", "bias_hh")
        )
        theirs = Matrices(kernel.T, recurrent.T, *biases)
        cells.append((path, matrices.to_params(cell, theirs, gates)))
    names.finish()
    return matrices.nest(cells)


def to_torch(layer: nn.Module, params: Params) -> dict[str, np.ndarray]:
    """The same the other way: what `load_state_dict` takes, once made tensors.

    Where a cell has one bias for PyTorch's two, the other is zero.

    Raises:
      ValueError: if PyTorch has no such layer, or the parameters are another layer's.
    """
    weights = {}
    for path, cell, gates, suffix in _cells(layer):
        ours = matrices.to_matrices(cell, matrices.cell_params(params, path), gates)
        weights["weight_ih" + suffix] = np.asarray(ours.kernel.T, order="C")
        weights["weight_hh" + suffix] = np.asarray(ours.recurrent_kernel.T, order="C")
        weights["bias_ih" + suffix] = ours.input_bias
        weights["bias_hh" + suffix] = ours.hidden_bias
    return weights


def _cells(layer: nn.Module) -> Iterator[tuple[Path, Any, Sequence[str], str]]:
    """Each cell: its layer's path, itself, its gates in order, and the end of its arrays' names."""
    matrices.check_plain(layer, "torch")
    every = matrices.levels(layer)
    matrices.check_alike([direction for level in every for direction in level], "torch")
    if len(set(map(len, every))) > 1:
        raise ValueError("torch has the same directions in all layers of a module")
    for level, directions in enumerate(every):
        if len(directions) == 1 and directions[0][1].reverse:
            raise ValueError("torch has no layer that runs backwards alone")
        for path, direction in directions:
            kind = matrices.kind_of(direction.cell, "torch")
            if kind == "gru" and not matrices.resets_after(direction.cell):
                raise ValueError("torch has no GRUCell with reset_after=False")
            suffix = f"_l{level}" + ("_reverse" if direction.reverse else "")
            yield path, direction.cell, ORDER[kind], suffix
