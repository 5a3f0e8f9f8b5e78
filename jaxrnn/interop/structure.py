"""Which of our layers and cells exist in another system, and in what order its layers come."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import linen as nn

from jaxrnn.cells import ElmanCell, GRUCell, LSTMCell
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional, Path, Stack, recurrent_layers

KINDS: dict[type, str] = {
    **dict.fromkeys((LSTMCell, nn.LSTMCell, nn.OptimizedLSTMCell), "lstm"),
    **dict.fromkeys((GRUCell, nn.GRUCell), "gru"),
    **dict.fromkeys((ElmanCell, nn.SimpleCell), "rnn"),
}
"""The cells that other systems have. Subclasses are not included: they may change the equations."""

Weights = Mapping[str, np.ndarray]
"""Another system's arrays, by its names."""


def kind_of(cell: nn.RNNCellBase, system: str, options: Sequence[str] = ()) -> str:
    """The kind of a cell in another system: "lstm", "gru" or "rnn".

    Args:
      cell: one of ours, or Flax's with the same parameters.
      system: the other system's name, for the message.
      options: those options of an LSTM that the system supports.

    Raises:
      SettingError: if the system has no such cell.
    """
    name = type(cell).__name__
    for option in ("layer_norm", "peepholes", "projection_size", "coupled_gates", "cell_clip"):
        if getattr(cell, option, None) and option not in options:
            raise SettingError(f"{system} has no {name} with {option}")
    kind = KINDS.get(type(cell))
    if kind is None:
        base = next((base.__name__ for base in KINDS if isinstance(cell, base)), None)
        hint = f" (it may differ from the {base} that it extends)" if base else ""
        raise SettingError(f"{system} has no {name}{hint}")
    activation = (nn.tanh, nn.relu) if kind == "rnn" else (nn.tanh,)
    usual: Any = {"gate_fn": (nn.sigmoid,), "activation_fn": activation, "residual": (False,)}
    usual["carry_init"] = (nn.initializers.zeros,)
    for option, choices in usual.items():
        if getattr(cell, option, choices[0]) not in choices:
            raise SettingError(f"{system} has no {name} with this {option}")
    return kind


def check_alike(
    directions: Sequence[tuple[Path, Recurrent]], system: str, options: Sequence[str] = ()
) -> None:
    """Check that one module of a system, with these options, can hold these cells.

    Raises:
      ValueError: if the cells differ in kind, size or options.
    """
    kinds = {
        (
            kind_of(direction.cell, system, options),
            *(
                getattr(direction.cell, option, None)
                for option in ("features", "activation_fn", *options)
            ),
            resets_after(direction.cell),
        )
        for _, direction in directions
    }
    if len(kinds) > 1:
        raise ValueError(f"{system} has one kind and size of cell in all directions of a module")


def check_plain(layer: nn.Module, system: str) -> None:
    """Check for residual connections and merges that a system's single module does not have.

    Raises:
      SettingError: if there is one.
    """
    if isinstance(layer, Stack) and layer.residual:
        raise SettingError(f"{system} has no residual layers in a module")
    if isinstance(layer, Bidirectional) and layer.merge != "concat":
        raise SettingError(f"{system} has no merge={layer.merge!r}")
    for part in getattr(layer, "layers", ()):
        check_plain(part, system)


def resets_after(cell: nn.RNNCellBase) -> bool:
    """Whether a cell is a GRU whose reset gate acts after the recurrent product."""
    return isinstance(cell, nn.GRUCell) and getattr(cell, "reset_after", True)


def levels(layer: nn.Module) -> list[list[tuple[Path, Recurrent]]]:
    """The layers of a stack, the input's first, each as a list of its one or two directions.

    A layer that is not a stack counts as a stack of one.

    Raises:
      SettingError: if `layer` is not a recurrent layer, or a subclass may compute something else.
    """
    _check_layer(layer)
    if isinstance(layer, Stack):
        return [
            [((f"layers_{n}", *path), direction) for path, direction in level]
            for n, part in enumerate(layer.layers)
            for level in levels(part)
        ]
    directions = list(recurrent_layers(layer))
    for _, direction in directions:
        _check_layer(direction)
    return [directions]


def _check_layer(layer: nn.Module) -> None:
    name = type(layer).__name__
    base = next(
        (kind for kind in (Recurrent, Bidirectional, Stack) if isinstance(layer, kind)), None
    )
    if base is None:
        raise SettingError(f"layer must be a Recurrent, Bidirectional or Stack, not a {name}")
    if type(layer).__call__ is not base.__call__:
        raise SettingError(
            f"layer must be a Recurrent, Bidirectional or Stack, not a {name} (it may differ from"
            f" the {base.__name__} that it extends)"
        )


def weights_by_layer(layer: nn.Module, weights: Any) -> list[Weights]:
    """The weights as a list with one dictionary per layer, also if there is only one layer.

    Raises:
      ValueError: if the number of dictionaries is not that of the layers.
    """
    if not isinstance(layer, Stack):
        if not isinstance(weights, Mapping):
            raise ValueError("weights must be one dictionary, as the layer is not a Stack")
        return [weights]
    wanted = len(levels(layer))
    if isinstance(weights, Mapping) or len(weights) != wanted:
        raise ValueError(f"weights must be a list of {wanted} dictionaries, one per layer")
    return list(weights)
