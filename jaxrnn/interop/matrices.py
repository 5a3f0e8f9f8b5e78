"""The common form that all conversions go through: a cell's weights with concatenated gates.

Other systems store a recurrent cell's weights like this. They differ in the order of the gates, the
names of the arrays, and the number of biases.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import linen as nn
from flax.traverse_util import unflatten_dict

from jaxrnn.interop.structure import resets_after
from jaxrnn.layers.stack import Path
from jaxrnn.types import Params

Arrays = dict[str, np.ndarray]
"""Converted weights, by the other system's names."""


class Matrices(NamedTuple):
    """A cell's weights, its k gates concatenated along the last axis."""

    kernel: np.ndarray  # [F, kH]
    recurrent_kernel: np.ndarray  # [H, kH]
    input_bias: np.ndarray  # [kH], added to the product with the input
    hidden_bias: np.ndarray  # [kH], added to the product with the hidden state


def to_params(cell: nn.RNNCellBase, matrices: Matrices, gates: Sequence[str]) -> dict[str, Any]:
    """A cell's parameters from matrices.

    Args:
      cell: the cell that the parameters are for.
      matrices: its weights.
      gates: the order of the gates in them.

    Returns:
      the parameters, in the cell's `param_dtype`.
    """
    parts = [np.split(array, len(gates), axis=-1) for array in matrices]
    params: dict[str, Any] = {}
    for gate, kernel, recurrent, *biases in zip(gates, *parts, strict=True):
        params["i" + gate] = {"kernel": kernel}
        params["h" + gate] = {"kernel": recurrent}
        sides = _bias_sides(cell, gate)
        for side, bias in zip(sides, biases if len(sides) == 2 else [sum(biases)], strict=True):
            params[side + gate]["bias"] = bias
    return cast(cell, params)


def to_matrices(cell: Any, params: Params, gates: Sequence[str]) -> Matrices:
    """A cell's parameters as matrices; the inverse of `to_params`.

    If the cell has one bias where `Matrices` has two, the other one is zero.

    Args:
      cell: the cell.
      params: its parameters.
      gates: the order of the gates in the matrices.

    Raises:
      ValueError: if the parameters belong to another cell.
    """
    name, hidden = type(cell).__name__, cell.features
    dense = {side + gate for gate in gates for side in "ih"}
    others = {"pi", "pf", "po"} if getattr(cell, "peepholes", False) else set()
    others |= {"projection"} if getattr(cell, "projection_size", None) else set()
    for missing in sorted((dense | others) - set(params)):
        raise ValueError(f"params must have {missing}, as a {name} has")
    for extra in sorted(set(params) - dense - others):
        raise ValueError(f"params have {extra}, which this {name} does not have")
    for part in sorted(dense):
        units = np.shape(params[part]["kernel"])[-1]
        if units != hidden:
            raise ValueError(f"params must have H = {hidden}, as the cell has, but H = {units}")
    size = getattr(cell, "projection_size", None)
    shapes = {side: (size or hidden, hidden) for side in sorted(dense) if side[0] == "h"}
    shapes |= {"projection": (hidden, size)} if size else {}
    for part, shape in shapes.items():
        given = np.shape(params[part]["kernel"])
        if given != shape:
            raise ValueError(f"{part}/kernel must be {list(shape)}, not {list(given)}")

    def row(side: str, name: str) -> np.ndarray:
        dense = [params[side + gate] for gate in gates]
        zeros = np.zeros_like(params["h" + gates[0]]["kernel"][0])
        return np.concatenate([np.asarray(each.get(name, zeros)) for each in dense], axis=-1)

    return Matrices(row("i", "kernel"), row("h", "kernel"), row("i", "bias"), row("h", "bias"))


def _bias_sides(cell: nn.RNNCellBase, gate: str) -> str:
    """The products that have a bias for this gate: "i" (input), "h" (hidden state) or "ih"."""
    if isinstance(cell, nn.LSTMCell | nn.OptimizedLSTMCell):
        return "h"
    return "ih" if gate == "n" and resets_after(cell) else "i"


def cast(cell: nn.RNNCellBase, params: dict[str, Any]) -> dict[str, Any]:
    """Copies of the arrays, in the cell's `param_dtype` and C order."""
    dtype = getattr(cell, "param_dtype", np.float32)
    return {
        name: cast(cell, part) if isinstance(part, dict) else np.array(part, dtype, order="C")
        for name, part in params.items()
    }


def nest(cells: Iterable[tuple[Path, dict[str, Any]]]) -> Params:
    """A layer's parameters from its cells', each given with the path of its `Recurrent`."""
    return unflatten_dict({(*path, "cell"): params for path, params in cells})


def cell_params(params: Params, path: Path) -> Params:
    """The parameters of a cell, given the path of its `Recurrent` in the layer.

    Raises:
      ValueError: if there are none.
    """
    for name in (*path, "cell"):
        if name not in params:
            raise ValueError(f"params must have {'/'.join((*path, 'cell'))}, as the layer has")
        params = params[name]
    return params
