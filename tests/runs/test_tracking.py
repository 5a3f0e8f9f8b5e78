"""Experiment trackers: what they are sent, with a module in their place, and the real ones."""

import importlib.util
import json
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from jaxrnn import (
    Adding,
    ElmanCell,
    ExperimentConfig,
    Recurrent,
    SequenceModel,
    TrainConfig,
    resume,
    run,
)
from jaxrnn.errors import RunError, SettingError
from jaxrnn.runs import tracking
from jaxrnn.runs.callbacks import Callback

SEVERAL = ExperimentConfig(
    Adding(5, batch_size=2),
    SequenceModel(Recurrent(ElmanCell(2)), output_size=1),
    TrainConfig(4, steps_per_call=2, checkpoint_seconds=0),
    seeds=3,
    vmap_size=3,
)


class Fake(ModuleType):
    """A tracker that only remembers how it was called."""

    def __init__(self, name: str):
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.inits, self.rows, self.finished, self.failing = [], [], 0, ""

    def Settings(self, **options):  # noqa: N802
        return options

    def init(self, **options):
        print("something to read")
        self.fail("init")
        self.inits.append(options)

    def log(self, values, step):
        self.fail("log")
        self.rows.append((step, values))

    def finish(self):
        self.fail("finish")
        self.finished += 1

    def fail(self, function: str) -> None:
        if self.failing == function:
            raise ConnectionError("no network\nand more lines")


@pytest.fixture(params=tracking.PACKAGES)
def fake(request, monkeypatch, tmp_path) -> Fake:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    module = Fake(request.param)
    monkeypatch.setitem(sys.modules, request.param, module)
    return module


def manifest(run_dir: Path) -> dict:
    return json.loads((run_dir / "manifest.json").read_text())


@pytest.mark.sampled(2)
def test_it_receives_what_tensorboard_does(fake, tmp_path, capsys):
    result = run(SEVERAL, run_dir=tmp_path / "memory/0001", track=fake.__name__)
    [options] = fake.inits
    unique = manifest(result.run_dir)["tracker"]["id"]
    assert manifest(result.run_dir)["tracker"]["package"] == fake.__name__
    assert (options["project"], options["name"]) == ("memory", f"0001-{unique[:6]}")
    assert options["config"]["task"]["sequence_length"] == 5
    assert options.get("id") == (unique if fake.__name__ == "wandb" else None)
    assert [step for step, _ in fake.rows] == [0, 1, 2, 3, 4]
    loss = np.percentile(result.history.values["loss"], [25, 50, 75], axis=0)
    for n, part in enumerate(("first quartile", "median", "third quartile")):
        found = [values[f"loss/{part}"] for _, values in fake.rows]
        np.testing.assert_allclose(found, loss[n], rtol=1e-6)
    assert fake.finished == 1
    assert capsys.readouterr().out == ""  # the tracker's own words are on standard error


def test_values_that_are_not_finite_are_left_out(fake, tmp_path):
    (tmp_path / "config.json").write_text('{"experiment": {}}')
    tracker = tracking.Tracker(tmp_path, tracking.new(fake.__name__))
    metrics = {"loss": np.array([[1.0, np.nan]]), "curve": np.zeros((1, 2, 3))}
    tracker.add([0, 10], metrics, [0.0, 0.0])
    assert fake.rows == [(0, {"loss": 1.0}), (10, {})]


class Stop(Callback):
    def after_call(self, run_state):
        raise RuntimeError("stopped")


@pytest.mark.sampled(2)
def test_a_resumed_run_continues_in_the_tracker(fake, tmp_path):
    with pytest.raises(RuntimeError, match="stopped"):
        run(SEVERAL, run_dir=tmp_path / "run", callbacks=[Stop()], track=fake.__name__)
    resume(tmp_path / "run")
    first, second = fake.inits
    assert first == second
    assert second["resume"] == "allow"
    assert fake.rows[-1][0] == 4


@pytest.mark.sampled(6)
@pytest.mark.parametrize("function", ["log", "finish"])
def test_a_tracker_that_fails_is_left_out(fake, tmp_path, capsys, function):
    fake.failing = function
    result = run(SEVERAL, run_dir=tmp_path / "run", track=fake.__name__)
    assert manifest(result.run_dir)["status"] == "finished"
    said = f"note: the tracker {fake.__name__} failed and is left out (ConnectionError: no network)"
    assert capsys.readouterr().err.count(said) == 1


@pytest.mark.sampled(2)
def test_a_tracker_that_does_not_start_is_an_error(fake, tmp_path):
    fake.failing = "init"
    with pytest.raises(RunError, match=r"did not start \(ConnectionError: no network\)$"):
        run(SEVERAL, run_dir=tmp_path / "run", track=fake.__name__)
    assert not (tmp_path / "run").exists()


def test_unknown_and_missing_trackers(tmp_path, monkeypatch):
    with pytest.raises(SettingError, match="not 'wnadb'; did you mean wandb"):
        run(SEVERAL, run_dir=tmp_path / "run", track="wnadb")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RunError, match="the tracker wandb is not installed: pip install wandb"):
        run(SEVERAL, run_dir=tmp_path / "run", track="wandb")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("package", tracking.PACKAGES)
def test_the_real_one_offline(package, run, tmp_path):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    small = "--steps 3 --sequence-length 4 --hidden-size 2 --batch-size 2 --no-plots"
    places = {"HF_HOME": str(tmp_path / "hf"), "TRACKIO_DIR": str(tmp_path / "trackio")}
    result = run("memory.py", *small.split(), "--track", package, WANDB_MODE="offline", **places)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("adding: seed 0 after 3 updates")
    if package == "wandb":
        [file] = tmp_path.glob("runs/memory/0001/wandb/offline-run-*/*.wandb")
        assert b"grad_norm" in file.read_bytes()
    else:
        read = (
            "import trackio; from trackio.sqlite_storage import SQLiteStorage as S;"
            "[run] = S.get_runs('memory'); print(len(S.get_logs('memory', run)))"
        )
        found = subprocess.run(
            [sys.executable, "-c", read],
            env=os.environ | places,
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == "2"  # steps 0 and 3
