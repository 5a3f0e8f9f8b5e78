"""The form between ours and theirs: a cell's weights as matrices, the gates side by side.

Every system keeps a recurrent cell's weights so, and differs from the next in the order of the
gates, in what it calls the arrays, and in how many biases it adds up.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import linen as nn
from flax.traverse_util import unflatten_dict

from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional, Path, Stack, recurrent_layers
from jaxrnn.types import Params

Weights = Mapping[str, np.ndarray]
Arrays = dict[str, np.ndarray]


class Matrices(NamedTuple):
    """A cell's weights; k is the number of its gates."""

    kernel: np.ndarray  # [F, kH]
    recurrent_kernel: np.ndarray  # [H, kH]
    input_bias: np.ndarray  # [kH], added to the product with the input
    hidden_bias: np.ndarray  # [kH], added to the product with the hidden state


def kind_of(cell: nn.RNNCellBase, system: str, *, peepholes: bool = False) -> str:
    """What a cell is elsewhere: "lstm", "gru" or "rnn".

    Args:
      cell: one of ours, or of Flax's with the same parameters.
      system: whose weights are wanted, for the message.
      peepholes: whether that system's LSTM can have them.

    Raises:
      ValueError: if the system has no such cell.
    """
    name = type(cell).__name__
    for option, known in (("layer_norm", False), ("peepholes", peepholes)):
        if getattr(cell, option, False) and not known:
            raise ValueError(f"{system} has no {name} with {option}")
    kinds = {nn.LSTMCell: "lstm", nn.OptimizedLSTMCell: "lstm", nn.GRUCell: "gru"}
    kinds |= {nn.SimpleCell: "rnn"}
    kind = next((kind for base, kind in kinds.items() if isinstance(cell, base)), None)
    if kind is None:
        raise ValueError(f"{system} has no {name}")
    activation = (nn.tanh, nn.relu) if kind == "rnn" else (nn.tanh,)
    usual: Any = {"gate_fn": (nn.sigmoid,), "activation_fn": activation, "residual": (False,)}
    for option, choices in usual.items():
        if getattr(cell, option, choices[0]) not in choices:
            raise ValueError(f"{system} has no {name} with this {option}")
    return kind


def check_alike(directions: Sequence[tuple[Path, Recurrent]], system: str) -> None:
    """Refuse, with a ValueError, cells that one module of a system cannot hold together."""
    alike = {
        (
            kind_of(direction.cell, system, peepholes=True),
            getattr(direction.cell, "features", None),
            getattr(direction.cell, "activation_fn", None),
            getattr(direction.cell, "peepholes", False),
            resets_after(direction.cell),
        )
        for _, direction in directions
    }
    if len(alike) > 1:
        raise ValueError(f"{system} has one kind and size of cell in all directions of a module")


def check_plain(layer: nn.Module, system: str) -> None:
    """Refuse, with a ValueError, what stands between layers that are one module elsewhere."""
    if isinstance(layer, Stack) and layer.residual:
        raise ValueError(f"{system} has no residual layers in a module")
    if isinstance(layer, Bidirectional) and layer.merge != "concat":
        raise ValueError(f"{system} has no merge={layer.merge!r}")
    for part in getattr(layer, "layers", ()):
        check_plain(part, system)


def resets_after(cell: nn.RNNCellBase) -> bool:
    """Whether the cell is a GRU that resets after the recurrent product."""
    return isinstance(cell, nn.GRUCell) and getattr(cell, "reset_after", True)


def levels(layer: nn.Module) -> list[list[tuple[Path, Recurrent]]]:
    """The layers of a stack from the input up, each with its one or two directions.

    Raises:
      ValueError: if it is no recurrent layer.
    """
    if not isinstance(layer, Recurrent | Bidirectional | Stack):
        name = type(layer).__name__
        raise ValueError(f"layer must be a Recurrent, Bidirectional or Stack, not a {name}")
    if isinstance(layer, Stack):
        return [
            [((f"layers_{n}", *path), direction) for path, direction in level]
            for n, part in enumerate(layer.layers)
            for level in levels(part)
        ]
    return [list(recurrent_layers(layer))]


def to_params(cell: nn.RNNCellBase, matrices: Matrices, gates: Sequence[str]) -> dict[str, Any]:
    """A cell's parameters, in its `param_dtype`, from matrices whose gates stand in this order."""
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
    """A cell's parameters as matrices whose gates stand in this order.

    A bias that stands for the sum of two comes out on the side where the cell keeps it.

    Raises:
      ValueError: if the parameters are another cell's.
    """
    name, hidden = type(cell).__name__, cell.features
    dense = {side + gate for gate in gates for side in "ih"}
    peepholes = {"pi", "pf", "po"} if getattr(cell, "peepholes", False) else set()
    for missing in sorted((dense | peepholes) - set(params)):
        raise ValueError(f"params must have {missing}, as a {name} has")
    for extra in sorted(set(params) - dense - peepholes):
        raise ValueError(f"params have {extra}, which this {name} has not")
    for part in sorted(dense):
        units = np.shape(params[part]["kernel"])[-1]
        if units != hidden:
            raise ValueError(f"params must have H = {hidden}, as the cell has, but H = {units}")

    def row(side: str, name: str) -> np.ndarray:
        dense = [params[side + gate] for gate in gates]
        zeros = np.zeros_like(params["h" + gates[0]]["kernel"][0])
        return np.concatenate([np.asarray(each.get(name, zeros)) for each in dense], axis=-1)

    return Matrices(row("i", "kernel"), row("h", "kernel"), row("i", "bias"), row("h", "bias"))


def _bias_sides(cell: nn.RNNCellBase, gate: str) -> str:
    """On which products the cell keeps a gate's bias: with the input, the hidden state, or both."""
    if isinstance(cell, nn.LSTMCell | nn.OptimizedLSTMCell):
        return "h"
    return "ih" if gate == "n" and resets_after(cell) else "i"


def cast(cell: nn.RNNCellBase, params: dict[str, Any]) -> dict[str, Any]:
    """Arrays of their own in the cell's `param_dtype`, laid out row by row."""
    dtype = getattr(cell, "param_dtype", np.float32)
    return {
        name: cast(cell, part) if isinstance(part, dict) else np.array(part, dtype, order="C")
        for name, part in params.items()
    }


def nest(cells: Iterable[tuple[Path, dict[str, Any]]]) -> Params:
    """A layer's parameters from those of its cells, each with the path of its `Recurrent`."""
    return unflatten_dict({(*path, "cell"): params for path, params in cells})


def cell_params(params: Params, path: Path) -> Params:
    """The parameters of the cell of the `Recurrent` at a path.

    Raises:
      ValueError: if there are none.
    """
    for name in (*path, "cell"):
        if name not in params:
            raise ValueError(f"params must have {'/'.join((*path, 'cell'))}, as the layer has")
        params = params[name]
    return params


class Names:
    """The arrays of a dictionary, each to be taken once, by name."""

    def __init__(self, weights: Weights) -> None:
        """Keep what is to be taken; refuse, with a ValueError, what is no dictionary."""
        if not isinstance(weights, Mapping):
            name = type(weights).__name__
            raise ValueError(f"weights must be a dictionary of arrays by name, not a {name}")
        self._left = dict(weights)

    def __contains__(self, name: str) -> bool:
        """Whether the array is there to be taken."""
        return name in self._left

    def take(self, name: str, axes: str, shape: tuple[int | None, ...]) -> np.ndarray:
        """Take an array.

        Args:
          name: its name.
          axes: what its axes are called, for the message, such as "4H, F".
          shape: their sizes; None where any will do.

        Raises:
          ValueError: if it is not there, or of another shape.
        """
        if name not in self._left:
            left = ", ".join(map(str, self._left)) or "none"
            raise ValueError(f"weights must have {name}; those left are: {left}")
        array = np.asarray(self._left.pop(name))
        fits = len(shape) == array.ndim and all(
            want in (None, size) for want, size in zip(shape, array.shape, strict=False)
        )
        if not fits:
            sizes = ", ".join("any" if size is None else str(size) for size in shape)
            raise ValueError(f"{name} must be [{axes}], that is [{sizes}], not {list(array.shape)}")
        return array

    def take_or_zeros(self, name: str, axes: str, shape: tuple[int, ...]) -> np.ndarray:
        """The same, of zeros where the system left the array out, as it may with biases."""
        return self.take(name, axes, shape) if name in self else np.zeros(shape)

    def finish(self) -> None:
        """Refuse what was not taken, with a ValueError: the layer has no place for it."""
        if self._left:
            raise ValueError(f"the layer has no place for {', '.join(map(str, self._left))}")


def one_a_level(layer: nn.Module, weights: Any) -> list[Weights]:
    """One dictionary a layer of a stack; the only one, if there is no stack.

    Raises:
      ValueError: if their number is another.
    """
    if not isinstance(layer, Stack):
        if not isinstance(weights, Mapping):
            raise ValueError("weights must be one dictionary: the layer is no Stack")
        return [weights]
    wanted = len(levels(layer))
    if isinstance(weights, Mapping) or len(weights) != wanted:
        raise ValueError(f"weights must be a list of {wanted} dictionaries, one a layer")
    return list(weights)
