"""The gates that can be read are those of the equations, at their own time and layer."""

from functools import reduce
from operator import getitem
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from reference import REFERENCE
from variants import LENGTHS, VARIANTS, B, F, H, T, assert_close, drawn, expected

from jaxrnn.cells import CELLS, GRUCell, LSTMCell, MinLSTMCell
from jaxrnn.layers import gates
from jaxrnn.layers.gates import read_gates
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional, Stack, recurrent_layers
from jaxrnn.models import SequenceModel

lengths = jnp.array(LENGTHS)

NAMES = {
    "lstm": "ifgoch",
    "gru": "rznh",
    "rnn": "h",
    "irnn": "h",
    "minlstm": "ifgh",
    "mingru": "znh",
    "indrnn": "h",
    "lru": ("re", "im", "h"),
    "rglru": "rzah",
    "slstm": "ifzocnmh",
    "mlstm": "ifoh",
    "deltanet": ("beta", "h"),
    "gateddeltanet": ("a", "beta", "h"),
}
"""What the cells of this library show; another cell shows its h, and what else it sows."""


@pytest.mark.sampled(14)
@pytest.mark.parametrize("options", [{}, {"reverse": True, "remat_chunk_size": 3}], ids=str)
@pytest.mark.parametrize("name", VARIANTS)
def test_gates_equal_the_equations(name, options, key):
    layer, variant = VARIANTS[name].make_layer(**options), VARIANTS[name]
    variables, inputs, start = drawn(layer, key)
    (gates,) = read_gates(layer, variables["params"], inputs, start, lengths=lengths)
    params = variables["params"]["cell"]
    wanted = expected(variant, params, inputs, start, lengths=LENGTHS, reverse=layer.reverse)
    assert sorted(gates) == sorted(NAMES.get(variant.cell) or gates)
    assert "h" in gates
    assert_close(gates, {gate: wanted[gate] for gate in gates})


def test_without_lengths_and_carry_gates_start_from_zero(key):
    layer = Recurrent(LSTMCell(H))
    variables, inputs, start = drawn(layer, key)
    (gates,) = read_gates(layer, variables["params"], inputs)
    start = jax.tree.map(jnp.zeros_like, start)
    assert_close(gates, expected(VARIANTS["lstm"], variables["params"]["cell"], inputs, start))


def test_resets_affect_the_gates(key):
    """The packed rows' second halves are rows of their own."""
    layer = Recurrent(LSTMCell(H))
    variables, inputs, _ = drawn(layer, key)
    resets = jnp.zeros((B, T), bool).at[:, 3].set(True)
    (gates,) = read_gates(layer, variables["params"], inputs, resets=resets)
    (second,) = read_gates(layer, variables["params"], inputs[:, 3:])
    assert_close({name: gate[:, 3:] for name, gate in gates.items()}, second)


def deep_model():
    """A cell of another kind and size in every place, so that none can be taken for another."""
    both = Bidirectional(Recurrent(GRUCell(3)), Recurrent(MinLSTMCell(5), reverse=True))
    inner = Stack((Recurrent(CELLS["mingru"](6)), Recurrent(CELLS["rnn"](7), remat_chunk_size=2)))
    layers = (Recurrent(LSTMCell(4)), both, inner, Recurrent(LSTMCell(2), reverse=True))
    return SequenceModel(Stack(layers), 9)


PATHS = [
    ("recurrent", "layers_0"),
    ("recurrent", "layers_1", "forward"),
    ("recurrent", "layers_1", "backward"),
    ("recurrent", "layers_2", "layers_0"),
    ("recurrent", "layers_2", "layers_1"),
    ("recurrent", "layers_3"),
]


def test_recurrent_layers_are_found_in_order_with_their_parameters(key):
    model = deep_model()
    found = list(recurrent_layers(model))
    assert [path for path, _ in found] == PATHS
    assert [layer.cell.features for _, layer in found] == [4, 3, 5, 6, 7, 2]
    params = drawn(model, key)[0]["params"]
    features = [F, 4, 4, 3 + 5, 6, 7]
    for (path, layer), size in zip(found, features, strict=True):
        wanted = drawn(layer, key, features=size)[0]["params"]
        own = reduce(getitem, path, params)
        assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, wanted)


def test_gates_of_a_deep_model_equal_each_layers_gates(key):
    model = deep_model()
    variables, inputs, start = drawn(model, key)
    params = variables["params"]
    gates = read_gates(model, params, inputs, start, lengths=lengths)
    assert [gate["h"].shape[-1] for gate in gates] == [4, 3, 5, 6, 7, 2]
    cells = ["lstm", "gru", "minlstm", "mingru", "rnn", "lstm"]
    assert [sorted(gate) for gate in gates] == [sorted(NAMES[cell]) for cell in cells]

    below, (first, both, inner, last) = inputs, start
    carries = [first, both.forward, both.backward, *inner, last]
    for n, ((path, layer), carry) in enumerate(zip(recurrent_layers(model), carries, strict=True)):
        own = reduce(getitem, path, params)
        (wanted,) = read_gates(layer, own, below, carry, lengths=lengths)
        assert_close(gates[n], wanted)
        if n != 1:  # the two directions see the same, and what is above them sees both
            below = jnp.concatenate([gates[1]["h"], wanted["h"]], -1) if n == 2 else wanted["h"]


def test_a_model_is_compiled_once(key):
    layer = Recurrent(LSTMCell(H))
    variables, inputs, start = drawn(layer, key)
    read_gates(layer, variables["params"], inputs, start, lengths=lengths)
    function: Any = gates._read
    compiled = function._cache_size()
    again = Recurrent(LSTMCell(H))
    read_gates(again, variables["params"], 2 * inputs, start, lengths=lengths)
    assert function._cache_size() == compiled


def test_lengths_are_checked_before_compiling(key):
    layer = Recurrent(LSTMCell(H))
    variables, inputs, start = drawn(layer, key)
    params = variables["params"]
    wanted = read_gates(layer, params, inputs, start, lengths=lengths)
    as_list: Any = list(LENGTHS)
    as_list = read_gates(layer, params, inputs, start, lengths=as_list)
    jax.tree.map(np.testing.assert_array_equal, as_list, wanted)
    with pytest.raises(ValueError, match=r"lengths\[0\] is 8"):
        read_gates(layer, params, inputs, start, lengths=jnp.array([T + 1, 4, 0]))


class Hidden(nn.Module):
    """A model whose layer is not in its attributes."""

    @nn.compact
    def __call__(self, inputs, *arguments, **options):
        """As a layer."""
        return Recurrent(LSTMCell(H))(inputs, *arguments, **options)


def test_a_model_without_a_visible_layer_is_refused(key):
    with pytest.raises(ValueError, match="Hidden has no Recurrent layer in its attributes"):
        read_gates(Hidden(), {}, jnp.zeros((B, T, F)))


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_has_equations(name):
    assert name in REFERENCE, f"write the equations of {name!r} in tests/reference.py"
