"""PyTorch: `torch.nn.LSTM`, `GRU` and `RNN`, stacked and bidirectional.

Weights have the names of `state_dict()`: `weight_ih_l0` [kH, F], `weight_hh_l0` [kH, H],
`bias_ih_l0` [kH] and `bias_hh_l0` [kH], with the suffix `_reverse` for the backward direction. The
number of gates k is 4 in an LSTM (i, f, g, o), 3 in a GRU (r, z, n; reset after the product) and 1
in an RNN. An LSTM with `proj_size=P` also has `weight_hr_l0` [P, H], and its `weight_hh_l0` is
[4H, P].
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from flax import linen as nn

from jaxrnn.errors import SettingError
from jaxrnn.interop import matrices, structure
from jaxrnn.interop.matrices import Matrices
from jaxrnn.interop.structure import Weights
from jaxrnn.interop.weights import WeightReader
from jaxrnn.layers.stack import Path
from jaxrnn.types import Params

ORDER = {"lstm": "ifgo", "gru": "rzn", "rnn": ("",)}
OPTIONS = ("projection_size",)


def from_torch(layer: nn.Module, weights: Weights) -> Params:
    """A layer's parameters from a PyTorch `state_dict`.

    Args:
      layer: `Recurrent`, `Bidirectional` or `Stack`, of LSTM, GRU or Elman cells (with
        `activation_fn=nn.relu` for `nonlinearity="relu"`).
      weights: arrays by PyTorch's names. Missing biases (`bias=False`) are zero. PyTorch has two
        biases per gate; where they are only ever added, our cell gets their sum.

    Returns:
      the parameters, in each cell's `param_dtype`.

    Raises:
      ValueError: if PyTorch has no such layer, or an array is missing, unused or misshapen.
    """
    reader, cells = WeightReader(weights), []
    for path, cell, gates, suffix in _cells(layer):
        k, hidden = len(gates), cell.features
        size = getattr(cell, "projection_size", None)
        if not size and (name := "weight_hr" + suffix) in reader:
            raise ValueError(
                f"weights have {name}, the projection of an LSTM with proj_size: give the cell"
                " projection_size"
            )
        axes, width = (f"{k}H, P", size) if size else (f"{k}H, H", hidden)
        kernel = reader.take("weight_ih" + suffix, f"{k}H, F", (k * hidden, None))
        recurrent = reader.take("weight_hh" + suffix, axes, (k * hidden, width))
        biases = (
            reader.take_or_zeros(side + suffix, f"{k}H", (k * hidden,))
            for side in ("bias_ih", "bias_hh")
        )
        theirs = Matrices(kernel.T, recurrent.T, *biases)
        params = matrices.to_params(cell, theirs, gates)
        if size:
            projection = reader.take("weight_hr" + suffix, "P, H", (size, hidden))
            params |= matrices.cast(cell, {"projection": {"kernel": projection.T}})
        cells.append((path, params))
    reader.finish()
    return matrices.nest(cells)


def to_torch(layer: nn.Module, params: Params) -> dict[str, np.ndarray]:
    """The inverse of `from_torch`: a layer's parameters as arrays for `load_state_dict`.

    Where our cell has one bias for PyTorch's two, the other is zero.

    Args:
      layer: as for `from_torch`.
      params: its parameters.

    Returns:
      arrays by PyTorch's names, to be converted to tensors.

    Raises:
      ValueError: if PyTorch has no such layer, or the parameters belong to another layer.
    """
    weights = {}
    for path, cell, gates, suffix in _cells(layer):
        own = matrices.cell_params(params, path)
        ours = matrices.to_matrices(cell, own, gates)
        weights["weight_ih" + suffix] = np.asarray(ours.kernel.T, order="C")
        weights["weight_hh" + suffix] = np.asarray(ours.recurrent_kernel.T, order="C")
        weights["bias_ih" + suffix] = ours.input_bias
        weights["bias_hh" + suffix] = ours.hidden_bias
        if getattr(cell, "projection_size", None):
            projection = np.asarray(own["projection"]["kernel"])
            weights["weight_hr" + suffix] = np.asarray(projection.T, order="C")
    return weights


def _cells(layer: nn.Module) -> Iterator[tuple[Path, Any, Sequence[str], str]]:
    """For each cell: its layer's path, the cell, the order of its gates, its arrays' suffix."""
    structure.check_plain(layer, "torch")
    every = structure.levels(layer)
    every_direction = [direction for level in every for direction in level]
    structure.check_alike(every_direction, "torch", OPTIONS)
    if len(set(map(len, every))) > 1:
        raise SettingError("torch has the same directions in all layers of a module")
    for level, directions in enumerate(every):
        if len(directions) == 1 and directions[0][1].reverse:
            raise SettingError("torch has no layer that runs backwards alone")
        for path, direction in directions:
            kind = structure.kind_of(direction.cell, "torch", OPTIONS)
            if kind == "gru" and not structure.resets_after(direction.cell):
                raise SettingError("torch has no GRUCell with reset_after=False")
            suffix = f"_l{level}" + ("_reverse" if direction.reverse else "")
            yield path, direction.cell, ORDER[kind], suffix
