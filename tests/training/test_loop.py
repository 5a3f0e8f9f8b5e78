"""The program of a study: the steps by hand, one seed or many, in one stretch or several."""

import re
import time
from dataclasses import replace
from functools import cache, partial

import chex
import jax
import numpy as np
import pytest
from example_tasks import Echo, Trap

from jaxrnn import rng
from jaxrnn.cells import CELLS
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Stack
from jaxrnn.models import SequenceModel
from jaxrnn.runs import machine
from jaxrnn.training import loop
from jaxrnn.training.config import ExperimentConfig, TrainConfig, make_optimizer
from jaxrnn.training.loop import compile_program, make_program
from jaxrnn.training.step import init_state, make_train_step

STEPS = 12


def model(cell="lstm", features=6, dropout=0.0):
    layers = tuple(Recurrent(CELLS[cell](features)) for _ in range(2 if dropout else 1))
    return SequenceModel(Stack(layers, dropout=dropout), 4)


STUDY = ExperimentConfig(Echo(), model(), TrainConfig(STEPS, 0.01, steps_per_call=20), seed=7)


@cache
def build(number):
    """Compiling takes most of the time here, so tests share what can be shared."""
    study = STUDIES[number]
    program = make_program(study)
    return study, program, compile_program(study, program)


STUDIES = {
    "alone": STUDY,
    "side by side": replace(STUDY, seeds=5, vmap_size=5),
    "in turn": replace(STUDY, seeds=5, vmap_size=1),
    "groups that fill up": replace(STUDY, seeds=5, vmap_size=2),
    "carry and lengths": replace(STUDY, task=Echo(stateful=True, ragged=True)),
    "dropout": replace(STUDY, model=model(dropout=0.5)),
    "traps": ExperimentConfig(
        Trap(), model("rnn"), TrainConfig(40, 0.01, steps_per_call=41), seed=0, seeds=6, vmap_size=6
    ),
}


def run(number, *stops, seeds=None, build=build):
    """All steps, stopping in between; the metrics are [S, N+1, ...]."""
    study, program, compiled = build(number)
    seeds = study.seed_numbers if seeds is None else seeds
    state, start, pieces = program.blank, 0, []
    for stop in (*stops, study.train.steps + 1):
        state, metrics = compiled(state, seeds, start, stop)
        pieces.append({name: values[:, : stop - start] for name, values in metrics.items()})
        start = stop
    metrics = {name: np.concatenate([p[name] for p in pieces], axis=1) for name in pieces[0]}
    return jax.device_get(state), metrics


# What the program is compared with: compiled in half the time, and by another way through XLA.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def by_hand(study, seed):
    """A Python loop over the compiled step, with the keys as keys.py describes them."""
    optimizer = make_optimizer(study.train)
    step = quick_jit(make_train_step(study.task, study.model, optimizer))
    root = rng.root_key(np.uint32(seed))
    init, arrays, dropout = (rng.child_key(root, name) for name in ("init", "data", "dropout"))
    batch = study.task.sample_batch(arrays, 0)
    state = quick_jit(init_state, static_argnums=(1, 2, 3))(
        init, study.task, study.model, optimizer, batch
    )
    history = []
    for n in range(study.train.steps + 1):
        batch = study.task.sample_batch(jax.random.fold_in(arrays, n), n)
        new, metrics = step(state, batch, jax.random.fold_in(dropout, n))
        history.append(metrics)
        state = new if n < study.train.steps else state
    return state, {name: np.array([each[name] for each in history]) for name in history[0]}


@pytest.mark.parametrize("number", ["alone", "carry and lengths", "dropout"])
def test_the_program_equals_the_steps_by_hand(number):
    state, metrics = run(number)
    expected, history = by_hand(STUDIES[number], 7)
    assert state.step == expected.step == STEPS
    for name, values in history.items():
        np.testing.assert_allclose(metrics[name][0], values, rtol=2e-5, atol=1e-6, err_msg=name)
    one = jax.tree.map(lambda leaf: leaf[0], state)
    chex.assert_trees_all_close(one.params, expected.params, atol=1e-5)
    chex.assert_trees_all_close(one.carry, expected.carry, atol=1e-5)
    assert (one.carry is None) == (number != "carry and lengths")


@pytest.mark.parametrize("number", STUDIES)
def test_how_it_is_cut_changes_no_bit(number):
    whole, in_pieces = run(number), run(number, 1, 5, 6, STEPS)
    chex.assert_trees_all_equal(whole, in_pieces)


@pytest.mark.parametrize("number", ["side by side", "in turn", "groups that fill up"])
def test_each_of_many_seeds_is_that_seed_alone(number):
    """Not to the bit where some stand side by side: XLA sums in another order there."""
    state, metrics = run(number)
    for s, seed in enumerate(range(7, 12)):
        alone, history = run("alone", seeds=np.array([seed], np.uint32))
        of_many = jax.tree.map(lambda leaf, s=s: leaf[s : s + 1], (state, metrics))
        chex.assert_trees_all_close(of_many, (alone, history), atol=1e-4, rtol=1e-4)
        if number == "in turn":
            np.testing.assert_array_equal(metrics["loss"][s], history["loss"][0])
    losses = metrics["loss"][:, 0]
    assert len(set(losses.tolist())) == 5


@pytest.mark.parametrize(
    ("number", "processors", "lanes", "seeds"),
    [
        ("in turn", 1, 1, 5),
        ("in turn", 2, 2, 3),
        ("in turn", 4, 3, 2),  # a fourth lane would have nothing to do
        ("in turn", 9, 5, 1),
        ("groups that fill up", 1, 1, 6),
        ("groups that fill up", 3, 3, 2),
        ("side by side", 4, 1, 5),
    ],
)
def test_the_number_of_processors_changes_no_bit(monkeypatch, number, processors, lanes, seeds):
    expected = run(number)
    monkeypatch.setattr(loop, "_most_lanes", lambda: processors)
    study, made, compiled = build.__wrapped__(number)
    assert (compiled.lanes, compiled.seeds) == (lanes, seeds)
    chex.assert_trees_all_equal(run(number, 5, build=lambda _: (study, made, compiled)), expected)


def test_no_more_lanes_are_at_work_than_may_be(monkeypatch):
    expected = run("in turn")
    monkeypatch.setattr(loop, "_most_lanes", lambda: 5)
    study, made, compiled = build.__wrapped__("in turn")
    active, most = 0, []

    def watched(*arguments):
        nonlocal active
        active += 1
        most.append(active)
        time.sleep(0.02)
        results = compiled.executable(*arguments)
        active -= 1
        return results

    limited = compiled._replace(executable=watched, at_once=2)
    chex.assert_trees_all_equal(run("in turn", build=lambda _: (study, made, limited)), expected)
    assert len(most) == 5
    assert max(most) == 2


def test_lanes_are_for_processors_alone(monkeypatch):
    monkeypatch.setattr(machine, "usable_cpus", lambda: 3)
    assert loop._most_lanes() == 3
    monkeypatch.setattr(machine, "usable_cpus", lambda: None)
    assert loop._most_lanes() == 1
    monkeypatch.setattr(machine, "usable_cpus", lambda: 3)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert loop._most_lanes() == 1


def test_compiled_anew_it_gives_the_same_bits():
    first = run("side by side")
    jax.clear_caches()
    chex.assert_trees_all_equal(first, run("side by side", build=build.__wrapped__))


def test_a_seed_that_breaks_is_frozen_and_the_others_go_on():
    study = STUDIES["traps"]
    assert isinstance(study.task, Trap)
    state, metrics = run("traps")
    springs = []
    for seed in study.seed_numbers:
        arrays = rng.child_key(rng.root_key(seed), "data")
        batches = (study.task.sample_batch(jax.random.fold_in(arrays, n), n) for n in range(40))
        sums = [np.asarray(batch.inputs[0]).argmax(-1).sum() for batch in batches]
        springs.append([*sums, study.task.sprung].index(study.task.sprung))
    assert min(springs) < 30 and max(springs) == 40, springs  # some break and some do not
    np.testing.assert_array_equal(state.step, springs)
    for s, n in enumerate(springs):
        assert np.isfinite(metrics["loss"][s, :n]).all()
        assert n == 40 or np.isinf(metrics["loss"][s, n])
        before, _ = run_until("traps", n)
        frozen, kept = (jax.tree.map(lambda leaf, s=s: leaf[s], each) for each in (state, before))
        chex.assert_trees_all_equal(frozen, kept)


def run_until(number, stop):
    study, program, compiled = build(number)
    state, metrics = compiled(program.blank, study.seed_numbers, 0, stop)
    return jax.device_get(state), metrics


def test_its_states_memory_is_used_again():
    _, program, compiled = build("side by side")
    aliases = compiled.executable.as_text().splitlines()[0].count("may-alias")
    assert aliases == len(jax.tree.leaves(program.blank))


def test_nothing_is_kept_of_the_steps_but_their_metrics():
    """No [N, B, T, V] of all steps' outputs."""
    _, _, compiled = build("alone")
    text = compiled.executable.as_text()
    assert "f32[1,13]" in text  # the loss of all steps
    assert not re.search(r"f32\[(1,)?13,(1,)?(3,5|5,3),4\]", text)


@pytest.mark.optimized(False)
@pytest.mark.parametrize("cell", CELLS)
def test_training_learns(cell):
    """With units enough for the IRNN, whose inputs start at next to nothing."""
    study = ExperimentConfig(Echo(), model(cell, 32), TrainConfig(300, 0.01), seed=7)
    program = make_program(study)
    _, metrics = compile_program(study, program)(program.blank, study.seed_numbers, 0, 301)
    loss = metrics["loss"][0]
    assert loss[-20:].mean() < 0.5 * loss[:5].mean()


@pytest.mark.optimized(False)
def test_one_call_takes_a_chunk_of_steps_at_most():
    study = replace(STUDY, train=replace(STUDY.train, steps_per_call=4))
    program = make_program(study)
    state, metrics = compile_program(study, program)(program.blank, study.seed_numbers, 0, 9)
    assert state.step == 4 and metrics["loss"].shape == (1, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"group": 2}, "group must be at most seeds, 1"),
        ({"seed": -1}, "seed must be from 0"),
        ({"seed": rng.MAX_SEED, "seeds": 2, "group": 1}, "no seed above 4294967295"),
    ],
)
def test_numbers_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(STUDY, **settings)
