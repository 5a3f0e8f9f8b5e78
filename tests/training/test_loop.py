"""The compiled loop against steps by hand: one seed or many, in one call or several."""

import re
from dataclasses import replace
from functools import cache, partial

import chex
import jax
import numpy as np
import pytest
from example_tasks import Echo, Trap

from jaxrnn import rng
from jaxrnn.cells import CELLS
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Stack
from jaxrnn.models import SequenceModel
from jaxrnn.training.calls import compile_loop
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.loop import TrainLoop, make_train
from jaxrnn.training.optimizer import make_optimizer
from jaxrnn.training.step import init_state, make_train_step

pytestmark = pytest.mark.optimized  # it is about bits

STEPS = 12


def model(cell="rnn", features=6, dropout=0.0):
    layers = tuple(Recurrent(CELLS[cell](features)) for _ in range(2 if dropout else 1))
    return SequenceModel(Stack(layers, dropout=dropout), 4)


CONFIG = ExperimentConfig(Echo(), model(), TrainConfig(STEPS, 0.01, steps_per_call=20), seed=7)


@cache
def build(name):
    """Compiling takes most of the time here, so tests share what can be shared."""
    train_loop = TrainLoop(CONFIGS[name])
    return CONFIGS[name], train_loop, compile_loop(train_loop)


CONFIGS = {
    "alone": CONFIG,
    "one vmap": replace(CONFIG, seeds=5, vmap_size=5),
    "one at a time": replace(CONFIG, seeds=5, vmap_size=1),
    "padded groups": replace(CONFIG, seeds=5, vmap_size=2),
    "carry and lengths": replace(
        CONFIG, task=Echo(stateful=True, ragged=True), model=model("lstm")
    ),
    "dropout": replace(CONFIG, model=model(dropout=0.5)),
    "traps": ExperimentConfig(
        Trap(), model("rnn"), TrainConfig(40, 0.01, steps_per_call=41), seed=0, seeds=6, vmap_size=6
    ),
}


def run(name, *stops, seeds=None, build=build):
    """Take all steps, in calls that end at `stops`; the metrics are [S, N+1, ...]."""
    config, train_loop, compiled = build(name)
    seeds = config.seed_numbers if seeds is None else seeds
    state, start, pieces = train_loop.blank, 0, []
    for stop in (*stops, config.train.steps + 1):
        state, metrics = compiled(state, seeds, start, stop)
        pieces.append({key: values[:, : stop - start] for key, values in metrics.items()})
        start = stop
    metrics = {key: np.concatenate([p[key] for p in pieces], axis=1) for key in pieces[0]}
    return jax.device_get(state), metrics


# The steps by hand take another path through XLA, compiled in half the time.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def by_hand(config, seed):
    """A Python loop over the compiled step, with the keys that rng.py describes."""
    optimizer = make_optimizer(config.train)
    step = quick_jit(make_train_step(config.task, config.model, optimizer))
    root = rng.root_key(np.uint32(seed))
    init, arrays, dropout = (rng.child_key(root, name) for name in ("init", "data", "dropout"))
    batch = config.task.sample_batch(arrays, 0)
    state = quick_jit(init_state, static_argnums=(1, 2, 3))(
        init, config.task, config.model, optimizer, batch
    )
    history = []
    for n in range(config.train.steps + 1):
        batch = config.task.sample_batch(jax.random.fold_in(arrays, n), n)
        new, metrics = step(state, batch, jax.random.fold_in(dropout, n))
        history.append(metrics)
        state = new if n < config.train.steps else state
    return state, {name: np.array([each[name] for each in history]) for name in history[0]}


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", ["alone", "carry and lengths", "dropout"])
def test_loop_equals_steps_by_hand(name):
    state, metrics = run(name)
    expected, history = by_hand(CONFIGS[name], 7)
    assert state.step == expected.step == STEPS
    for metric, values in history.items():
        np.testing.assert_allclose(metrics[metric][0], values, rtol=2e-5, atol=1e-6)
    one = jax.tree.map(lambda leaf: leaf[0], state)
    chex.assert_trees_all_close(one.params, expected.params, atol=1e-5)
    chex.assert_trees_all_close(one.carry, expected.carry, atol=1e-5)
    assert (one.carry is None) == (name != "carry and lengths")


@pytest.mark.sampled(10)
@pytest.mark.parametrize("name", CONFIGS)
def test_splitting_a_run_into_calls_changes_no_bit(name):
    whole, in_pieces = run(name), run(name, 1, 5, 6, STEPS)
    chex.assert_trees_all_equal(whole, in_pieces)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one vmap", "one at a time", "padded groups"])
def test_each_of_many_seeds_equals_that_seed_alone(name):
    """Bitwise only if trained one at a time: under vmap XLA sums in another order."""
    state, metrics = run(name)
    for s, seed in enumerate(range(7, 12)):
        alone, history = run("alone", seeds=np.array([seed], np.uint32))
        of_many = jax.tree.map(lambda leaf, s=s: leaf[s : s + 1], (state, metrics))
        chex.assert_trees_all_close(of_many, (alone, history), atol=1e-4, rtol=1e-4)
        if name == "one at a time":
            np.testing.assert_array_equal(metrics["loss"][s], history["loss"][0])
    losses = metrics["loss"][:, 0]
    assert len(set(losses.tolist())) == 5


@pytest.mark.slow
def test_compiling_again_changes_no_bit():
    first = run("one vmap")
    jax.clear_caches()
    chex.assert_trees_all_equal(first, run("one vmap", build=build.__wrapped__))


@pytest.mark.slow
def test_a_diverged_seed_is_frozen_and_the_others_continue():
    config = CONFIGS["traps"]
    assert isinstance(config.task, Trap)
    state, metrics = run("traps")
    springs = []
    for seed in config.seed_numbers:
        arrays = rng.child_key(rng.root_key(seed), "data")
        batches = (config.task.sample_batch(jax.random.fold_in(arrays, n), n) for n in range(40))
        sums = [np.asarray(batch.inputs[0]).argmax(-1).sum() for batch in batches]
        springs.append([*sums, config.task.sprung].index(config.task.sprung))
    assert min(springs) < 30 and max(springs) == 40, springs  # some break and some do not
    np.testing.assert_array_equal(state.step, springs)
    for s, n in enumerate(springs):
        assert np.isfinite(metrics["loss"][s, :n]).all()
        assert n == 40 or np.isinf(metrics["loss"][s, n])
        before, _ = run_until("traps", n)
        frozen, kept = (jax.tree.map(lambda leaf, s=s: leaf[s], each) for each in (state, before))
        chex.assert_trees_all_equal(frozen, kept)


def run_until(name, stop):
    config, train_loop, compiled = build(name)
    state, metrics = compiled(train_loop.blank, config.seed_numbers, 0, stop)
    return jax.device_get(state), metrics


@pytest.mark.slow
def test_states_are_donated():
    _, train_loop, compiled = build("one vmap")
    aliases = compiled.executable.as_text().splitlines()[0].count("may-alias")
    assert aliases == len(jax.tree.leaves(train_loop.blank))


def test_only_metrics_are_stored_for_each_step():
    """There is no [N, B, T, V] array of all steps' outputs."""
    _, _, compiled = build("alone")
    text = compiled.executable.as_text()
    assert "f32[1,13]" in text  # the loss of all steps
    assert not re.search(r"f32\[(1,)?13,(1,)?(3,5|5,3),4\]", text)


def test_a_call_takes_at_most_steps_per_call():
    config = replace(CONFIG, train=replace(CONFIG.train, steps_per_call=4))
    train_loop = TrainLoop(config)
    state, metrics = compile_loop(train_loop)(train_loop.blank, config.seed_numbers, 0, 9)
    assert state.step == 4 and metrics["loss"].shape == (1, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"vmap_size": 2}, "vmap size must be at most seeds, 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": rng.MAX_SEED, "seeds": 2, "vmap_size": 1}, "no seed above 4294967295"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["carry and lengths", "traps"])
def test_make_train_equals_the_loop_to_the_bit(name):
    """`run` and `make_train` share their steps; the harness is held to the pure function."""
    config = CONFIGS[name]
    state, metrics = run(name)
    train = jax.jit(jax.vmap(make_train(config)) if config.seeds > 1 else make_train(config))
    seeds = config.seed_numbers if config.seeds > 1 else config.seed
    pure_state, pure_metrics = jax.device_get(train(seeds))
    if config.seeds == 1:
        state, metrics = jax.tree.map(lambda leaf: leaf[0], (state, metrics))
    chex.assert_trees_all_equal(pure_state, state)
    chex.assert_trees_all_equal(pure_metrics, dict(metrics))


@pytest.mark.slow
def test_make_train_compiles_once_for_all_seeds():
    train = jax.jit(chex.assert_max_traces(make_train(CONFIG), n=1))
    losses = {float(train(np.uint32(seed))[1]["loss"][-1]) for seed in (1, 2, 3)}
    assert len(losses) == 3


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("task", "task must be a Task"),
        ("model", "model must be a Module"),
        ("train", "must be a Tr"),
    ],
)
def test_parts_of_the_wrong_type_are_named(part, message):
    with pytest.raises(SettingError, match=message):
        replace(CONFIG, **{part: 3})
