"""The layer over time: scan = Python loop = NumPy, in pieces = whole, gates as they are."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import REFERENCE, lstm
from test_cells import randomised

from jaxrnn.cells import CELLS
from jaxrnn.models import SequenceModel
from jaxrnn.recurrent import Recurrent, read_gates

B, T, F, H = 2, 7, 3, 4


def layer_and_inputs(name, key):
    layer = Recurrent(CELLS[name](H))
    inputs = jax.random.normal(key, (B, T, F))
    return layer, randomised(layer.init(key, inputs), key), inputs


@pytest.mark.parametrize("name", CELLS)
def test_scan_equals_a_python_loop(name, key):
    layer, params, inputs = layer_and_inputs(name, key)
    outputs, carry = layer.apply(params, inputs)
    cell, cell_params = CELLS[name](H), {"params": params["params"]["cell"]}
    loop_carry, loop_outputs = cell.initialize_carry(key, (B, F)), []
    for t in range(T):
        loop_carry, output = cell.apply(cell_params, loop_carry, inputs[:, t])
        loop_outputs.append(output)
    chex.assert_trees_all_close(outputs, jnp.stack(loop_outputs, axis=1), rtol=1e-6, atol=1e-6)
    chex.assert_trees_all_close(carry, loop_carry, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CELLS)
def test_scan_equals_the_numpy_reference(name, key):
    layer, params, inputs = layer_and_inputs(name, key)
    outputs, _ = layer.apply(params, inputs)
    cell = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"]["cell"])
    for b in range(B):
        expected = REFERENCE[name](cell, np.asarray(inputs[b], np.float64))["h"]
        np.testing.assert_allclose(outputs[b], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("cut", [1, 4, 6])
def test_pieces_equal_the_whole(name, cut, key):
    layer, params, inputs = layer_and_inputs(name, key)
    whole, last = layer.apply(params, inputs)
    first, carry = layer.apply(params, inputs[:, :cut])
    second, carry = layer.apply(params, inputs[:, cut:], carry)
    chex.assert_trees_all_close(jnp.concatenate([first, second], axis=1), whole, atol=1e-6)
    chex.assert_trees_all_close(carry, last, atol=1e-6)


def test_gates_are_those_of_the_reference(key):
    model = SequenceModel("lstm", H, 5)
    inputs = jax.random.normal(key, (B, T, F))
    params = randomised(model.init(key, inputs)["params"], key)
    gates = read_gates(model, params, inputs)
    assert sorted(gates) == sorted("ifgoch")
    cell = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["recurrent"]["cell"])
    for b in range(B):
        expected = lstm(cell, np.asarray(inputs[b], np.float64))
        for name, values in expected.items():
            np.testing.assert_allclose(gates[name][b], values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(CELLS) - {"lstm"}))
def test_every_cell_shows_its_hidden_state(name, key):
    model = SequenceModel(name, H, 5)
    inputs = jax.random.normal(key, (B, T, F))
    params = model.init(key, inputs)["params"]
    outputs, _ = Recurrent(CELLS[name](H)).apply({"params": params["recurrent"]}, inputs)
    chex.assert_trees_all_close(read_gates(model, params, inputs), {"h": outputs}, atol=1e-6)


def test_inputs_without_a_batch_axis_are_refused(key):
    layer = Recurrent(CELLS["lstm"](H))
    with pytest.raises(AssertionError, match="rank"):
        layer.init(key, jnp.zeros((T, F)))
