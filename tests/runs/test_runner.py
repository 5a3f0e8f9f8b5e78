"""A run: what it writes, what it refuses, and that it compiles one program."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import chex
import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
import optax
import pytest
from example_tasks import Echo, Trap
from flax import linen as nn

from jaxrnn.analysis.report import summarize
from jaxrnn.cells import ElmanCell, LSTMCell
from jaxrnn.cli import info
from jaxrnn.errors import DivergedError, RunError, SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.runs import checkpoints, metrics, run_metadata, runner, tuning
from jaxrnn.training.calls import train_in_memory
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.loop import TrainLoop
from jaxrnn.training.mesh import MeshShape
from jaxrnn.training.run_state import RunState

MODEL = SequenceModel(Recurrent(ElmanCell(5)), 4)
TRAIN = TrainConfig(23, 0.01, log_every=4, steps_per_call=5, checkpoint_seconds=0)
CONFIG = ExperimentConfig(Echo(), MODEL, TRAIN, seed=7, mesh=MeshShape())
COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache of its own for compiled programs and vmap sizes."""
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
    result = runner.run(CONFIG, run_dir=run_dir)
    return result, len(compiled)


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished[0].run_dir, tmp_path / "copy")


def tree(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.optimized
def test_a_run_compiles_one_program(finished):
    """23 steps in calls of at most 5, and the initialization."""
    assert finished[1] == 1


@pytest.mark.optimized
def test_result_equals_training_in_memory_and_the_files(finished):
    result, _ = finished
    again = train_in_memory(CONFIG)
    chex.assert_trees_all_equal(result.state, again.state)
    assert result.history.steps.tolist() == [0, 4, 8, 12, 16, 20, 23]
    on_disk = metrics.read(result.run_dir / "metrics.jsonl")
    for each in (again.history, on_disk):
        chex.assert_trees_all_equal(result.history.values, each.values)
        np.testing.assert_array_equal(result.history.steps, each.steps)
    restored = checkpoints.restore(result.run_dir / "checkpoints", TrainLoop(CONFIG).blank)
    assert restored is not None
    chex.assert_trees_all_equal(restored.state, again.state)
    assert restored.step == 23
    assert run_metadata.load_config(result.run_dir) == CONFIG
    assert "echo: seed 7 after 23 updates" in summarize(result)
    assert str(result.run_dir) in summarize(result)


def test_files_of_a_run(finished):
    run_dir = finished[0].run_dir
    assert sorted(path.name for path in run_dir.iterdir()) == [
        "checkpoints",
        "config.json",
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
    assert manifest["vmap_size"] == 1
    (session,) = manifest["sessions"]
    assert (session["from_step"], session["to_step"]) == (0, 23)
    assert manifest["created"] <= session["started"] <= session["ended"]
    assert session["command"][0] == sys.executable
    provenance = manifest["provenance"]
    assert provenance["versions"]["jaxlib"] == jaxlib.version.__version__
    assert {"devices", "cpu", "variables", "settings", "code"} <= provenance.keys()
    assert provenance["settings"]["prng"].startswith("threefry2x32")
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert list(rows[0]) == ["step", "seed", "loss", "accuracy", "grad_norm", "clock"]
    assert rows[-1]["clock"].keys() == {"utc", "seconds"}


def test_a_run_is_never_overwritten(finished):
    run_dir = finished[0].run_dir
    before = tree(run_dir)
    with pytest.raises(FileExistsError, match="python -m jaxrnn resume"):
        runner.run(CONFIG, run_dir=run_dir)
    assert tree(run_dir) == before


def test_resuming_a_finished_run_changes_nothing(finished, copy, capsys):
    before = tree(copy)
    result = runner.resume(str(copy))
    assert capsys.readouterr().err.splitlines()[-1] == f"note: the run in {copy} has already ended"
    chex.assert_trees_all_equal(result.state, finished[0].state)
    chex.assert_trees_all_equal(result.history.values, finished[0].history.values)
    after = tree(copy)
    assert {path for path in after if after[path] != before.get(path)} <= {
        path for path in after if path.parent.name == "tensorboard"
    }


def test_info_describes_the_run(finished, copy):
    text = info.of_run(finished[0].run_dir)
    for words in (": finished", "Echo()", "ElmanCell(features=5)", "up to step 23 of 23", "21, 23"):
        assert words in text
    facts = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(facts | {"status": "running"}))
    text = info.of_run(copy)
    assert f"{copy}: killed" in text
    assert f"python -m jaxrnn resume {copy}" in text


def test_a_diverged_seed_is_recorded_and_reported(tmp_path, capsys):
    train = replace(TRAIN, steps=40, log_every=1)
    config = ExperimentConfig(Trap(), MODEL, train, seeds=6, vmap_size=6)
    result = runner.run(config, run_dir=tmp_path / "a")
    assert 0 < len(result.diverged) < 6
    history = metrics.read(tmp_path / "a/metrics.jsonl")
    for seed in range(6):
        broke = result.diverged.get(seed, 41)
        np.testing.assert_array_equal(
            np.isnan(history.values["loss"][seed]), np.arange(41) >= broke
        )
    manifest = json.loads((tmp_path / "a/manifest.json").read_text())
    assert manifest["diverged"] == {str(seed): step for seed, step in result.diverged.items()}
    assert manifest["status"] == "finished"
    assert not np.asarray(result.solved)[list(result.diverged)].any()
    assert f"over the {6 - len(result.diverged)} that stayed finite" in summarize(result)


@pytest.mark.slow
def test_the_run_ends_when_every_seed_diverged(tmp_path):
    """Its last checkpoint is from before the step at which the last seed diverged."""
    config = ExperimentConfig(
        Trap(sprung=8), MODEL, replace(TRAIN, steps=400), seeds=2, vmap_size=2
    )
    with pytest.raises(DivergedError, match="each of 2 seeds is not finite, at step") as ended:
        runner.run(config, run_dir=tmp_path / "a")
    step = int(str(ended.value).split("at step ")[1].split(";")[0])
    manifest = json.loads((tmp_path / "a/manifest.json").read_text())
    assert manifest["status"] == "diverged"
    assert max(manifest["diverged"].values()) == step
    restored = checkpoints.restore(tmp_path / "a/checkpoints", TrainLoop(config).blank)
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


def test_changed_data_files_are_refused(tmp_path):
    arrays = tmp_path / "data.txt"
    arrays.write_text("some text")
    short = replace(TRAIN, steps=1)
    run_dir = tmp_path / "a"
    runner.run(ExperimentConfig(FromFile(path=arrays), MODEL, short), run_dir=run_dir)
    manifest = json.loads((run_dir / "manifest.json").read_text())
    assert manifest["data_files"] == {str(arrays): hashlib.sha256(b"some text").hexdigest()}
    run_metadata.check_data(run_dir)
    arrays.rename(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=f"the run was started in {Path.cwd()}"):
        runner.resume(run_dir)
    arrays.write_text("other text")
    with pytest.raises(RunError, match=r"data\.txt has changed since the run in"):
        runner.resume(run_dir)


@pytest.mark.slow
def test_a_task_from_a_notebook_runs_and_resumes_there_alone(tmp_path, monkeypatch, capsys):
    def session():
        """A new `__main__` without a file, with a task defined in it."""
        main = ModuleType("__main__")
        monkeypatch.setitem(sys.modules, "__main__", main)
        code = "import example_tasks\nclass Mine(example_tasks.Echo): pass"
        exec(code, vars(main))
        return main

    class Stop(runner.Callback):
        def after_call(self, run_state: RunState) -> None:
            signal.raise_signal(signal.SIGTERM)

    config = replace(CONFIG, task=session().Mine())
    run_dir = tmp_path / "a"
    with pytest.raises(SystemExit):
        runner.run(config, run_dir=run_dir, callbacks=[Stop()])
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("note: Mine is defined at a prompt or in a notebook")
    assert last.endswith(f"resume with: jaxrnn.resume({str(run_dir)!r})")
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    with pytest.raises(RunError, match="Mine was defined at a prompt or in a notebook; define it"):
        runner.resume(run_dir)
    session()
    resumed = runner.resume(run_dir)
    chex.assert_trees_all_equal(resumed.state, train_in_memory(config).state)


@pytest.mark.parametrize("seeds", [1, 2])
def test_settings_that_cannot_be_saved_leave_no_files(tmp_path, seeds):
    model = SequenceModel(Recurrent(LSTMCell(5, activation_fn=lambda x: nn.tanh(x))), 4)
    with pytest.raises(RunError, match="activation_fn: a lambda cannot be written"):
        runner.run(replace(CONFIG, model=model, seeds=seeds), run_dir=tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_a_vmap_size_of_zero_is_refused():
    with pytest.raises(SettingError, match="vmap size must be at least 1"):
        replace(CONFIG, vmap_size=0)


@pytest.mark.slow
@dataclass(frozen=True)
class Always(Trap):
    """The loss is infinite at every step from the first."""

    def loss(self, outputs, batch):
        return super().loss(outputs, batch) + jnp.inf


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2])
def test_a_run_that_diverges_at_step_0_diverges_again(tmp_path, seeds):
    """There is no checkpoint before step 0, so resuming starts over."""
    with pytest.raises(DivergedError, match="not finite, at step 0;"):
        config = ExperimentConfig(Always(), MODEL, TRAIN, seeds=seeds, vmap_size=seeds)
        runner.run(config, run_dir=tmp_path / "a")
    with pytest.raises(DivergedError, match="not finite, at step 0;"):
        runner.resume(tmp_path / "a")
    assert len((tmp_path / "a/metrics.jsonl").read_text().splitlines()) == seeds


@pytest.mark.slow
def test_too_little_memory_is_reported_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "_free_memory", lambda: 1000)
    for seeds, vmap_size in ((1, 1), (2, None)):
        with pytest.raises(MemoryError):
            config = replace(CONFIG, seeds=seeds, vmap_size=vmap_size)
            runner.run(config, run_dir=tmp_path / "a")
        assert not (tmp_path / "a").exists()


def test_a_signal_in_the_last_call_does_not_interrupt(tmp_path, monkeypatch):
    """Training is complete and saved, so the run is finished and its result returned."""
    append = metrics.append

    def interrupted(*args):
        append(*args)
        if args[1].steps[-1] == 23:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(metrics, "append", interrupted)
    result = runner.run(CONFIG, run_dir=tmp_path / "a")
    assert result.history.steps[-1] == 23
    assert json.loads((tmp_path / "a/manifest.json").read_text())["status"] == "finished"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "config.json"),
        ("config.json", "{}", "is not the config.json of a run"),
        ("config.json", '{"experiment": 3, "script": null}', "contains no experiment"),
        ("manifest.json", "[]", "is not the manifest.json of a run"),
    ],
)
def test_damaged_files_are_named(copy, name, content, message):
    (copy / name).write_text(content)
    with pytest.raises(RunError, match=message):
        runner.resume(copy)


def test_missing_metrics_lines_are_found(copy):
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(lines[:2] + lines[3:]))
    with pytest.raises(RunError, match="lacks lines that it had when"):
        runner.resume(copy)


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_refused(tmp_path, environment):
    """`verify` imports the script to find its task; that must not start another run."""
    script = tmp_path / "unguarded.py"
    script.write_text(
        f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
import example_tasks
from dataclasses import dataclass
from jaxrnn import ExperimentConfig, LSTMCell, Recurrent, SequenceModel, TrainConfig, cli, run

@dataclass(frozen=True)
class Mine(example_tasks.Echo):
    pass

model = SequenceModel(Recurrent(LSTMCell(5)), 4)
with cli.exit_cleanly():
    run(ExperimentConfig(Mine(), model, TrainConfig(3)), run_dir=__file__ + ".run")
"""
    )
    made = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert (made.returncode, made.stdout) == (0, ""), made.stderr
    command = [sys.executable, "-m", "jaxrnn", "verify", f"{script}.run"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    assert 'under `if __name__ == "__main__":`' in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_callbacks_see_every_call(tmp_path):
    steps = []

    class Spy(runner.Callback):
        def after_call(self, run_state: RunState) -> None:
            steps.append((run_state.step, run_state.histories[-1].steps.tolist()))

        def __exit__(self, *error):
            steps.append("closed")

    runner.run(CONFIG, run_dir=tmp_path / "a", callbacks=[Spy()])
    assert steps[0] == (1, [0])
    assert steps[-2][0] == 24 and steps[-2][1][-1] == 23
    assert steps[-1] == "closed"


def exponential_sgd(learning_rate, decay):
    """An optimizer of the user's own, to be found again by its name."""
    return optax.chain(optax.ema(decay), optax.sgd(learning_rate))


@pytest.mark.slow
def test_any_importable_optimizer_is_saved_by_name(tmp_path):
    train = replace(TRAIN, optimizer=exponential_sgd, optimizer_kwargs={"decay": 0.9})
    config = replace(CONFIG, train=train)
    result = runner.run(config, run_dir=tmp_path / "a")
    saved = json.loads((tmp_path / "a/config.json").read_text())
    assert saved["experiment"]["train"]["optimizer"] == {"function": "test_runner:exponential_sgd"}
    assert run_metadata.load_config(tmp_path / "a") == config
    plain = train_in_memory(replace(config, train=replace(train, optimizer_kwargs={"decay": 0.0})))
    assert not np.array_equal(result.history.values["loss"], plain.history.values["loss"])


def test_an_optimizer_that_returns_something_else_is_refused():
    with pytest.raises(SettingError, match=r"returns an optax\.GradientTransformation"):
        TrainConfig(3, optimizer=lambda learning_rate: learning_rate)
