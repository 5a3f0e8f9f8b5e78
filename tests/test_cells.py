"""Every cell: shapes, and the LSTM against Flax's own."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxrnn.cells import CELLS, LSTMCarry, LSTMCell


def randomised(params, key):
    """Parameters of the same shapes with no two numbers alike, biases included."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    return tree.unflatten(
        [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    )


@pytest.mark.parametrize("name", CELLS)
def test_shapes(name, key):
    cell = CELLS[name](4)
    inputs = jax.random.normal(key, (2, 3))
    carry = cell.initialize_carry(key, inputs.shape)
    chex.assert_trees_all_equal(carry, jax.tree.map(jnp.zeros_like, carry))
    (new_carry, outputs), params = cell.init_with_output(key, carry, inputs)
    chex.assert_shape(outputs, (2, 4))
    chex.assert_trees_all_equal_shapes_and_dtypes(new_carry, carry)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


def test_lstm_is_flax_lstm_on_the_same_parameters(key):
    ours, flax = LSTMCell(4, forget_bias=0.0), nn.LSTMCell(4)
    inputs, c, h = (
        jax.random.normal(k, (2, n))
        for k, n in zip(jax.random.split(key, 3), (3, 4, 4), strict=True)
    )
    params = randomised(flax.init(key, (c, h), inputs), key)
    chex.assert_trees_all_equal_shapes(params, ours.init(key, LSTMCarry(c, h), inputs))
    (flax_c, flax_h), flax_outputs = flax.apply(params, (c, h), inputs)
    carry, outputs = ours.apply(params, LSTMCarry(c, h), inputs)
    chex.assert_trees_all_equal((carry.c, carry.h, outputs), (flax_c, flax_h, flax_outputs))


def test_only_the_forget_gate_starts_with_a_bias(key):
    carry = LSTMCarry(jnp.zeros((1, 4)), jnp.zeros((1, 4)))
    params = LSTMCell(4, forget_bias=1.5).init(key, carry, jnp.zeros((1, 3)))["params"]
    biases = {gate: np.asarray(params["h" + gate]["bias"]).tolist() for gate in "ifgo"}
    assert biases == {"i": [0] * 4, "f": [1.5] * 4, "g": [0] * 4, "o": [0] * 4}
    assert LSTMCell(4).forget_bias == 1.0
