"""Stacks are their layers one after the other; dropout between them; the model's readout."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import identity
from variants import LENGTHS, B, T, apply, assert_close, drawn

from jaxrnn.cells import ElmanCell, GRUCell, LSTMCell, MinGRUCell, MinLSTMCell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional, BidirectionalCarry, Stack
from jaxrnn.models import SequenceModel

lengths = jnp.array(LENGTHS)


def both_ways(merge: Any = "concat"):
    forward, backward = Recurrent(GRUCell(3)), Recurrent(MinGRUCell(3), reverse=True)
    return Bidirectional(forward, backward, merge)


STACKS = {
    "one": lambda **options: Stack((Recurrent(LSTMCell(4)),), **options),
    "mixed": lambda **options: Stack(
        (Recurrent(MinLSTMCell(5)), Recurrent(LSTMCell(2)), Recurrent(GRUCell(4))), **options
    ),
    "both ways inside": lambda **options: Stack(
        (Recurrent(LSTMCell(6)), both_ways(), Recurrent(ElmanCell(6), reverse=True)), **options
    ),
    "nested": lambda **options: Stack(
        (Stack((Recurrent(LSTMCell(5)), Recurrent(GRUCell(4)))), Recurrent(ElmanCell(4))), **options
    ),
}


def one_by_one(stack, params, inputs, start, residual=False, **options):
    """A stack by hand, with its layers' own parameters."""
    hidden, carries = inputs, []
    for n, layer in enumerate(stack.layers):
        below = hidden
        layer_params = {"params": params[f"layers_{n}"]}
        hidden, carry = apply(layer, layer_params, below, start[n], **options)
        hidden = hidden + below if residual and n else hidden
        carries.append(carry)
    return hidden, tuple(carries)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", STACKS)
def test_a_stack_equals_its_layers_in_sequence(name, key):
    stack = STACKS[name]()
    variables, inputs, start = drawn(stack, key)
    assert sorted(variables["params"]) == [f"layers_{n}" for n in range(len(stack.layers))]
    resets = jnp.zeros((B, T), bool).at[0, 3].set(True).at[1, 2].set(True)
    options: Any = {"lengths": lengths, "resets": resets}
    actual = apply(stack, variables, inputs, start, **options)
    assert_close(actual, one_by_one(stack, variables["params"], inputs, start, **options), 1e-6)


@pytest.mark.parametrize("merge", ["concat", "sum"])
def test_bidirectional_concatenates_two_layers(merge, key):
    layer = both_ways(merge)
    variables, inputs, start = drawn(layer, key)
    assert sorted(variables["params"]) == ["backward", "forward"]
    outputs, carry = apply(layer, variables, inputs, start, lengths=lengths)
    (ahead, last), (back, first) = (
        apply(part, {"params": variables["params"][name]}, inputs, carry, lengths=lengths)
        for name, part, carry in (
            ("forward", layer.forward, start.forward),
            ("backward", layer.backward, start.backward),
        )
    )
    merged = np.concatenate([ahead, back], axis=-1) if merge == "concat" else ahead + back
    assert_close((outputs, carry), (merged, BidirectionalCarry(last, first)), 1e-6)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["both ways inside", "one"])
def test_residual_layers_add_their_inputs_from_the_second_on(name, key):
    stack = STACKS[name](residual=True)
    variables, inputs, start = drawn(stack, key)
    actual = apply(stack, variables, inputs, start, lengths=lengths)
    wanted = one_by_one(stack, variables["params"], inputs, start, residual=True, lengths=lengths)
    assert_close(actual, wanted, 1e-6)


@pytest.mark.parametrize("name", ["mixed", "nested"])
def test_chunks_with_carry_equal_the_whole(name, key):
    stack = STACKS[name]()
    variables, inputs, start = drawn(stack, key)
    whole, last = apply(stack, variables, inputs, start)
    pieces, carry = [], start
    for steps in (slice(0, 1), slice(1, 4), slice(4, T)):
        outputs, carry = apply(stack, variables, inputs[:, steps], carry)
        pieces.append(outputs)
    assert_close((jnp.concatenate(pieces, axis=1), carry), (whole, last))


RATE, ROWS, UNITS = 0.4, 8, 32


@partial(jax.jit, static_argnames=("layers", "residual", "variational_dropout"))
def handed_up(key, layers=3, **options):
    """The outputs of a stack of layers that hand up what they are given, and each layer's.

    The lowest is given ones. Such a layer is an Elman cell that sees its inputs alone.
    """
    cells = (ElmanCell(UNITS, activation_fn=identity) for _ in range(layers))
    params = {"i": {"kernel": jnp.eye(UNITS), "bias": jnp.zeros(UNITS)}}
    params = {"cell": params | {"h": {"kernel": jnp.zeros((UNITS, UNITS))}}}
    stack = Stack(tuple(map(Recurrent, cells)), dropout=RATE, **options)
    (outputs, _), sown = stack.apply(
        {"params": {f"layers_{n}": params for n in range(layers)}},
        jnp.ones((ROWS, T, UNITS)),
        deterministic=False,
        rngs={"dropout": key},
        mutable=["intermediates"],
    )
    return outputs, [sown["intermediates"][f"layers_{n}"]["h"][0] for n in range(layers)]


@pytest.mark.parametrize("one_mask", [False, True], ids=["a mask a step", "a mask a sequence"])
def test_each_layers_inputs_are_dropped_from_the_second_on(one_mask, key):
    outputs, (first, second, third) = jax.tree.map(
        np.asarray, handed_up(key, variational_dropout=one_mask)
    )
    np.testing.assert_array_equal(first, 1)
    kept = second > 0
    assert_close(second, np.where(kept, 1 / (1 - RATE), 0))
    assert abs(second[:, 0].mean() - 1) < 0.2  # 256 units: four standard deviations
    assert_close(third, np.where(third > 0, 1 / (1 - RATE) ** 2, 0))
    assert not third[~kept].any()
    assert 0.45 < (third[kept] > 0).mean() < 0.75  # of those that are left, 0.6 again
    np.testing.assert_array_equal(outputs, third)
    assert len(np.unique(kept.reshape(ROWS, -1), axis=0)) == ROWS
    for row in kept:
        assert len(np.unique(row, axis=0)) == (1 if one_mask else T)
    _, (_, other, _) = handed_up(jax.random.fold_in(key, 1), variational_dropout=one_mask)
    assert 0.3 < ((other > 0) != kept).mean() < 0.7


def test_residual_connections_bypass_dropout(key):
    """Wu et al. (2016) add what the layer below handed up, not what dropout left of it."""
    outputs, (_, second) = handed_up(key, layers=2, residual=True)
    assert (second == 0).any()
    np.testing.assert_array_equal(outputs, second + 1)


def test_a_deterministic_stack_drops_nothing(key):
    layers = (Recurrent(LSTMCell(4), recurrent_dropout=RATE), Recurrent(GRUCell(4)))
    stack = Stack(layers, dropout=RATE)
    variables, inputs, start = drawn(stack, key)
    plain = Stack((Recurrent(LSTMCell(4)), Recurrent(GRUCell(4))))
    plain = apply(plain, variables, inputs, start)
    chex.assert_trees_all_equal(apply(stack, variables, inputs, start), plain)
    with pytest.raises(ValueError, match="deterministic=False needs a key"):
        stack.apply(variables, inputs, start, deterministic=False)


def test_deterministic_reaches_every_layer(key):
    forward, backward = (
        Recurrent(GRUCell(16), reverse=reverse, recurrent_dropout=RATE) for reverse in (False, True)
    )
    model = SequenceModel(Stack((Bidirectional(forward, backward),)), 32)
    variables, inputs, start = drawn(model, key)
    variables["params"]["readout"]["kernel"] = jnp.eye(32)  # so that each unit is seen alone
    still, _ = apply(model, variables, inputs, start)
    dropout = {"deterministic": False, "rngs": {"dropout": key}}
    dropped, _ = apply(model, variables, inputs, start, **dropout)
    assert (still != dropped).mean() > 0.9


@pytest.mark.parametrize("name", ["mixed", "both ways inside"])
def test_the_model_is_a_readout_of_its_layers(name, key):
    stack = STACKS[name]()
    model = SequenceModel(stack, 5)
    variables, inputs, start = drawn(model, key)
    logits, carry = apply(model, variables, inputs, start, lengths=lengths)
    params = variables["params"]
    hidden, last = apply(stack, {"params": params["recurrent"]}, inputs, start, lengths=lengths)
    readout = params["readout"]
    assert readout["kernel"].shape == (hidden.shape[-1], 5)
    wanted = np.asarray(hidden) @ readout["kernel"] + readout["bias"][None, None]
    assert_close((logits, carry), (wanted, last), 1e-6)
