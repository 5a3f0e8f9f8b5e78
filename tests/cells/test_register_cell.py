"""`register_cell`: a user's cell gets a name."""

import pytest
from flax import linen as nn

from jaxrnn import CELLS, cells, register_cell
from jaxrnn.errors import SettingError


def test_a_registered_cell_is_found_by_name(monkeypatch):
    monkeypatch.setattr(cells, "CELLS", dict(CELLS))
    register_cell("mgu", nn.MGUCell)
    assert cells.CELLS["mgu"](7).features == 7


@pytest.mark.parametrize(
    ("name", "cell", "message"),
    [
        ("lstm", nn.MGUCell, "already a cell named 'lstm'"),
        ("", nn.MGUCell, "name must be a string"),
        (3, nn.MGUCell, "name must be a string"),
        ("mgu", 3, "must be called with a hidden size"),
        ("mgu", nn.MGUCell(7), "register the class MGUCell, not one cell of it"),
    ],
)
def test_bad_registrations_are_refused(name, cell, message):
    with pytest.raises(SettingError, match=message):
        register_cell(name, cell)
    assert "mgu" not in CELLS
