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


@pytest.mark.sampled(3)
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
def test_pieces_with_a_carry_equal_the_whole(dimensions, key):
    layer, variables, inputs = drawn(dimensions, key)
    resets = jnp.zeros((B, T), bool).at[0, 3].set(True).at[2, 1].set(True)
    wanted = layer.apply(variables, inputs, lengths=LENGTHS, resets=resets)
    pieces, carry = [], None
    for piece in (slice(0, 2), slice(2, 6)):
        lengths = jnp.clip(LENGTHS - piece.start, 0, piece.stop - piece.start)
        options: Any = {"lengths": lengths, "resets": resets[:, piece]}
        outputs, carry = layer.apply(variables, inputs[:, piece], carry, **options)
        pieces.append(outputs)
    chex.assert_trees_all_close((jnp.concatenate(pieces, axis=1), carry), wanted, atol=1e-6)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("dimensions", CELLS)
def test_no_gradient_crosses_a_reset(dimensions, key):
    """Compared with each sequence of a row in a call of its own."""
    layer, variables, inputs = drawn(dimensions, key)
    shape = jax.eval_shape(layer.apply, variables, inputs)[0].shape
    weights = jax.random.normal(jax.random.fold_in(key, 1), shape)

    def together(variables, inputs):
        resets = jnp.zeros((B, T), bool).at[:, 4].set(True)
        return jnp.sum(weights * layer.apply(variables, inputs, resets=resets)[0])

    def apart(variables, inputs):
        parts = [layer.apply(variables, part)[0] for part in (inputs[:, :4], inputs[:, 4:])]
        return jnp.sum(weights * jnp.concatenate(parts, axis=1))

    got, wanted = (jax.jit(jax.grad(loss, (0, 1))) for loss in (together, apart))
    chex.assert_trees_all_close(got(variables, inputs), wanted(variables, inputs), atol=1e-5)
    early = jax.jit(jax.grad(lambda inputs: jnp.sum(layer.apply(variables, inputs)[0][:, 4:])))
    assert np.asarray(early(inputs))[:, :4].any()  # without the reset it does cross


@pytest.mark.slow
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


@pytest.mark.parametrize("dimensions", CELLS)
def test_other_parameters_are_refused_in_one_line(dimensions, key):
    layer, variables, inputs = drawn(dimensions, key)
    with pytest.raises(ValueError, match="must have F = 2, as the parameters have, but F = 1"):
        layer.apply(variables, inputs[..., :1])
    wide = Recurrent(nn.ConvLSTMCell(H + 1, kernel_size=CELLS[dimensions].kernel_size))
    with pytest.raises(ValueError, match="params must have H = 5, as the cell has, but H = 4"):
        wide.apply(variables, inputs)
