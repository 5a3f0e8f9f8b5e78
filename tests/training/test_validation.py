"""Validation in the compiled program: when it looks, what it keeps, when it stops early."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn.cells import GRUCell
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import LanguageModel
from jaxrnn.runs import checkpoints, metrics, runner
from jaxrnn.runs.verification import verify
from jaxrnn.tasks.language import Language
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.loop import make_program, replay, seed_status
from jaxrnn.training.step import TrainState
from jaxrnn.training.validation import Best, make_validate

STEPS, EVERY = 48, 3


@cache
def study(folder: Path, seeds=1, patience=None, every=EVERY, held_out=0.3, kind=Language):
    """So short a text, half of it noise, that the network soon knows the training part by heart."""
    rng = np.random.default_rng(4)
    follows = [0]
    for noise in rng.integers(0, 8, 299).tolist():
        follows.append(noise if rng.random() < 0.5 else (follows[-1] + 1) % 8)
    file = folder / "text.txt"
    file.write_text("".join("abcdef \n"[n] for n in follows))
    task = kind.from_file(file, batch_size=3, length=8, splits=(0.3, held_out))
    model = LanguageModel(Recurrent(GRUCell(24)), task.output_size)
    train = TrainConfig(STEPS, 0.02, log_every=4, validate_every=every, patience=patience)
    return ExperimentConfig(task, model, train, seed=5, seeds=seeds, vmap_size=seeds)


@pytest.fixture(autouse=True)
def users_cache(cache_home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("text")


def test_it_looks_when_it_is_due_and_keeps_the_best(folder):
    state, history = replay(study(folder))
    assert state.best
    losses = history.values["validation_loss"][0]
    looked = np.isfinite(losses)
    assert history.steps.tolist() == sorted({*range(0, STEPS + 1, 4), *range(0, STEPS + 1, EVERY)})
    np.testing.assert_array_equal(looked, history.steps % EVERY == 0)
    best = np.nanargmin(losses)
    assert 0 < history.steps[best] < STEPS, "it must learn first, and then overfit"
    assert state.best.step[0] == history.steps[best]
    assert state.best.loss[0] == losses[best]
    assert state.best.looked[0] == STEPS
    until, _ = replay(study(folder), int(history.steps[best]))
    chex.assert_trees_all_equal(until.params, state.best.params)
    validate = make_validate(study(folder).task, study(folder).model)
    one = jax.tree.map(lambda leaf: leaf[0], state.best.params)
    again = validate(one, study(folder).task.arrays())
    np.testing.assert_allclose(again["validation_loss"], losses[best], rtol=1e-5)


def test_validation_changes_no_bit_of_the_training(folder):
    """But for the rounding of a program that is compiled otherwise."""
    state, history = replay(study(folder))
    bare, alone = replay(study(folder, held_out=0.0))
    assert bare.best is None and "validation_loss" not in alone.values
    both = np.isin(history.steps, alone.steps)
    np.testing.assert_allclose(
        history.values["loss"][:, both], alone.values["loss"], rtol=1e-4, atol=1e-5
    )
    chex.assert_trees_all_close(state.params, bare.params, atol=1e-3)


def test_without_an_interval_it_looks_at_the_end_alone(folder):
    _, history = replay(study(folder, every=None))
    assert history.steps[np.isfinite(history.values["validation_loss"][0])].tolist() == [0, STEPS]


def stops_at(steps, losses, patience):
    """By a plain loop: the step at which so many validations in a row were not the best so far."""
    best, waited = np.inf, 0
    for step, loss in zip(steps.tolist(), losses.tolist(), strict=True):
        if np.isnan(loss):
            continue
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited == patience:
            return step
    return None


@pytest.mark.parametrize("patience", [1, 3])
def test_it_stops_early_and_is_resumed_as_it_is(folder, tmp_path, capsys, patience):
    _, whole = replay(study(folder))
    end = stops_at(whole.steps, whole.values["validation_loss"][0], patience)
    assert end and end < STEPS - EVERY
    result = runner.run_experiment(study(folder, patience=patience), run_dir=tmp_path / "a")
    assert result.stopped == {5: end} and not result.diverged
    assert f"It stopped early, at step {end}: the validation loss fell no further" in str(result)
    assert f"language: seed 5 after {end} updates" in str(result)
    history = metrics.read(tmp_path / "a/metrics.jsonl")
    rows = whole.steps <= end
    assert history.steps.tolist() == whole.steps[rows].tolist()
    for name, values in history.values.items():
        np.testing.assert_array_equal(values, whole.values[name][:, rows], err_msg=name)
    manifest = json.loads((tmp_path / "a/manifest.json").read_text())
    assert (manifest["status"], manifest["stopped_early"]) == ("finished", {"5": end})
    assert checkpoints.steps(tmp_path / "a/checkpoints")[-1] == end
    before = (tmp_path / "a/metrics.jsonl").read_bytes()
    again = runner.resume(tmp_path / "a")
    assert "has ended already" in capsys.readouterr().err
    assert again.stopped == result.stopped
    chex.assert_trees_all_equal(again.state, result.state)
    assert (tmp_path / "a/metrics.jsonl").read_bytes() == before
    text, holds = verify(tmp_path / "a")
    assert holds and "Bitwise equal" in text


def test_each_seed_stops_by_itself(folder, tmp_path):
    _, whole = replay(study(folder, seeds=4))
    losses = whole.values["validation_loss"]
    ends = {5 + s: stops_at(whole.steps, losses[s], 2) for s in range(4)}
    ends = {seed: end for seed, end in ends.items() if end and end < STEPS}
    assert len(set(ends.values())) > 1, "they must not all stop at once"
    result = runner.run_experiment(study(folder, seeds=4, patience=2), run_dir=tmp_path / "a")
    assert result.stopped == ends and not result.diverged
    for s, seed in enumerate(range(5, 9)):
        counts = result.history.steps <= ends.get(seed, STEPS)
        loss = result.history.values["loss"][s]
        assert np.isfinite(loss[counts]).all() and np.isnan(loss[~counts]).all()
        assert result.state.step[s] == ends.get(seed, STEPS)
    assert f"{len(ends)} of 4 seeds stopped early" in str(result)
    assert "nowhere finite" not in str(result)


def test_what_became_of_each_network(folder):
    """One whose patience ran out at step N, one not finite there, one that stopped, one broken."""
    made, bests, looked = (
        jnp.array(each)
        for each in ([STEPS, STEPS, 30, 20], [42, 48, 24, 18], [STEPS, STEPS, 30, 18])
    )
    state = TrainState(made, None, None, best=Best(bests, bests / 9, None, looked))
    loss = np.array([1.0, np.inf, np.nan, np.nan])
    four = study(folder, seeds=4, patience=2)
    assert seed_status(four, state, STEPS + 1, loss) == ({6: STEPS, 8: 20}, {7: 30})


@pytest.mark.optimized(False)
def test_patience_that_runs_out_at_the_last_step_stops_nothing(folder, tmp_path):
    _, whole = replay(study(folder))
    end = stops_at(whole.steps, whole.values["validation_loss"][0], 3)
    exact = study(folder, patience=3)
    exact = replace(exact, train=replace(exact.train, steps=end))
    result = runner.run_experiment(exact, run_dir=tmp_path / "a", picture=False)
    assert result.state.step[0] == end
    assert not result.stopped and not runner.resume(tmp_path / "a").stopped


class BreaksOff(Language):
    def sample_batch(self, key, step, arrays=None):
        batch = super().sample_batch(key, step, arrays)
        return batch._replace(weights=jnp.where(step == EVERY + 1, jnp.nan, batch.weights))


@pytest.mark.optimized(False)
def test_a_network_that_broke_off_is_not_looked_at_again(folder):
    state, _ = replay(study(folder, kind=BreaksOff))
    assert state.best
    assert state.step[0] == EVERY + 1
    assert state.best.step[0] == state.best.looked[0] == EVERY


def test_the_best_is_part_of_the_program_that_is_cut_anywhere(folder):
    program = make_program(study(folder))
    assert program.blank.best and program.blank.best.params.keys() == program.blank.params.keys()
    assert program.metrics["validation_loss"].shape == ()


def test_patience_needs_validations(folder):
    with pytest.raises(SettingError, match="patience counts validations: it needs validate_every"):
        TrainConfig(10, patience=2)
    with pytest.raises(SettingError, match="patience must be at least 1"):
        TrainConfig(10, validate_every=2, patience=0)
    with pytest.raises(SettingError, match="validate every must be a whole number"):
        TrainConfig(10, validate_every=cast(Any, 2.5))
    bare = study(folder, held_out=0.0)
    with pytest.raises(SettingError, match="patience needs a task that holds something out"):
        make_program(replace(bare, train=replace(bare.train, patience=2)))
