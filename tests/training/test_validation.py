"""Validation in the compiled loop: when it validates, what it keeps, when it stops early."""

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
from flax import linen as nn

from jaxrnn.analysis.report import summarize, summarize_evaluation
from jaxrnn.analysis.stuck_rows import stuck_seeds, warn
from jaxrnn.cells import GRUCell
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.losses import sequence_cross_entropy
from jaxrnn.models import LanguageModel
from jaxrnn.runs import checkpoints, evaluation, metrics, runner
from jaxrnn.runs.verification import verify
from jaxrnn.tasks.language import Language
from jaxrnn.training.calls import train_in_memory
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.history import History
from jaxrnn.training.loop import TrainLoop
from jaxrnn.training.run_state import RunState, seed_status
from jaxrnn.training.step import TrainState
from jaxrnn.training.validation import Best, make_validate

pytestmark = pytest.mark.optimized  # it is about bits, too

STEPS, EVERY = 48, 3


@cache
def make_config(folder: Path, seeds=1, patience=None, every=EVERY, held_out=0.3, kind=Language):
    """A text so short, and half noise, that the network soon overfits."""
    rng = np.random.default_rng(4)
    follows = [0]
    for noise in rng.integers(0, 8, 299).tolist():
        follows.append(noise if rng.random() < 0.5 else (follows[-1] + 1) % 8)
    file = folder / "text.txt"
    file.write_text("".join("abcdef \n"[n] for n in follows))
    task = kind.from_file(
        file, batch_size=3, sequence_length=8, val_fraction=held_out, test_fraction=0.7 - held_out
    )
    model = LanguageModel(Recurrent(GRUCell(24)), task.output_size)
    train = TrainConfig(STEPS, 0.02, log_every=4, validate_every=every, patience=patience)
    return ExperimentConfig(task, model, train, seed=5, seeds=seeds, vmap_size=seeds)


@cache
def trained(folder: Path, until=None, **settings) -> RunState:
    """The run in memory; tests share it."""
    return train_in_memory(make_config(folder, **settings), until)


@pytest.fixture(autouse=True)
def users_cache(cache_home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("text")


def test_it_validates_when_due_and_keeps_the_best(folder):
    run = trained(folder)
    state, history = run.state, run.history
    assert state.best
    losses = history.values["validation_loss"][0]
    validated = np.isfinite(losses)
    assert history.steps.tolist() == sorted({*range(0, STEPS + 1, 4), *range(0, STEPS + 1, EVERY)})
    np.testing.assert_array_equal(validated, history.steps % EVERY == 0)
    best = np.nanargmin(losses)
    assert 0 < history.steps[best] < STEPS, "it must learn first, and then overfit"
    assert state.best.step[0] == history.steps[best]
    assert state.best.loss[0] == losses[best]
    assert state.best.last_validated[0] == STEPS
    until = trained(folder, int(history.steps[best]))
    chex.assert_trees_all_equal(until.state.params, state.best.params)
    validate = make_validate(make_config(folder).task, make_config(folder).model)
    one = jax.tree.map(lambda leaf: leaf[0], state.best.params)
    again = validate(one, make_config(folder).task.arrays())
    np.testing.assert_allclose(again["validation_loss"], losses[best], rtol=1e-5)


@pytest.mark.slow
def test_validation_does_not_change_training(folder):
    """Up to rounding, since another loop is compiled."""
    with_set, without = trained(folder), trained(folder, held_out=0.0)
    history, alone = with_set.history, without.history
    assert without.state.best is None and "validation_loss" not in alone.values
    both = np.isin(history.steps, alone.steps)
    np.testing.assert_allclose(
        history.values["loss"][:, both], alone.values["loss"], rtol=1e-4, atol=1e-5
    )
    chex.assert_trees_all_close(with_set.state.params, without.state.params, atol=1e-3)


@pytest.mark.slow
def test_without_validate_every_it_validates_at_the_end(folder):
    history = trained(folder, every=None).history
    assert history.steps[np.isfinite(history.values["validation_loss"][0])].tolist() == [0, STEPS]


def stops_at(steps, losses, patience):
    """The step of the early stop, by a plain loop."""
    best, waited = np.inf, 0
    for step, loss in zip(steps.tolist(), losses.tolist(), strict=True):
        if np.isnan(loss):
            continue
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited == patience:
            return step
    return None


@pytest.mark.slow
@pytest.mark.parametrize("patience", [1, 3])
def test_early_stopping_and_resuming_after_it(folder, tmp_path, capsys, patience):
    whole = trained(folder).history
    end = stops_at(whole.steps, whole.values["validation_loss"][0], patience)
    assert end and end < STEPS - EVERY
    result = runner.run(make_config(folder, patience=patience), run_dir=tmp_path / "a")
    assert result.stopped == {5: end} and not result.diverged
    assert f"It stopped early, at step {end}: the validation loss no longer improved" in summarize(
        result
    )
    assert f"language: seed 5 after {end} updates" in summarize(result)
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
    assert "has already ended" in capsys.readouterr().err
    assert again.stopped == result.stopped
    chex.assert_trees_all_equal(again.state, result.state)
    assert (tmp_path / "a/metrics.jsonl").read_bytes() == before
    text, holds, _ = verify(tmp_path / "a")
    assert holds and "Bitwise equal" in text


@pytest.mark.slow
def test_each_seed_stops_on_its_own(folder, tmp_path):
    whole = trained(folder, seeds=4).history
    losses = whole.values["validation_loss"]
    ends = {5 + s: stops_at(whole.steps, losses[s], 2) for s in range(4)}
    ends = {seed: end for seed, end in ends.items() if end and end < STEPS}
    assert len(set(ends.values())) > 1, "they must not all stop at once"
    result = runner.run(make_config(folder, seeds=4, patience=2), run_dir=tmp_path / "a")
    assert result.stopped == ends and not result.diverged
    for s, seed in enumerate(range(5, 9)):
        counts = result.history.steps <= ends.get(seed, STEPS)
        loss = result.history.values["loss"][s]
        assert np.isfinite(loss[counts]).all() and np.isnan(loss[~counts]).all()
        assert result.state.step[s] == ends.get(seed, STEPS)
    assert f"{len(ends)} of 4 seeds stopped early" in summarize(result)
    assert "never finite" not in summarize(result)


def test_status_of_each_seed(folder):
    """Patience exhausted at step N; diverged at step N; stopped early; diverged before."""
    updates, bests, validated = (
        jnp.array(each)
        for each in ([STEPS, STEPS, 30, 20], [42, 48, 24, 18], [STEPS, STEPS, 30, 18])
    )
    state = TrainState(updates, None, None, best=Best(bests, bests / 9, None, validated))
    loss = np.array([1.0, np.inf, np.nan, np.nan])
    four = make_config(folder, seeds=4, patience=2)
    assert seed_status(four, state, STEPS + 1, loss) == ({6: STEPS, 8: 20}, {7: 30}, {})


@pytest.mark.slow
def test_running_out_of_patience_at_the_last_step_is_not_early(folder, tmp_path):
    whole = trained(folder).history
    end = stops_at(whole.steps, whole.values["validation_loss"][0], 3)
    exact = make_config(folder, patience=3)
    exact = replace(exact, train=replace(exact.train, steps=end))
    result = runner.run(exact, run_dir=tmp_path / "a")
    assert result.state.step[0] == end
    assert not result.stopped and not runner.resume(tmp_path / "a").stopped


class Diverges(Language):
    def sample_batch(self, key, step, arrays=None):
        batch = super().sample_batch(key, step, arrays)
        return batch._replace(weights=jnp.where(step == EVERY + 1, jnp.nan, batch.weights))


@pytest.mark.slow
def test_a_diverged_seed_is_not_validated_again(folder):
    state = trained(folder, kind=Diverges).state
    assert state.best
    assert state.step[0] == EVERY + 1
    assert state.best.step[0] == state.best.last_validated[0] == EVERY


def test_the_best_is_part_of_the_state(folder):
    loop = TrainLoop(make_config(folder))
    assert loop.blank.best and loop.blank.best.params.keys() == loop.blank.params.keys()
    assert loop.metrics["validation_loss"].shape == ()


def test_patience_needs_a_validation_set(folder):
    with pytest.raises(SettingError, match="patience counts validations: it needs validate_every"):
        TrainConfig(10, patience=2)
    with pytest.raises(SettingError, match="patience must be at least 1"):
        TrainConfig(10, validate_every=2, patience=0)
    with pytest.raises(SettingError, match="validate every must be a whole number"):
        TrainConfig(10, validate_every=cast(Any, 2.5))
    bare = make_config(folder, held_out=0.0)
    with pytest.raises(SettingError, match="patience needs a task with a validation set"):
        TrainLoop(replace(bare, train=replace(bare.train, patience=2)))


class Latch(nn.Module):
    """A model that gets stuck if a row starts at "a": from then on it predicts nonsense.

    Its carry is 1 while it works, -1 while it is stuck, and 0 at the start.
    """

    size: int
    confidence: float = 50.0  # in the nonsense

    @nn.compact
    def __call__(self, ids, carry=None, *, lengths=None, resets=None, deterministic=True):
        self.param("unused", nn.initializers.zeros, (1,))
        carry = jnp.zeros(ids.shape[0]) if carry is None else carry
        start = jnp.where(ids[:, 0] == 0, -1.0, 1.0)
        new = jnp.where(carry == 0, start, carry)
        if lengths is not None:
            new = jnp.where(lengths > 0, new, carry)
        nonsense = jax.nn.one_hot(jnp.zeros_like(ids), self.size) * self.confidence
        sense = jax.nn.one_hot((ids + 1) % self.size, self.size) * 3.0
        return jnp.where(new[:, None, None] < 0, nonsense, sense), new


def test_rows_in_which_a_network_is_stuck_are_counted(tmp_path):
    file = tmp_path / "text.txt"
    rng = np.random.default_rng(13)  # two rows start at "a"
    steps = np.where(rng.random(900) < 0.8, 1, rng.integers(0, 8, 900))
    file.write_text("".join("abcdefgh"[n] for n in np.cumsum(steps) % 8))
    task = Language.from_file(file, batch_size=6, sequence_length=10, val_fraction=0.5)
    arrays = task.arrays()
    found = jax.jit(make_validate(task, Latch(8)))({"unused": jnp.zeros(1)}, arrays)
    first = task.validation_batch(jnp.int32(0), arrays)  # the warm-up, but of row 0
    second = task.validation_batch(jnp.int32(1), arrays)
    stuck = np.append(second.inputs[0, 0], first.inputs[1:, 0]) == 0
    assert 0 < stuck.sum() < 6, "the test needs some rows of each kind"
    assert int(found["validation_stuck_rows"]) == stuck.sum()
    ids = task.corpus.validation.astype(int)
    scored = (task.num_validation_batches(arrays) - 1) * 10  # tokens per row
    losses = [
        np.mean(np.where(ids[1 + row * scored :][:scored] == 0, 0.0, 50.0)) * stuck[row]
        for row in range(6)
    ]
    assert int(found["validation_worst_row"]) == np.argmax(losses)
    np.testing.assert_allclose(found["validation_worst_row_loss"], max(losses), rtol=1e-6)


def test_only_networks_that_have_learned_are_called_stuck():
    steps, nan = np.array([0, 10, 20]), np.nan
    values = {
        "validation_loss": np.array([[3.0, nan, 2.0], [3.0, nan, 2.5], [4.0, nan, 3.5]]),
        "validation_stuck_rows": np.array([[9.0, nan, 0.0], [9.0, nan, 2.0], [9.0, nan, 9.0]]),
    }
    seeds = np.array([5, 6, 7])
    history = History(seeds, steps, values)
    np.testing.assert_array_equal(stuck_seeds(history, 3.09), [False, True, False])
    assert not stuck_seeds(history, None).any()
    assert not stuck_seeds(History(seeds, steps, {}), 3.09).any()


def test_a_warning_names_the_worst_seeds_and_rows():
    rows = np.array([5.0, 1.0, 7.0, 6.0, 4.0])
    lines = warn({seed: rows + seed / 10 for seed in range(5)} | {9: rows - 9}, 6, 3.0)
    assert lines == [
        "Warning: 5 of 6 networks get stuck: validation rows above the memoryless loss, 3:",
        "  seed 4: row 2 (7.4), row 3 (6.4), row 0 (5.4) and 1 more",
        "  seed 3: row 2 (7.3), row 3 (6.3), row 0 (5.3) and 1 more",
        "  seed 2: row 2 (7.2), row 3 (6.2), row 0 (5.2) and 1 more",
        "  and 2 more seeds",
        "  A higher reset probability may help.",
    ]
    assert warn({9: rows - 9}, 1, 3.0) == []


@pytest.mark.slow
def test_the_summary_names_stuck_rows_and_has_the_loss_of_one_stream(tmp_path):
    file = tmp_path / "text.txt"
    rng = np.random.default_rng(5)  # one row starts at "a"
    steps = np.where(rng.random(900) < 0.95, 1, rng.integers(0, 8, 900))
    file.write_text("".join("abcdefgh"[n] for n in np.cumsum(steps) % 8))
    task = Language.from_file(file, batch_size=6, sequence_length=10, val_fraction=0.5)
    train = TrainConfig(2, validate_every=1)
    config = ExperimentConfig(task, Latch(8, 6.0), train, seed=5, seeds=2, vmap_size=2)
    result = runner.run(config, run_dir=tmp_path / "run")
    lines = summarize(result).splitlines()
    start = next(n for n, line in enumerate(lines) if "as one stream" in line)
    ids = jnp.asarray(task.corpus.validation, jnp.int32)[None]
    logits, _ = Latch(8, 6.0).apply({"params": {"unused": jnp.zeros(1)}}, ids[:, :-1])
    stream = sequence_cross_entropy(logits, ids[:, 1:], jnp.ones((1, ids.size - 1)))
    assert f"mean {stream:.4g}, from {stream:.4g} to {stream:.4g}" in lines[start]
    assert f"the mean in rows is {np.mean(cast(Best, result.state.best).loss):.4g}." in lines[start]
    assert lines[start + 1].startswith("Warning: 2 of 2 networks get stuck")
    row, loss = (
        result.history.values[f"validation_worst_{name}"][0, -1] for name in ("row", "row_loss")
    )
    assert lines[start + 2].startswith(f"  seed 5: row {row:.0f} ({loss:.4g})")
    again = evaluation.evaluate(result.run_dir)
    assert f"; stuck in row {row:.0f} ({loss:.4g})" in summarize_evaluation(again)
    np.testing.assert_allclose(again.metrics["row_losses"].max(axis=1), loss, rtol=1e-6)
