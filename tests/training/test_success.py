"""Seeds that stop when they have solved their task, against runs that go on."""

import json
import signal
from dataclasses import dataclass, replace
from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_tasks import Echo, Trap

from jaxrnn.analysis.report import summarize
from jaxrnn.cells import ElmanCell
from jaxrnn.cli import info
from jaxrnn.errors import RunError, SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.rng import child_key, root_key
from jaxrnn.runs import checkpoints, metrics, runner
from jaxrnn.runs.callbacks import ProgressBar
from jaxrnn.runs.progress import Progress
from jaxrnn.runs.verification import verify
from jaxrnn.tasks import TASKS, NextCharacter
from jaxrnn.training.calls import train_in_memory
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.history import History, last_rows
from jaxrnn.training.loop import TrainLoop, make_train
from jaxrnn.training.mesh import MeshShape
from jaxrnn.training.run_state import seed_status
from jaxrnn.training.step import TrainState
from jaxrnn.training.success import is_solved

STEPS = 27


@dataclass(frozen=True)
class Below(Trap):
    """Echo that is solved once a metric is below a bound. Its loss may be infinite, as Trap's."""

    sprung: int = 99  # never
    metric: str = "loss"
    bound: float = 0.6
    held_out: bool = False

    def solved(self, metrics):
        return metrics[self.metric] < self.bound

    def metrics(self, outputs, batch):
        accuracy = super().metrics(outputs, batch)["accuracy"]
        return {"wrong": 1 - accuracy, "right": accuracy}

    def num_validation_batches(self, arrays):
        return 2 if self.held_out else 0

    def validation_batch(self, n, arrays):
        return self.sample_batch(jax.random.fold_in(child_key(root_key(3), "data"), n), 0)


MODEL = SequenceModel(Recurrent(ElmanCell(6)), 4)
TRAIN = TrainConfig(STEPS, 0.02, log_every=7, steps_per_call=9, checkpoint_seconds=0)
CONFIG = ExperimentConfig(Below(), MODEL, TRAIN, seed=3, seeds=5, vmap_size=5)
HELD = Below(metric="validation_wrong", bound=0.2, held_out=True)
CONFIGS = {
    "one vmap": CONFIG,
    "padded groups": replace(CONFIG, vmap_size=2),
    "diverging": replace(CONFIG, task=Below(sprung=12)),
    "mesh": replace(CONFIG, vmap_size=1, mesh=MeshShape(seed=2)),
    "validation": replace(CONFIG, task=HELD, train=replace(TRAIN, validate_every=3)),
    "one seed": replace(CONFIG, seed=5, seeds=1, vmap_size=1),
}


@pytest.fixture(autouse=True)
def users_cache(cache_home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))


def stopping(config):
    return replace(config, train=replace(config.train, stop_when_solved=True))


@cache
def stopped(name):
    return train_in_memory(stopping(CONFIGS[name]))


@cache
def first_steps(name):
    """By seed, the first step at which a run that goes on meets the criterion."""
    config = CONFIGS[name]
    run = train_in_memory(replace(config, train=replace(config.train, log_every=1)))
    found = {}
    for row, step in reversed(list(enumerate(run.history.steps.tolist()))):
        values = {name: array[:, row] for name, array in run.history.values.items()}
        for s in np.flatnonzero(config.task.solved(values)):
            found[config.seed + int(s)] = step
    return found, run


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", CONFIGS)
def test_each_seed_stops_at_the_first_step_that_meets_the_criterion(name):
    config, run, (found, whole) = stopping(CONFIGS[name]), stopped(name), first_steps(name)
    assert found and run.solved_at == found
    assert config.seeds == 1 or (len(set(found.values())) > 1 and len(found) < config.seeds)
    if name not in ("one seed", "diverging"):
        assert any(step % 7 for step in found.values()), "each has a line anyway"
    assert run.diverged == whole.diverged and bool(run.diverged) == (name == "diverging")
    updates = [{**run.diverged, **found}.get(seed, STEPS) for seed in config.seed_numbers.tolist()]
    np.testing.assert_array_equal(run.state.step, updates)
    np.testing.assert_array_equal(
        run.state.solved_at, [found.get(seed, -1) for seed in config.seed_numbers.tolist()]
    )
    for s, end in enumerate(updates):
        logged = run.history.steps <= end
        loss = run.history.values["loss"][s]
        assert np.isfinite(loss[logged & (run.history.steps < end)]).all()
        assert np.isnan(loss[~logged]).all()
        rows = np.isin(whole.history.steps, run.history.steps[logged])
        np.testing.assert_allclose(loss[logged], whole.history.values["loss"][s, rows], rtol=1e-3)
    if name == "validation":
        assert {step % 3 for step in found.values() if step < STEPS} == {0}


@pytest.mark.slow
def test_the_parameters_are_those_of_that_step():
    config, found = stopping(CONFIG), first_steps("one vmap")[0]
    seed, step = min(found.items(), key=lambda item: item[1])
    before = train_in_memory(config, until=step)
    s = seed - config.seed
    kept, then = (
        jax.tree.map(lambda leaf: leaf[s], (each.params, each.opt_state))
        for each in (stopped("one vmap").state, before.state)
    )
    chex.assert_trees_all_equal(kept, then)


class StopAt(runner.Callback):
    """Interrupt the run after the first call that ends at this step or later."""

    def __init__(self, step):
        self.step = step

    def after_call(self, run_state) -> None:
        if self.step <= run_state.step < STEPS:
            signal.raise_signal(signal.SIGTERM)
            self.step = STEPS


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one vmap", "validation", "diverging"])
def test_an_interrupted_run_goes_on_the_same_and_is_verified(tmp_path, name, capsys):
    config, wanted, run_dir = stopping(CONFIGS[name]), stopped(name), tmp_path / "a"
    between = min(wanted.solved_at.values()) + 1
    with pytest.raises(SystemExit):
        runner.run(config, run_dir=run_dir, callbacks=[StopAt(between)])
    manifest = json.loads((run_dir / "manifest.json").read_text())
    assert manifest["status"] == "interrupted"
    assert 0 < len(manifest["solved_at"]) < len(wanted.solved_at)
    result = runner.resume(run_dir)
    chex.assert_trees_all_equal(result.state, wanted.state)
    assert (result.solved_at, result.diverged) == (wanted.solved_at, wanted.diverged)
    solved = np.flatnonzero(np.asarray(result.solved)) + config.seed
    assert solved.tolist() == sorted(result.solved_at)
    on_disk = metrics.read(run_dir / "metrics.jsonl")
    chex.assert_trees_all_equal(on_disk.values, wanted.history.values)
    manifest = json.loads((run_dir / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["solved_at"] == {str(seed): n for seed, n in sorted(wanted.solved_at.items())}
    ends = sorted(wanted.solved_at.values())
    assert f"solved       {len(ends)} of 5 seeds, at steps {ends[0]} to {ends[-1]}" in info.of_run(
        run_dir
    )
    said = summarize(result)
    median = f"{np.median(ends):.10g}"
    assert f"{len(ends)} of 5 seeds solved it (" in said
    assert f"Steps to success: median {median}, quartiles " in said
    assert said.count(f"range {ends[0]} to {ends[-1]}.") == 1
    assert "stopped early" not in said and "never finite" not in said
    text, holds, _ = verify(run_dir)
    assert holds and "Bitwise equal" in text
    capsys.readouterr()
    chex.assert_trees_all_equal(runner.resume(run_dir).state, wanted.state)
    if name != "diverging":  # the step of the last divergence is tried again
        assert "has already ended" in capsys.readouterr().err


@pytest.mark.slow
def test_the_run_ends_when_no_seed_is_left(tmp_path):
    """Its last step has a line, whatever `log_every` is, and a checkpoint."""
    seeds = sorted(first_steps("one vmap")[0])
    only = replace(CONFIG, seed=seeds[0], seeds=1, vmap_size=1)
    train = replace(TRAIN, log_every=1000, stop_when_solved=True)
    result = runner.run(replace(only, train=train), run_dir=tmp_path / "a")
    (end,) = result.solved_at.values()
    assert 0 < end < STEPS and result.history.steps.tolist() == [0, end]
    assert result.history.values["loss"][0, -1] < 0.6
    assert checkpoints.steps(tmp_path / "a/checkpoints")[-1] == end
    assert verify(tmp_path / "a").holds
    again = runner.resume(tmp_path / "a")
    assert again.solved_at == result.solved_at and not again.stopped
    assert f"It solved the task at step {end}, and stopped there." in summarize(again)
    (tmp_path / "a/metrics.jsonl").write_text(
        (tmp_path / "a/metrics.jsonl").read_text().splitlines(keepends=True)[0]
    )
    with pytest.raises(Exception, match="lacks lines that it had when"):
        runner.resume(tmp_path / "a")


@pytest.mark.parametrize(("bound", "steps"), [(99.0, [0]), (0.6, [0, 7, 14, 21])])
def test_success_at_the_first_and_at_the_last_step(bound, steps):
    """The network that is measured after the last update may be the one that has solved it."""
    found = first_steps("one vmap")[0]
    seed = next((seed for seed, step in found.items() if step == 21), None)
    assert seed is not None, f"choose another last step: {found}"
    train = replace(TRAIN, steps=21, stop_when_solved=True)
    config = ExperimentConfig(Below(bound=bound), MODEL, train, seed=seed)
    run = train_in_memory(config)
    assert run.solved_at == {seed: steps[-1]} and run.history.steps.tolist() == steps
    assert run.is_over and not run.stopped and not run.diverged


@pytest.mark.slow
def test_success_and_patience_in_one_run():
    """Seeds out of patience stop early without success; success comes first if both are due."""
    config = replace(
        CONFIG,
        task=Below(metric="validation_loss", bound=0.2, held_out=True),
        train=replace(TRAIN, steps=40, learning_rate=0.2, validate_every=4, patience=2),
    )
    whole = train_in_memory(replace(config, train=replace(config.train, patience=None)))
    losses = whole.history.values["validation_loss"][:, whole.history.steps % 4 == 0]
    solved, patient = {}, {}
    for seed, row in enumerate(losses.tolist(), 3):
        best, waited = np.inf, 0
        for n, loss in enumerate(row):
            best, waited = (loss, 0) if loss < best else (best, waited + 1)
            if loss < 0.2 or waited == 2:
                (solved if loss < 0.2 else patient)[seed] = 4 * n
                break
    run = train_in_memory(stopping(config))
    assert solved and patient
    assert (run.solved_at, run.stopped, run.diverged) == (solved, patient, {})


def test_success_comes_before_running_out_of_patience():
    two = ExperimentConfig(HELD, MODEL, replace(TRAIN, validate_every=3, patience=1), seeds=2)
    state = TrainLoop(two).blank
    assert state.best
    at, never = jnp.array([9, 9]), jnp.array([9, -1])
    best = state.best._replace(step=jnp.array([3, 3]), last_validated=at)
    status = seed_status(two, TrainState(at, None, None, None, best, never), 12)
    assert status == ({}, {1: 9}, {0: 9})


def test_the_state_has_a_step_of_success_only_with_the_option():
    assert TrainLoop(CONFIG).blank.solved_at is None
    train = make_train(stopping(CONFIGS["one seed"]))
    state, measured = jax.jit(train)(5)
    assert int(state.solved_at) == int(state.step) == first_steps("one seed")[0][5]
    assert measured["loss"].shape == (STEPS + 1,)


class NoCriterion(Echo):
    def solved(self, metrics):
        return None


class UsesNumPy(Echo):
    def solved(self, metrics):
        return np.asarray(metrics["loss"]) < 0.1


class Branches(Echo):
    def solved(self, metrics):
        return metrics["loss"] < 0.1 if metrics["accuracy"] > 0 else False


class Counts(Echo):
    def solved(self, metrics):
        return metrics["accuracy"]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (NoCriterion(), "stop_when_solved needs a task with a criterion; NoCriterion has none"),
        (UsesNumPy(), "stop_when_solved compiles UsesNumPy.solved: it must work on traced values"),
        (Branches(), "stop_when_solved compiles Branches.solved: it must work on traced values"),
        (Counts(), r"Counts.solved must be one bool for each seed, but it is float32\[\]"),
    ],
)
def test_a_criterion_that_cannot_be_compiled_is_refused(tmp_path, task, message):
    config = ExperimentConfig(task, MODEL, TRAIN)
    TrainLoop(config)
    with pytest.raises(SettingError, match=message):
        runner.run(stopping(config), run_dir=tmp_path / "a")
    assert not (tmp_path / "a/metrics.jsonl").exists()


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", ["hihello", *TASKS])
def test_criteria_agree_on_traced_values_and_on_arrays(name):
    try:
        task = NextCharacter(name) if name == "hihello" else TASKS[name]()
        arrays = task.arrays()
    except (TypeError, SettingError, RunError):
        pytest.skip("needs data")

    def measure(key, arrays):
        batch = task.sample_batch(key, 0, arrays)
        outputs = jnp.zeros((*batch.targets.shape[:2], task.output_size))
        own = {"loss": task.loss(outputs, batch), **task.metrics(outputs, batch)}
        return own | {f"validation_{name}": value for name, value in own.items()}

    measured = jax.eval_shape(measure, jax.random.key(0), arrays)
    values = np.array([0.0, 1e-3, 0.5, 1.0, np.nan], np.float32)
    metrics = {
        name: np.multiply.outer(values, np.ones(array.shape, np.float32))
        for name, array in measured.items()
    }
    on_arrays = task.solved(metrics)
    if on_arrays is not None:
        criterion = jax.jit(jax.vmap(lambda metrics: is_solved(task, metrics)))
        np.testing.assert_array_equal(criterion(metrics), on_arrays)
        assert not on_arrays[-1], "NaN is no success"


@dataclass(frozen=True)
class Above(Below):
    def solved(self, metrics):
        return metrics["validation_right"] > 0.6


@pytest.mark.sampled(2)
@pytest.mark.parametrize("hunt", [False, True])
def test_a_step_without_validation_meets_no_bound(hunt):
    """With JAX_DEBUG_NANS, infinity stands for what was not measured."""
    task = Above(held_out=True)
    train = replace(TRAIN, validate_every=20, stop_when_solved=True)
    with jax.debug_nans(hunt):
        run = train_in_memory(ExperimentConfig(task, MODEL, train, seed=5))
        for value in (jnp.inf, -jnp.inf):
            assert not jax.jit(lambda x: is_solved(Below(), {"loss": x}))(jnp.float32(value))
    assert run.solved_at == {5: 20}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["diverging", "validation"])
@pytest.mark.parametrize("stop", [True, False])
def test_progress_counts_the_seeds_that_have_solved_it(monkeypatch, name, stop):
    """Without stopping, those that meet the criterion where they were last measured."""
    config = stopping(CONFIGS[name]) if stop else CONFIGS[name]
    run = stopped(name) if stop else first_steps(name)[1]
    shown = []
    monkeypatch.setattr(Progress, "update", lambda self, step, loss, solved: shown.append(solved))
    first, whole = run.history, []
    for row in range(len(first.steps)):  # as many calls
        values = {name: array[:, row : row + 1] for name, array in first.values.items()}
        whole.append(first._replace(steps=first.steps[row : row + 1], values=values))
    bar = ProgressBar(config)
    for row in range(len(whole)):
        bar.after_call(replace(run, histories=tuple(whole[: row + 1])))
    final = [n for n in first_steps(name)[0] if n not in run.diverged]
    if stop:
        assert set(shown) == {(len(run.solved_at), 5)}
        return
    expected = []
    for row, step in enumerate(first.steps.tolist()):
        measured = row if name == "diverging" else row - step % 3
        values = {key: array[:, measured] for key, array in first.values.items()}
        solved = config.task.solved(values)
        expected.append((sum(bool(solved[seed - 3]) for seed in final), 5))
    assert shown == expected and max(shown) > (1, 5)


def test_last_rows_of_seeds_that_ended():
    """The row before the end if it has no line, and the last validation at or before it."""
    nan = np.nan
    history = History(
        np.arange(3),
        np.array([0, 10, 20]),
        {
            "loss": np.array([[3.0, 2.0, nan], [3.0, 2.5, nan], [3.0, 1.0, nan]]),
            "validation_loss": np.array([[9.0, nan, nan], [9.0, 8.0, nan], [9.0, 7.0, nan]]),
            "by": np.array([[[1, 2], [nan, 3], [nan, nan]]] * 3),
        },
    )
    last = last_rows(history, {0: 13, 1: 10})
    np.testing.assert_array_equal(last["loss"], [2.0, 2.5, nan])
    np.testing.assert_array_equal(last["validation_loss"], [9.0, 8.0, nan])
    np.testing.assert_array_equal(last["by"], [[nan, 3], [nan, 3], [nan, nan]])
    np.testing.assert_array_equal(last_rows(history, {})["loss"], [nan] * 3)
