"""The step and the loop: compiled once, the same by hand, the same twice, the same in two parts."""

from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrnn import keys, train
from jaxrnn.cells import CELLS
from jaxrnn.models import SequenceModel
from jaxrnn.recurrent import Recurrent
from jaxrnn.types import Batch

B, T, V, STEPS = 3, 5, 4, 12


def sample_batch(key) -> Batch:
    """Random data, other at every step, to be repeated one step later."""
    ids = jax.random.randint(key, (B, T), 0, V)
    targets = jnp.roll(ids, 1, axis=1)
    weights = jnp.ones((B, T)).at[:, 0].set(0.0)
    return Batch(jax.nn.one_hot(ids, V), targets, weights)


@pytest.fixture(params=CELLS)
def parts(request):
    return build(request.param)


@cache
def build(cell, hidden_size=6):
    return SequenceModel(Recurrent(CELLS[cell](hidden_size)), V), optax.adam(0.01), sample_batch


@cache
def program(parts, steps):
    """Compiling takes most of the time here, so tests share what can be shared."""
    return jax.jit(lambda seed: train.fit(keys.root_key(seed), *parts, steps=steps))


def run(seed, parts, steps=STEPS):
    return program(parts, steps)(np.uint32(seed))


def test_the_loop_equals_the_step_by_hand(parts):
    model, optimizer, sample = parts
    state, metrics = run(7, parts)
    root = keys.root_key(7)
    data_key = keys.child_key(root, "data")
    inputs = sample(data_key).inputs
    by_hand = train.init_state(keys.child_key(root, "init"), model, optimizer, inputs)
    train_step = jax.jit(train.make_train_step(model, optimizer))
    for n in range(STEPS):
        by_hand, step_metrics = train_step(by_hand, sample(jax.random.fold_in(data_key, n)))
        np.testing.assert_allclose(metrics["loss"][n], step_metrics["loss"], rtol=1e-6)
        np.testing.assert_allclose(metrics["logits"][n], step_metrics["logits"], atol=1e-6)
    assert state.step == by_hand.step == STEPS
    chex.assert_trees_all_close(state.params, by_hand.params, atol=1e-6)


def test_one_seed_is_one_run_and_another_is_another(parts):
    state, metrics = run(7, parts)
    program.cache_clear()  # so that it is compiled anew
    again, metrics_again = run(7, parts)
    chex.assert_trees_all_equal((state, metrics), (again, metrics_again))
    _, other = run(8, parts)
    assert (np.asarray(metrics["loss"]) != np.asarray(other["loss"])).all()


def test_gone_on_with_equals_never_broken_off(parts):
    model, optimizer, sample = parts
    whole, metrics = run(7, parts)
    half, first = run(7, parts, steps=5)
    data_key = keys.child_key(keys.root_key(7), "data")
    train_step = train.make_train_step(model, optimizer)
    state, second = jax.jit(
        lambda state: train.train_steps(state, data_key, train_step, sample, STEPS - 5)
    )(half)
    chex.assert_trees_all_equal(state, whole)
    np.testing.assert_array_equal(jnp.concatenate([first["loss"], second["loss"]]), metrics["loss"])


def test_a_second_step_compiles_nothing(parts, key):
    model, optimizer, sample = parts
    chex.clear_trace_counter()
    train_step = jax.jit(chex.assert_max_traces(train.make_train_step(model, optimizer), n=1))
    state = train.init_state(key, model, optimizer, sample(key).inputs)
    for n in range(3):
        state, _ = train_step(state, sample(jax.random.fold_in(key, n)))
    with pytest.raises(AssertionError, match="traced"):
        train_step(state, jax.tree.map(lambda leaf: leaf[:1], sample(key)))


def test_what_is_dropped_is_not_kept(parts):
    """The logits of all steps, [N, B, T, V], are not in a program that returns the loss alone."""
    stacked = f"f32[{STEPS},{B},{T},{V}]"

    all_of_it = program(parts, STEPS)
    loss_alone = jax.jit(lambda seed: all_of_it(seed)[1]["loss"])
    assert stacked in str(all_of_it.lower(np.uint32(0)).compile().as_text())
    assert stacked not in str(loss_alone.lower(np.uint32(0)).compile().as_text())


@pytest.mark.parametrize("cell", CELLS)
def test_training_learns(cell):
    """With units enough for the IRNN, whose inputs start at next to nothing."""
    _, metrics = run(7, build(cell, hidden_size=32), steps=300)
    assert metrics["loss"][-20:].mean() < 0.5 * metrics["loss"][:5].mean()
