"""The recurrent cells: one time step, `(carry, inputs [B, F]) -> (carry, outputs [B, H])`.

`CELLS` names them. Each entry is called with a hidden size and options, and returns a Flax cell,
which can also make its own zero carry:

>>> CELLS["lstm"](8).features, CELLS["gru"](8, reset_after=False).reset_after
(8, False)

A layer takes any Flax cell over [B, F] whose only variables are parameters; `register_cell` gives
it a name.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from flax import linen as nn

from jaxrnn.cells.base import Cell, LinearCell
from jaxrnn.cells.deltanet import DeltaNetCarry, DeltaNetCell
from jaxrnn.cells.elman import ElmanCell
from jaxrnn.cells.gated_deltanet import GatedDeltaNetCell
from jaxrnn.cells.gru import GRUCell
from jaxrnn.cells.indrnn import IndRNNCell
from jaxrnn.cells.initializers import INITIALIZERS, initializer
from jaxrnn.cells.lru import LRUCarry, LRUCell
from jaxrnn.cells.lstm import LSTMCarry, LSTMCell
from jaxrnn.cells.minimal import MinGRUCell, MinLSTMCell, positive
from jaxrnn.cells.mlstm import MLSTMCarry, MLSTMCell
from jaxrnn.cells.rglru import RGLRUCell
from jaxrnn.cells.slstm import SLSTMCarry, SLSTMCell
from jaxrnn.cells.urlstm import URLSTMCell
from jaxrnn.choices import check_choice
from jaxrnn.errors import SettingError

CELLS: dict[str, Callable[..., nn.RNNCellBase]] = {
    "lstm": LSTMCell,
    "cifg": partial(LSTMCell, coupled_gates=True),  # Greff et al. (2017)
    "gru": GRUCell,
    "rnn": ElmanCell,
    "irnn": partial(  # Le, Jaitly and Hinton (2015)
        ElmanCell,
        activation_fn=nn.relu,
        kernel_init="normal_0.001",
        recurrent_kernel_init="identity",
    ),
    "minlstm": MinLSTMCell,
    "mingru": MinGRUCell,
    "indrnn": IndRNNCell,
    "urlstm": URLSTMCell,
    "lru": LRUCell,
    "rglru": RGLRUCell,
    "slstm": SLSTMCell,
    "mlstm": MLSTMCell,
    "deltanet": DeltaNetCell,
    "gateddeltanet": GatedDeltaNetCell,
}


def make_cell(name: str, hidden_size: int, **options: Any) -> nn.RNNCellBase:
    """Make a cell by its name in `CELLS`, as command lines do.

    Args:
      name: a key of `CELLS`.
      hidden_size: H.
      **options: of the cell; those that are None keep their defaults.

    Returns:
      a Flax cell.

    Raises:
      SettingError: if there is no such cell, or it lacks an option.

    >>> make_cell("lstm", 8, projection_size=3).projection_size
    3
    """
    check_choice("cell", name, CELLS)
    given = {option: value for option, value in options.items() if value is not None}
    try:
        return CELLS[name](hidden_size, **given)
    except TypeError:
        raise SettingError(f"the cell {name} has no {' or '.join(given)}") from None
    except ValueError as error:
        raise SettingError(str(error)) from None


def register_cell(name: str, cell: Callable[..., nn.RNNCellBase]) -> None:
    """Add a cell to `CELLS`, so that scripts and command lines can name it.

    Names live as long as the process: register the cell at the top of the script that uses it.

    Args:
      name: a new name, such as "mgu".
      cell: called as `cell(hidden_size, **options)`; returns a Flax cell.

    Raises:
      SettingError: if the name is taken or empty, or `cell` cannot be called.

    >>> from flax import linen as nn
    >>> from jaxrnn import CELLS, register_cell
    >>> register_cell("mgu", nn.MGUCell)  # Zhou et al. (2016)
    >>> CELLS["mgu"](8).features
    8
    >>> del CELLS["mgu"]
    """
    if not isinstance(name, str) or not name:
        raise SettingError(f"a cell's name must be a string, not {name!r}")
    if name in CELLS:
        raise SettingError(f"there is already a cell named {name!r}; choose another name")
    if not callable(cell):
        raise SettingError(f"a cell must be called with a hidden size, but {cell!r} cannot be")
    if isinstance(cell, nn.Module):  # callable, but its hidden size is fixed
        raise SettingError(f"register the class {type(cell).__name__}, not one cell of it")
    CELLS[name] = cell


__all__ = [
    "CELLS",
    "INITIALIZERS",
    "Cell",
    "DeltaNetCarry",
    "DeltaNetCell",
    "ElmanCell",
    "GRUCell",
    "GatedDeltaNetCell",
    "IndRNNCell",
    "LRUCarry",
    "LRUCell",
    "LSTMCarry",
    "LSTMCell",
    "LinearCell",
    "MLSTMCarry",
    "MLSTMCell",
    "MinGRUCell",
    "MinLSTMCell",
    "RGLRUCell",
    "SLSTMCarry",
    "SLSTMCell",
    "URLSTMCell",
    "initializer",
    "make_cell",
    "positive",
    "register_cell",
]
