"""A run: what it leaves on disk, what it refuses, and that it is one program."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
import pytest
from flax import linen as nn
from example_tasks import Echo, Trap

from jaxrnn.cells import LSTMCell
from jaxrnn.cli import info
from jaxrnn.errors import DivergedError, RunError, SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.runs import checkpoints, metrics, run_metadata, runner, vmap_tuning
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.loop import make_program, replay

pytestmark = pytest.mark.optimized(False)  # but where bits are compared

MODEL = SequenceModel(Recurrent(LSTMCell(5)), 4)
TRAIN = TrainConfig(23, 0.01, log_every=4, steps_per_call=5, checkpoint_seconds=0)
COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """No cache of the user's: neither compiled programs nor choices of groups."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache):
    """A finished run, and how many programs were compiled for it."""
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if event == COMPILED else None
    )
    run_dir = tmp_path_factory.mktemp("run") / "a"
    result = runner.run(Echo(), model=MODEL, train=TRAIN, seed=7, run_dir=run_dir)
    return result, len(compiled)


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished[0].run_dir, tmp_path / "copy")


def tree(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.optimized(True)
def test_it_is_one_program_whatever_its_length(finished):
    """23 steps in chunks of 5, the last one short, and the initialisation."""
    assert finished[1] == 1


@pytest.mark.optimized(True)
def test_the_result_is_the_study_in_memory_and_what_is_on_disk(finished):
    result, _ = finished
    study = ExperimentConfig(Echo(), MODEL, TRAIN, seed=7)
    state, history = replay(study)
    chex.assert_trees_all_equal(result.state, state)
    assert result.history.steps.tolist() == [0, 4, 8, 12, 16, 20, 23]
    on_disk = metrics.read(result.run_dir / "metrics.jsonl")
    for each in (history, on_disk):
        chex.assert_trees_all_equal(result.history.values, each.values)
        np.testing.assert_array_equal(result.history.steps, each.steps)
    restored = checkpoints.restore(result.run_dir / "checkpoints", make_program(study).blank)
    assert restored is not None
    chex.assert_trees_all_equal(restored.state, state)
    assert restored.step == 23
    assert run_metadata.load_config(result.run_dir) == study
    assert "echo: seed 7 after 23 updates" in str(result)
    assert str(result.run_dir) in str(result)


def test_what_is_in_the_directory(finished):
    run_dir = finished[0].run_dir
    assert sorted(path.name for path in run_dir.iterdir()) == [
        "checkpoints",
        "config.json",
        "curves.png",
        "manifest.json",
        "metrics.jsonl",
        "tensorboard",
    ]
    manifest = json.loads((run_dir / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["batch_shape"] == {
        "inputs": "float32[3, 5, 4]",
        "targets": "int32[3, 5]",
        "weights": "float32[3, 5]",
    }
    assert manifest["seeds_side_by_side"] == 1
    (session,) = manifest["sessions"]
    assert (session["from"], session["to"]) == (0, 23)
    assert manifest["created"] <= session["began"] <= session["ended"]
    assert session["command"][0] == sys.executable
    around = manifest["surroundings"]
    assert around["versions"]["jaxlib"] == jaxlib.version.__version__
    assert {"devices", "cpu", "environment", "settings", "code"} <= around.keys()
    assert around["settings"]["prng"].startswith("threefry2x32")
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert list(rows[0]) == ["step", "seed", "loss", "accuracy", "grad_norm", "clock"]
    assert rows[-1]["clock"].keys() == {"utc", "seconds"}


def test_a_run_is_never_overwritten(finished):
    run_dir = finished[0].run_dir
    before = tree(run_dir)
    with pytest.raises(FileExistsError, match="python -m jaxrnn resume"):
        runner.run(Echo(), model=MODEL, train=TRAIN, run_dir=run_dir)
    assert tree(run_dir) == before


def test_a_finished_run_is_not_gone_on_with(finished, copy, capsys):
    before = tree(copy)
    result = runner.resume(str(copy))
    assert capsys.readouterr().err.splitlines()[-1] == f"note: the run in {copy} has ended already"
    chex.assert_trees_all_equal(result.state, finished[0].state)
    chex.assert_trees_all_equal(result.history.values, finished[0].history.values)
    after = tree(copy)
    assert {path for path in after if after[path] != before.get(path)} <= {
        path for path in after if path.name == "curves.png" or path.parent.name == "tensorboard"
    }


def test_the_picture_is_made_from_the_metrics_alone(copy):
    for path in copy.iterdir():
        if path.name != "metrics.jsonl":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert runner.draw(copy) == copy / "curves.png"
    assert (copy / "curves.png").read_bytes().startswith(b"\x89PNG")
    (copy / "metrics.jsonl").write_text("")
    with pytest.raises(RunError, match="has no line yet"):
        runner.draw(copy)


def test_info_says_how_far_it_came(finished, copy):
    text = info.of_run(finished[0].run_dir)
    for words in (": finished", "Echo()", "LSTMCell(features=5)", "up to step 23 of 23", "21, 23"):
        assert words in text
    facts = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(facts | {"status": "running"}))
    text = info.of_run(copy)
    assert f"{copy}: broken off" in text
    assert f"python -m jaxrnn resume {copy}" in text


def test_a_seed_that_breaks_is_frozen_and_reported(tmp_path, capsys):
    """As tests/test_study.py has it, here to the disk and the report."""
    train = replace(TRAIN, steps=40, log_every=1)
    result = runner.run(
        Trap(),
        model=MODEL,
        train=train,
        seeds=6,
        vmap_size=6,
        run_dir=tmp_path / "a",
        picture=False,
    )
    assert 0 < len(result.diverged) < 6
    history = metrics.read(tmp_path / "a/metrics.jsonl")
    for seed in range(6):
        broke = result.diverged.get(seed, 41)
        np.testing.assert_array_equal(
            np.isnan(history.values["loss"][seed]), np.arange(41) >= broke
        )
    manifest = json.loads((tmp_path / "a/manifest.json").read_text())
    assert manifest["not_finite"] == {str(seed): step for seed, step in result.diverged.items()}
    assert manifest["status"] == "finished"
    assert not np.asarray(result.solved)[list(result.diverged)].any()
    assert f"over the {6 - len(result.diverged)} that stayed finite" in str(result)


def test_when_no_seed_is_left_the_run_ends(tmp_path):
    """Its last checkpoint is the state from before the step that broke the last seed."""
    study = ExperimentConfig(Trap(sprung=8), MODEL, replace(TRAIN, steps=400), seeds=2, vmap_size=2)
    with pytest.raises(DivergedError, match="each of 2 seeds is not finite, at step") as ended:
        runner.run(
            study.task, model=MODEL, train=study.train, seeds=2, vmap_size=2, run_dir=tmp_path / "a"
        )
    step = int(str(ended.value).split("at step ")[1].split(";")[0])
    manifest = json.loads((tmp_path / "a/manifest.json").read_text())
    assert manifest["status"] == "diverged"
    assert max(manifest["not_finite"].values()) == step
    restored = checkpoints.restore(tmp_path / "a/checkpoints", make_program(study).blank)
    assert restored is not None
    assert str(restored.path) in str(ended.value)
    assert restored.state.step.max() == step
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(restored.state.params))
    with pytest.raises(DivergedError, match=f"at step {step};"):
        runner.resume(tmp_path / "a")


@dataclass(frozen=True)
class FromFile(Echo):
    path: Path = Path()

    @property
    def files(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return (self.path,)


def test_data_that_was_changed_is_refused(tmp_path):
    arrays = tmp_path / "data.txt"
    arrays.write_text("some text")
    short = replace(TRAIN, steps=1)
    run_dir = tmp_path / "a"
    runner.run(FromFile(path=arrays), model=MODEL, train=short, run_dir=run_dir, picture=False)
    manifest = json.loads((run_dir / "manifest.json").read_text())
    assert manifest["data_files"] == {str(arrays): hashlib.sha256(b"some text").hexdigest()}
    run_metadata.check_data(run_dir)
    arrays.rename(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=f"the run began in {Path.cwd()}"):
        runner.resume(run_dir)
    arrays.write_text("other text")
    with pytest.raises(RunError, match=r"data\.txt is not what the run in .* began with"):
        runner.resume(run_dir)


@pytest.mark.parametrize("seeds", [1, 2])
def test_what_cannot_be_written_down_leaves_nothing(tmp_path, seeds):
    model = SequenceModel(Recurrent(LSTMCell(5, activation_fn=lambda x: nn.tanh(x))), 4)
    with pytest.raises(RunError, match="activation_fn: a lambda cannot be written"):
        runner.run(Echo(), model=model, train=TRAIN, seeds=seeds, run_dir=tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_no_group_is_not_one(tmp_path):
    with pytest.raises(SettingError, match="group must be at least 1"):
        runner.run(Echo(), model=MODEL, train=TRAIN, vmap_size=0, run_dir=tmp_path / "a")


@dataclass(frozen=True)
class Always(Trap):
    """The loss is infinite at every step from the first."""

    def loss(self, outputs, batch):
        return super().loss(outputs, batch) + jnp.inf


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_run_that_breaks_at_once_breaks_again(tmp_path, seeds):
    """There is nothing before step 0, so it begins anew."""
    with pytest.raises(DivergedError, match="not finite, at step 0;"):
        runner.run(
            Always(), model=MODEL, train=TRAIN, seeds=seeds, vmap_size=seeds, run_dir=tmp_path / "a"
        )
    with pytest.raises(DivergedError, match="not finite, at step 0;"):
        runner.resume(tmp_path / "a")
    assert len((tmp_path / "a/metrics.jsonl").read_text().splitlines()) == seeds


def test_too_little_memory_is_said_before_it_trains(tmp_path, monkeypatch):
    monkeypatch.setattr(vmap_tuning, "_free_memory", lambda: 1000)
    for seeds, vmap_size in ((1, 1), (2, None)):
        with pytest.raises(MemoryError):
            runner.run(
                Echo(),
                model=MODEL,
                train=TRAIN,
                seeds=seeds,
                vmap_size=vmap_size,
                run_dir=tmp_path / "a",
            )
        assert not (tmp_path / "a").exists()


def test_a_signal_in_the_last_call_does_not_undo_the_end(tmp_path, monkeypatch):
    """All is done and saved, so the run is finished and its result returned."""
    append = metrics.append

    def interrupted(*args):
        append(*args)
        if args[1].steps[-1] == 23:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(metrics, "append", interrupted)
    result = runner.run(Echo(), model=MODEL, train=TRAIN, run_dir=tmp_path / "a", picture=False)
    assert result.history.steps[-1] == 23
    assert json.loads((tmp_path / "a/manifest.json").read_text())["status"] == "finished"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "config.json"),
        ("config.json", "{}", "is not the config.json of a run"),
        ("config.json", '{"study": 3, "script": null}', "holds no study"),
        ("manifest.json", "[]", "is not the manifest.json of a run"),
    ],
)
def test_files_that_are_damaged_are_named(copy, name, content, message):
    (copy / name).write_text(content)
    with pytest.raises(RunError, match=message):
        runner.resume(copy)


def test_lines_that_are_missing_are_missed(copy):
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(lines[:2] + lines[3:]))
    with pytest.raises(RunError, match="lacks lines that were there when"):
        runner.resume(copy)


def test_a_script_without_a_guard_is_told_so(tmp_path, environment):
    """It is loaded to find its task, and must not start another run meanwhile."""
    script = tmp_path / "unguarded.py"
    script.write_text(
        f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
import example_tasks
from dataclasses import dataclass
from jaxrnn import cli
from jaxrnn.runs import runner
from test_experiment import MODEL, TRAIN

@dataclass(frozen=True)
class Mine(tasks.Echo):
    pass

with cli.exit_cleanly():
    runner.run(Mine(), model=MODEL, train=TRAIN, run_dir=__file__ + ".run", picture=False)
"""
    )
    made = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert (made.returncode, made.stdout) == (0, ""), made.stderr
    command = [sys.executable, "-m", "jaxrnn", "verify", f"{script}.run"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    assert 'under `if __name__ == "__main__":`' in result.stderr
    assert len(result.stderr.splitlines()) == 1
