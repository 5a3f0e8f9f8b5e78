"""Cells with more than one feature axis, compared with Flax's own layer around them."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxrnn.layers.gates import read_gates
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional, Stack

B, T, F, H = 3, 6, 2, 4
LENGTHS = jnp.array([6, 2, 4])
CELLS = {
    1: nn.ConvLSTMCell(H, kernel_size=(3,)),
    2: nn.ConvLSTMCell(H, kernel_size=(3, 2)),
}


def drawn(dimensions, key):
    """A layer, its variables, and inputs [B, T, X, F] or [B, T, X, Y, F]."""
    layer = Recurrent(CELLS[dimensions])
    inputs = jax.random.normal(key, (B, T, *(5, 3)[:dimensions], F))
    return layer, layer.init(key, inputs), inputs


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("with_lengths", [False, True])
@pytest.mark.parametrize("dimensions", CELLS)
def test_it_equals_flaxs_layer(dimensions, with_lengths, reverse, key):
    layer, variables, inputs = drawn(dimensions, key)
    lengths = LENGTHS if with_lengths else None
    layer = layer.clone(reverse=reverse)
    outputs, carry = layer.apply(variables, inputs, lengths=lengths)
    peer = nn.RNN(CELLS[dimensions], reverse=reverse, keep_order=True, return_carry=True)
    params = {"params": {"cell": variables["params"]["cell"]}}
    results: Any = peer.apply(params, inputs, seq_lengths=lengths)
    peer_carry, peer_outputs = results
    if with_lengths:  # Flax leaves numbers in the padding
        valid = jnp.arange(T)[None] < LENGTHS[:, None]
        mask = jnp.expand_dims(valid, range(2, peer_outputs.ndim))
        peer_outputs = jnp.where(mask, peer_outputs, 0)
    np.testing.assert_allclose(outputs, peer_outputs, atol=1e-6)
    chex.assert_trees_all_close(jax.tree.leaves(carry), jax.tree.leaves(peer_carry), atol=1e-6)


@pytest.mark.parametrize("dimensions", CELLS)
def test_a_reset_starts_a_new_sequence(dimensions, key):
    layer, variables, inputs = drawn(dimensions, key)
    resets = jnp.zeros((B, T), bool).at[0, 3].set(True)
    outputs, carry = layer.apply(variables, inputs, resets=resets)
    plain, _ = layer.apply(variables, inputs)
    second, last = layer.apply(variables, inputs[:, 3:])
    np.testing.assert_allclose(outputs[1:], plain[1:], atol=1e-6)
    np.testing.assert_allclose(outputs[0, :3], plain[0, :3], atol=1e-6)
    np.testing.assert_allclose(outputs[0, 3:], second[0], atol=1e-6)
    for ours, theirs in zip(jax.tree.leaves(carry), jax.tree.leaves(last), strict=True):
        np.testing.assert_allclose(ours[0], theirs[0], atol=1e-6)


@pytest.mark.parametrize("dimensions", CELLS)
def test_remat_chunks_change_nothing(dimensions, key):
    layer, variables, inputs = drawn(dimensions, key)

    def loss(variables, inputs, layer):
        outputs, carry = layer.apply(variables, inputs, lengths=LENGTHS)
        return jnp.sum(outputs**2) + sum(jnp.sum(leaf) for leaf in jax.tree.leaves(carry))

    grad = jax.grad(loss, (0, 1))
    chunked = layer.clone(remat_chunk_size=4)  # T = 6 is no multiple
    chex.assert_trees_all_close(
        grad(variables, inputs, chunked), grad(variables, inputs, layer), atol=1e-5
    )


def test_stacks_directions_and_states(key):
    _, _, inputs = drawn(2, key)
    both = Bidirectional(
        Recurrent(CELLS[2].clone()), Recurrent(CELLS[2].clone(), reverse=True), "sum"
    )
    stack = Stack((Recurrent(CELLS[2].clone()), both), residual=True)
    variables = stack.init(key, inputs)
    outputs, _ = stack.apply(variables, inputs, lengths=LENGTHS)
    assert outputs.shape == (B, T, 5, 3, H)
    assert not np.asarray(outputs[1, 2:]).any() and np.asarray(outputs[1, :2]).all()
    states = read_gates(stack, variables["params"], inputs, lengths=LENGTHS)
    assert [layer["h"].shape for layer in states] == [(B, T, 5, 3, H)] * 3


def test_inputs_with_other_axes_are_refused(key):
    layer, variables, inputs = drawn(2, key)
    with pytest.raises(ValueError, match=r"inputs must be \[B, T, X, Y, F\], but its"):
        layer.apply(variables, inputs[:, :, 0])
