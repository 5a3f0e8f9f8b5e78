"""Sweeps: each combination is the run it would be alone; one program; kills; the table."""

import contextlib
import csv
import json
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from example_tasks import Echo

from jaxrnn import Stack, load, resume, resume_sweep, run, sweep, verify
from jaxrnn.analysis import sweep_table
from jaxrnn.cells import ElmanCell
from jaxrnn.cli import info
from jaxrnn.errors import DivergedError, RunError, SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.runs import checkpoints, joint_run, metrics, run_metadata
from jaxrnn.runs.sweep import plan
from jaxrnn.runs.sweep_results import Combination, SweepResult, label
from jaxrnn.training.calls import train_in_memory
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.joint import put
from jaxrnn.training.loop import TrainLoop
from jaxrnn.training.mesh import MeshShape

STACK = Stack((Recurrent(ElmanCell(5)), Recurrent(ElmanCell(4))), dropout=0.1)
TRAIN = TrainConfig(13, 0.01, log_every=4, steps_per_call=3, checkpoint_seconds=0)
CONFIG = ExperimentConfig(Echo(), SequenceModel(STACK, 4), TRAIN, seed=7, seeds=2, mesh=MeshShape())
SMALL = replace(CONFIG, model=SequenceModel(Recurrent(ElmanCell(3)), 4))
RATES = (1e-3, 1e-2, 1e-1)
COMPILED = "/jax/core/compile/backend_compile_duration"


@dataclass(frozen=True)
class Validated(Echo):
    """Echo with a validation set, and a criterion that some settings meet."""

    below: float = 1.2

    def num_validation_batches(self, arrays):
        return 2

    def validation_batch(self, n, arrays):
        return self.sample_batch(jax.random.fold_in(jax.random.key(5), n), 0)

    def loss(self, outputs, batch):
        loss = super().loss(outputs, batch)
        return jnp.where(jnp.max(jnp.abs(outputs)) > 1e6, jnp.inf, loss)

    def solved(self, metrics):
        return metrics["loss"] < self.below


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def lines(run_dir: Path) -> list[dict]:
    """metrics.jsonl without the times."""
    found = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "clock"} for row in found]


def final_state(run_dir: Path):
    config = run_metadata.load_config(run_dir)
    restored = checkpoints.restore(run_dir / "checkpoints", TrainLoop(config).blank)
    assert restored is not None
    return restored.position["next_step"], restored.state


def assert_same_runs(result: SweepResult, other: SweepResult) -> None:
    for one, two in zip(result.combinations, other.combinations, strict=True):
        assert one.settings == two.settings
        assert lines(one.run_dir) == lines(two.run_dir)
        (step, state), (again, state_again) = final_state(one.run_dir), final_state(two.run_dir)
        assert step == again
        chex.assert_trees_all_equal(state, state_again)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache):
    """A sweep of a rate and dropout, and how many programs were compiled for it."""
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if event == COMPILED else None
    )
    folder = tmp_path_factory.mktemp("sweep") / "a"
    settings = {"learning_rate": RATES, "model.recurrent.dropout": (0.0, 0.3)}
    result = sweep(CONFIG, settings, vmap_size=4, run_dir=folder)
    return result, len(compiled)


@pytest.mark.optimized
def test_numbers_share_one_compiled_program(trained):
    """Six settings times two seeds, in three groups of a `vmap`."""
    result, compiled = trained
    assert len(result.combinations) == 6
    assert compiled == 1


@pytest.mark.slow
@pytest.mark.optimized
def test_each_run_agrees_with_the_single_run(trained):
    """Closely: the program and the groups are others. Settings differ by more."""
    result, _ = trained
    histories = [metrics.read(each.run_dir / "metrics.jsonl") for each in result.combinations]
    for each, found in list(zip(result.combinations, histories, strict=True))[1:6:4]:
        config = run_metadata.load_config(each.run_dir)
        for name, value in each.settings.items():
            path = name if "." in name else f"train.{name}"
            assert put(config, path, value) == config
        alone = train_in_memory(config).history
        np.testing.assert_array_equal(found.steps, alone.steps)
        np.testing.assert_array_equal(found.seeds, alone.seeds)
        for name, values in alone.values.items():
            np.testing.assert_allclose(found.values[name], values, rtol=3e-5, atol=1e-6)
    last = [found.values["loss"][:, -1] for found in histories]
    for c in range(6):
        for other in range(c):
            assert np.max(np.abs(last[c] - last[other])) > 1e-4


@pytest.mark.slow
@pytest.mark.optimized
def test_a_learning_rate_with_vmap_size_1_gives_the_bits_of_the_single_run(tmp_path):
    config = replace(SMALL, vmap_size=1)
    result = sweep(config, {"learning_rate": RATES[1:]}, run_dir=tmp_path / "a")
    rate, each = RATES[1], result.combinations[0]
    alone = run(put(config, "train.learning_rate", rate), run_dir=tmp_path / "alone")
    assert lines(each.run_dir) == lines(alone.run_dir)
    chex.assert_trees_all_equal(final_state(each.run_dir), final_state(alone.run_dir))
    wanted, own = (
        json.loads((folder / "config.json").read_text())["experiment"]
        for folder in (alone.run_dir, each.run_dir)
    )
    assert wanted == own


def test_the_other_commands_work_on_each_run(trained):
    result, _ = trained
    best = result.best
    assert best is not None
    network = load(best.run_dir)
    assert network.config.train.learning_rate == best.settings["learning_rate"]
    assert network.seed == 7
    assert resume(best.run_dir).history.steps.tolist() == [0, 4, 8, 12, 13]
    assert "finished" in info.of_run(best.run_dir)
    assert info.of_sweep(result.sweep_dir) == sweep_table.summarize(result)
    assert not (result.sweep_dir / "programs/1/checkpoints").exists()


@pytest.mark.slow
def test_verification_trains_the_program_again(tmp_path):
    config = replace(SMALL, seeds=1)
    result = sweep(config, {"learning_rate": RATES[:2]}, vmap_size=2, run_dir=tmp_path / "a")
    one, two = (each.run_dir for each in result.combinations)
    assert verify(one).text.startswith("Bitwise equal: 5 logged steps of 1 seed,")
    verdict = verify(result.sweep_dir)
    assert verdict.holds and verdict.bitwise
    assert verdict.text.count("Bitwise equal") == 2
    file = two / "metrics.jsonl"
    first, *others = file.read_text().splitlines(keepends=True)
    row = json.loads(first)
    row["loss"] += 1e-6
    file.write_text("".join([json.dumps(row) + "\n", *others]))
    verdict = verify(result.sweep_dir)
    assert not verdict.holds
    assert "learning_rate=0.01: Differs, first at step 0, seed 7: loss was" in verdict.text
    assert verify(one).holds


SETTINGS = {"learning_rate": RATES[:2], "task.length": (5, 4)}
"""Two programs, of two runs each."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, cache):
    return sweep(SMALL, SETTINGS, vmap_size=3, run_dir=tmp_path_factory.mktemp("whole") / "a")


class Killed(BaseException):
    """As if the process had been killed."""


def kill_after(monkeypatch, owner, name: str, calls: int) -> None:
    """Let a function end the process when it is called for the n-th time."""
    left, usual = [calls], getattr(owner, name)

    def function(*args, **options):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return usual(*args, **options)

    monkeypatch.setattr(owner, name, function)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "calls"),
    [
        ("metrics.append", 3),  # between the lines of two runs
        ("metrics.append", 0),
        ("metrics.append", 8),
        ("checkpoints.save", 2),
        ("checkpoints.save", 5),  # after the last of the program, between those of the two runs
        ("run_metadata.begin", 1),
        ("run_metadata.begin_session", 1),
        ("run_metadata.end_session", 1),
        ("run_metadata.end_session", 2),  # after the first program
    ],
)
def test_a_killed_sweep_ends_as_an_uninterrupted_one(
    uninterrupted, tmp_path, monkeypatch, place, calls
):
    module, _, name = place.partition(".")
    owner = {"metrics": metrics, "checkpoints": checkpoints, "run_metadata": run_metadata}[module]
    with monkeypatch.context() as patch:
        kill_after(patch, owner, name, calls)
        with pytest.raises(Killed):
            sweep(SMALL, SETTINGS, vmap_size=3, run_dir=tmp_path / "a")
    assert "Resume with: " in info.of_sweep(tmp_path / "a")
    result = resume_sweep(tmp_path / "a")
    assert_same_runs(result, uninterrupted)
    assert sweep_table.summarize(result) == sweep_table.summarize(uninterrupted).replace(
        str(uninterrupted.sweep_dir), str(tmp_path / "a")
    )


@pytest.fixture
def ctrl_c():
    """SIGINT raises KeyboardInterrupt, also in a shell's background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_saves_and_tells_how_to_resume(uninterrupted, tmp_path, monkeypatch, capsys):
    folder, usual = tmp_path / "a", joint_run.run_calls

    def run_calls(*args):
        for n, call in enumerate(usual(*args)):
            if n == 2:
                os.kill(os.getpid(), signal.SIGINT)
            yield call

    with monkeypatch.context() as patch:
        patch.setattr(joint_run, "run_calls", run_calls)
        with pytest.raises(KeyboardInterrupt):
            sweep(SMALL, SETTINGS, vmap_size=3, run_dir=folder)
    assert f"note: resume the sweep with: python -m jaxrnn resume {folder}" in (
        capsys.readouterr().err
    )
    one = folder / "learning_rate=0.001,task.length=5"
    assert run_metadata.load(one)["status"] == "interrupted"
    assert not verify(folder).holds
    with pytest.raises(RunError, match=f"part of a sweep; resume that with: .* resume {folder}$"):
        resume(one)
    assert_same_runs(resume_sweep(folder), uninterrupted)


ENDS = {1e-6: "goes on", 0.01: "solved_at", 3.0: "stopped_early", 3e38: "diverged"}
"""How both seeds end, by learning rate."""


@pytest.mark.slow
def test_runs_end_by_themselves_while_others_go_on(tmp_path, monkeypatch):
    """By success, patience and divergence: each as if it were alone, also after a kill."""
    train = replace(
        TRAIN, steps=30, log_every=7, validate_every=2, patience=4, stop_when_solved=True
    )
    config = replace(SMALL, task=Validated(), train=train, vmap_size=2)
    settings = {"learning_rate": tuple(ENDS)}
    result = sweep(config, settings, vmap_size=8, run_dir=tmp_path / "a")
    for (rate, end), each in zip(ENDS.items(), result.combinations, strict=True):
        found = run_metadata.load(each.run_dir)
        assert {name for name in ENDS.values() if len(found.get(name, {})) == 2} <= {end}
        assert found["status"] == ("diverged" if end == "diverged" else "finished")
        if end == "goes on":
            continue
        with contextlib.suppress(DivergedError):
            run(put(config, "train.learning_rate", rate), run_dir=tmp_path / str(rate))
        wanted = run_metadata.load(tmp_path / str(rate))
        for name in ("status", "diverged", "stopped_early", "solved_at"):
            assert found[name] == wanted[name], name
        assert len(found[end]) == 2
        own, alone = (
            metrics.read(folder / "metrics.jsonl")
            for folder in (each.run_dir, tmp_path / str(rate))
        )
        np.testing.assert_array_equal(own.steps, alone.steps)
        np.testing.assert_allclose(own.values["loss"], alone.values["loss"], rtol=1e-3)
    assert result.best is result.combinations[1]
    assert result.combinations[3].diverged == 2
    assert verify(result.sweep_dir).holds
    text = sweep_table.summarize(result)
    assert "mean best validation loss" in text
    assert "3e+38          not finite" in text
    with monkeypatch.context() as patch:
        kill_after(patch, metrics, "append", 22)  # only two runs are not over yet
        with pytest.raises(Killed):
            sweep(config, settings, vmap_size=8, run_dir=tmp_path / "b")
    assert_same_runs(resume_sweep(tmp_path / "b"), result)


@pytest.mark.slow
def test_all_diverged(tmp_path):
    with pytest.raises(DivergedError, match="every network of the sweep in"):
        sweep(SMALL, {"learning_rate": (3e38, 3.1e38)}, vmap_size=40, run_dir=tmp_path / "a")
    assert "All networks diverged" in info.of_sweep(tmp_path / "a")


def picky(learning_rate, power=1.0):
    if power < 2.0:  # needs a number
        return optax.sgd(learning_rate * power)
    return optax.adam(learning_rate)


@pytest.mark.parametrize(
    ("changes", "programs"),
    [
        ([("train.learning_rate", 0.1), ("train.learning_rate", 0.2)], [[0, 1]]),
        ([("train.clip_norm", 1.0), ("train.clip_norm", None)], [[0], [1]]),
        ([("model.recurrent.dropout", 0.0), ("model.recurrent.dropout", 0.5)], [[0, 1]]),
        ([("task.length", 4), ("train.clip_norm", 2.0), ("task.length", 6)], [[0], [1], [2]]),
        ([("task.length", 5), ("train.clip_norm", 2.0)], [[0, 1]]),
        ([("model.recurrent.layers.0.cell.features", n) for n in (3, 4)], [[0], [1]]),
        ([("train.optimizer_kwargs", {"b1": b1}) for b1 in (0.8, 0.9)], [[0, 1]]),
        ([("train.steps", 3), ("train.steps", 4)], [[0], [1]]),
        ([("train.schedule", "cosine"), ("train.learning_rate", 0.2)], [[0], [1]]),
    ],
)
def test_which_settings_share_a_program(changes, programs):
    assert plan([put(CONFIG, *change) for change in changes]) == programs


def test_an_optimizer_that_needs_its_number_gets_programs_of_its_own():
    config = replace(CONFIG, train=replace(TRAIN, optimizer=picky))
    powers = [put(config, "train.optimizer_kwargs", {"power": power}) for power in (0.5, 1.0)]
    assert plan(powers) == [[0], [1]]
    assert plan([put(powers[0], "train.learning_rate", rate) for rate in RATES]) == [[0, 1, 2]]


@pytest.mark.slow
def test_a_function_of_the_settings(tmp_path):
    def make(hidden_size, steps):
        model = SequenceModel(Recurrent(ElmanCell(hidden_size)), 4)
        return ExperimentConfig(Echo(), model, TrainConfig(steps), mesh=MeshShape())

    settings = {"hidden_size": (2, 3), "steps": (1,)}
    result = sweep(make, settings, vmap_size=8, run_dir=tmp_path / "a")
    names = [each.run_dir.name for each in result.combinations]
    assert names == ["hidden_size=2,steps=1", "hidden_size=3,steps=1"]
    assert [each.interval for each in result.combinations] == [None, None]
    assert "one seed, so without an interval" in sweep_table.summarize(result)


BAD = {
    "unknown": ({"lerning_rate": (1,)}, "lerning_rate is a setting of none of the experiment's"),
    "unknown path": ({"train.rate": (1,)}, "there is no setting rate"),
    "out of range": ({"learning_rate": (0.1, -1.0)}, "learning rate must be a positive"),
    "the same twice": ({"learning_rate": (0.1, 0.1)}, "give the same experiment"),
    "no networks": ({"learning_rate": (0.1,)}, "vmap size must be at least 1"),
    "no values": ({"learning_rate": ()}, "a sweep needs at least one value"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings(case, tmp_path):
    settings, message = BAD[case]
    size = 0 if case == "no networks" else None
    with pytest.raises(SettingError, match=message):
        sweep(CONFIG, settings, vmap_size=size, run_dir=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_the_table_its_files_and_the_best(tmp_path):
    def row(rate, losses, solved):
        losses = np.array(losses)
        finite = losses[np.isfinite(losses)]
        mean = float(finite.mean()) if finite.size else np.nan
        interval = (mean - 1, mean + 1) if finite.size > 1 else None
        return Combination({"rate": rate}, Path(f"{rate}"), losses, solved, mean, interval)

    one = row(0.1, [1.0, 3.0], np.array([True, False]))
    two = row(0.2, [0.5, np.nan], np.array([True, False]))  # lower, but a seed diverged
    three = row(0.3, [2.0, 2.5], np.array([True, True]))
    four = row(0.4, [np.nan, np.nan], None)
    result = SweepResult(tmp_path, "final training loss", (one, two, three, four), False)
    assert result.best is one
    assert replace(result, by_success=True).best is three
    assert replace(result, combinations=(four,)).best is None
    assert sweep_table.summarize(result).splitlines() == [
        "   rate  mean final training loss  95% interval  solved               diverged",
        "*  0.1   2                         1 to 3        1 of 2 (9 to 91%)    0",
        "   0.2   0.5                       -             1 of 2 (9 to 91%)    1",
        "   0.3   2.25                      1.25 to 3.25  2 of 2 (34 to 100%)  0",
        "   0.4   not finite                -             -                    2",
        "Best: rate=0.1 (the lowest final training loss: 2, mean over 2 seeds, 95% interval 1 to 3"
        " (Student's t)); the run is in 0.1.",
    ]


def test_the_interval_and_the_files(trained):
    result, _ = trained
    rows = list(csv.DictReader((result.sweep_dir / "results.csv").read_text().splitlines()))
    record = json.loads((result.sweep_dir / "results.json").read_text())
    assert record["best"] == result.best.run_dir.name
    for each, row, entry in zip(result.combinations, rows, record["rows"], strict=True):
        one, two = sorted(each.losses)
        half = 12.7062047 * (two - one) / 2  # Student's t with one degree of freedom
        np.testing.assert_allclose(each.interval, (each.mean - half, each.mean + half), rtol=1e-6)
        np.testing.assert_allclose(each.mean, (one + two) / 2)
        assert float(row["mean"]) == entry["mean"] == each.mean
        assert float(row["learning_rate"]) == each.settings["learning_rate"]
        assert row["run"] == label(each.settings) == each.run_dir.name
