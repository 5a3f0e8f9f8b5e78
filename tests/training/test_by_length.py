"""Validation by sequence length, against plain loops over rows."""

import math
import signal
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_tasks import Echo

from jaxrnn.analysis import length_table
from jaxrnn.analysis.report import summarize, summarize_evaluation
from jaxrnn.cells import ElmanCell
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.rng import child_key, root_key
from jaxrnn.runs import metrics, runner
from jaxrnn.runs.evaluation import evaluate
from jaxrnn.runs.verification import verify
from jaxrnn.training.calls import train_in_memory
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.loop import TrainLoop
from jaxrnn.training.mesh import MeshShape
from jaxrnn.training.validation import make_validate

BATCHES = 3
GROUPS = (4, 5, 9, 10, 11)  # no row has 10 steps, and those with 12 are in no group
LENGTHS = [[12, 1, 5, 7, 11, 2, 9, 6], [4, 6, 12, 8, 5, 9, 3, 9], [9, 8, 2, 9, 7, 6, 1, 12]]


@dataclass(frozen=True)
class Groups(Echo):
    """Echo with three validation batches of rows of known lengths; row 7 of the last has no weight.

    Some of its metrics are not means over steps: `exact` is the share of rows without a mistake.
    """

    batch_size: int = 8
    length: int = 12
    ragged: bool = True
    length_groups: tuple[int, ...] = GROUPS

    def num_validation_batches(self, arrays):
        return BATCHES

    def validation_batch(self, n, arrays):
        batch = self.sample_batch(jax.random.fold_in(child_key(root_key(3), "data"), n), 0)
        lengths = jnp.array(LENGTHS)[n]
        steps = jnp.arange(self.length)[None]
        weights = jnp.where(steps < lengths[:, None], 0.5 + (steps % 3).astype(float), 0.0)
        weights = weights.at[7].multiply(jnp.where(n == BATCHES - 1, 0.0, 1.0))
        return batch._replace(weights=weights, lengths=lengths)

    def metrics(self, outputs, batch):
        right = (outputs.argmax(-1) == batch.targets) | (batch.weights == 0)
        rows = right.all(axis=1)
        own = {"exact": rows.mean(), "all": rows.all(), "rows": rows}
        return super().metrics(outputs, batch) | own


MODEL = SequenceModel(Recurrent(ElmanCell(5)), 4)
TRAIN = TrainConfig(12, 0.05, log_every=4, validate_every=4, steps_per_call=3, checkpoint_seconds=0)


@pytest.fixture(autouse=True)
def users_cache(cache_home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))


def by_hand(task, params):
    """Sum over the rows of a group of weight times value, over the sum of the weights."""
    sums = {name: np.zeros((len(task.length_groups), 2)) for name in ("loss", "accuracy", "exact")}
    for n in range(BATCHES):
        batch = jax.device_get(task.validation_batch(n, None))
        logits, _ = MODEL.apply({"params": params}, batch.inputs, lengths=batch.lengths)
        for row, scores in enumerate(np.asarray(logits, np.float64)):
            length, weights = batch.lengths[row], batch.weights[row].astype(np.float64)
            group = next((g for g, high in enumerate(task.length_groups) if length <= high), None)
            if group is None or not weights.sum():
                continue
            loss = right = exact = 0.0
            for t in range(length):
                true, best = scores[t, batch.targets[row, t]], scores[t].argmax()
                loss += weights[t] * (math.log(sum(map(math.exp, scores[t]))) - true)
                right += weights[t] * (best == batch.targets[row, t])
            exact = weights.sum() * (right == weights.sum())
            for name, value in (("loss", loss), ("accuracy", right), ("exact", exact)):
                sums[name][group] += value, weights.sum()
    return {
        name: np.array([value / weight if weight else math.nan for value, weight in pairs])
        for name, pairs in sums.items()
    }


@cache
def trained():
    """A run whose network is right somewhere, so that `exact` is not always 0."""
    return train_in_memory(ExperimentConfig(Groups(), MODEL, TrainConfig(60, 0.05)))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("groups", [GROUPS, (1, 5, 11), (12,)])
def test_each_group_is_the_weighted_mean_of_its_rows(groups):
    task, run = Groups(length_groups=groups), trained()
    params = jax.tree.map(lambda leaf: leaf[0], run.state.params)
    found, wanted = jax.jit(make_validate(task, MODEL))(params, None), by_hand(task, params)
    assert set(found) == {
        f"validation_{name}{suffix}"
        for name in ("loss", "accuracy", "exact", "all")
        for suffix in ("", "_by_length")
    }
    for name, values in wanted.items():
        by_length = found[f"validation_{name}_by_length"]
        assert by_length.shape == (len(groups),)
        np.testing.assert_allclose(by_length, values, rtol=1e-5, err_msg=name)
        if groups == GROUPS:
            last = run.history.values[f"validation_{name}_by_length"][0, -1]
            np.testing.assert_allclose(last, values, rtol=1e-5, err_msg=name)
    assert len(set(found["validation_loss_by_length"].tolist())) == len(groups), "too alike"
    if groups == (12,):  # everything in one group
        whole = found["validation_loss"][None]
        np.testing.assert_allclose(found["validation_loss_by_length"], whole, rtol=1e-5)


@pytest.mark.slow
def test_an_empty_group_does_not_end_a_run_that_hunts_nans():
    params = MODEL.init(jax.random.key(0), jnp.zeros((1, 1, 4)))["params"]
    with jax.debug_nans(True):
        found = jax.jit(make_validate(Groups(), MODEL))(params, None)
        assert np.isinf(found["validation_loss_by_length"][3])
        history = train_in_memory(ExperimentConfig(Groups(), MODEL, TRAIN)).history
    loss = history.values["validation_loss_by_length"][0]  # [R, G]
    assert np.isnan(loss[:, 3]).all() and np.isfinite(loss[:, [0, 1, 2, 4]]).all()


class Stop(runner.Callback):
    def after_call(self, run_state) -> None:
        if 5 <= run_state.step < 12:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.slow
def test_a_run_of_two_seeds(tmp_path):
    """It is logged, resumed, verified, summarized and evaluated."""
    config = ExperimentConfig(Groups(), MODEL, TRAIN, seeds=2, vmap_size=2)
    with pytest.raises(SystemExit):
        runner.run(config, run_dir=tmp_path / "a", callbacks=[Stop()])
    result = runner.resume(tmp_path / "a")
    whole = train_in_memory(config)
    chex.assert_trees_all_equal(result.state, whole.state)
    on_disk = metrics.read(tmp_path / "a/metrics.jsonl")
    chex.assert_trees_all_equal(on_disk.values, whole.history.values)
    loss = on_disk.values["validation_loss_by_length"]
    assert loss.shape == (2, 4, 5)
    text, holds, _ = verify(tmp_path / "a")
    assert holds and "Bitwise equal" in text
    head, *rows = summarize(result).splitlines()[-8:-1]
    assert head == "Validation by length, mean of 2 seeds:"
    assert rows[0].split() == ["length", "loss", "accuracy", "all", "exact"]
    assert [row.split("  ")[1] for row in rows[1:]] == [*("1 to 4", "5", "6 to 9", "10", "11")]
    assert rows[1].split()[3] == f"{loss[:, -1, 0].mean(dtype=float):.4g}"
    assert rows[4].split()[1:] == ["-"] * 4
    scored = evaluate(tmp_path / "a", final=True)
    np.testing.assert_allclose(scored.metrics["loss_by_length"], loss[:, -1], rtol=1e-6)
    said = summarize_evaluation(scored).splitlines()
    assert said[-8:-1] == ["By length, mean of 2 seeds:", *rows]
    assert any(line.startswith("Mean of 2 seeds") for line in said[:-8])


@pytest.mark.slow
def test_rows_spread_over_devices_give_the_same():
    one = train_in_memory(ExperimentConfig(Groups(), MODEL, TRAIN))
    mesh = MeshShape(data=2)
    two = train_in_memory(ExperimentConfig(Groups(), MODEL, TRAIN, mesh=mesh))
    chex.assert_trees_all_close(one.history.values, two.history.values, atol=1e-5)


@pytest.mark.parametrize("groups", [(0, 3), (3, 3), (5, 2), (2.0, 3), (True,), 7, (1, 2**31)])
def test_groups_must_increase(groups):
    with pytest.raises(SettingError, match=r"length groups must be increasing .* from 1, not "):
        make_validate(Groups(length_groups=cast(Any, groups)), MODEL)


class WithoutLengths(Groups):
    def validation_batch(self, n, arrays):
        return super().validation_batch(n, arrays)._replace(lengths=None)


class Clashes(Groups):
    def metrics(self, outputs, batch):
        return {"loss_by_length": jnp.sum(outputs)}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (WithoutLengths, "WithoutLengths has length groups, so its validation batches need len"),
        (Clashes, "a task's metrics must not be called loss_by_length"),
    ],
)
def test_what_cannot_be_grouped_is_refused(kind, message):
    config = ExperimentConfig(kind(), MODEL, TRAIN)
    with pytest.raises(SettingError, match=message):
        TrainLoop(config)
    TrainLoop(replace(config, task=kind(length_groups=())))


def test_tables_of_one_seed_and_of_none():
    rows = np.array([[0.25, np.nan]])
    assert length_table.table("By", (1, 3), {"loss_by_length": rows, "loss": rows[:, 0]}) == [
        *("By:", "  length  loss", "  1       0.25", "  2 to 3  -")
    ]
    assert length_table.table("By", (1, 3), {"loss_by_length": rows * np.nan}) == []
    assert length_table.table("By", (), {"loss": rows[0]}) == []
