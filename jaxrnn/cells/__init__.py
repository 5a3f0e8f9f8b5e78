"""The recurrences: how one time step's carry follows from the last one's.

`CELLS` has one entry a cell. An entry is called with a hidden size and returns a Flax cell, a
module `(carry, inputs [B, F]) -> (carry, outputs [B, H])` that can make its own zero carry:

>>> CELLS["lstm"](8).features, CELLS["gru"](8, reset_after=False).reset_after
(8, False)

Any Flax cell over [B, F] whose only variables are parameters is as good a layer's cell as these; to
be had by name, it needs an entry here.
"""

from collections.abc import Callable
from functools import partial

from flax import linen as nn

from jaxrnn.cells.elman import ElmanCell
from jaxrnn.cells.gru import GRUCell
from jaxrnn.cells.initializers import INITIALIZERS, initializer
from jaxrnn.cells.lstm import LSTMCarry, LSTMCell
from jaxrnn.cells.minimal import LinearCell, MinGRUCell, MinLSTMCell, positive

CELLS: dict[str, Callable[..., nn.RNNCellBase]] = {
    "lstm": LSTMCell,
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
}

__all__ = [
    "CELLS",
    "INITIALIZERS",
    "ElmanCell",
    "GRUCell",
    "LSTMCarry",
    "LSTMCell",
    "LinearCell",
    "MinGRUCell",
    "MinLSTMCell",
    "initializer",
    "positive",
]
