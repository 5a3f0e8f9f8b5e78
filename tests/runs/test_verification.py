"""Verifying a run: equal, different at a named place, or from another machine."""

import json
import shutil

import jaxlib.version
import numpy as np
import pytest
from example_tasks import Echo

from jaxrnn.cells import ElmanCell
from jaxrnn.errors import RunError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.runs import checkpoints, run_metadata, runner, verification
from jaxrnn.runs.verification import TOLERANCE, Verdict, verify
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.loop import TrainLoop

MODEL = SequenceModel(Recurrent(ElmanCell(4)), 4)
TRAIN = TrainConfig(9, 0.01, steps_per_call=4, checkpoint_seconds=0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run") / "a"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        runner.run(ExperimentConfig(Echo(), MODEL, TRAIN, seeds=3, vmap_size=2), run_dir=run_dir)
        yield run_dir


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


def change(run_dir, step, seed, **values):
    """Write other numbers into one line of metrics.jsonl."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    place = next(n for n, row in enumerate(rows) if (row["step"], row["seed"]) == (step, seed))
    rows[place] |= {name: change(rows[place][name]) for name, change in values.items()}
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def move(run_dir):
    """As if it had been made with another jaxlib."""
    manifest = json.loads((run_dir / "manifest.json").read_text())
    manifest["provenance"]["versions"]["jaxlib"] = "0.0.1"
    (run_dir / "manifest.json").write_text(json.dumps(manifest))


def next_float(value):
    return float(np.nextafter(np.float32(value), np.float32(9)))


def test_an_unchanged_run_is_bitwise_equal(made):
    text, holds, bitwise = verify(made)
    assert holds and bitwise
    assert text == (
        "Bitwise equal: 10 logged steps of 3 seeds, the parameters and the optimizer's state."
    )


def test_the_first_difference_is_named(copy):
    """One bit is enough; of several differences the earliest step, then seed, is named."""
    change(copy, 7, 0, loss=next_float)
    change(copy, 4, 2, grad_norm=next_float)
    change(copy, 4, 1, loss=next_float)
    text, holds, _ = verify(copy)
    assert not holds
    assert text.startswith("Differs, first at step 4, seed 1: loss was ")


def test_null_differs_from_a_number(copy):
    change(copy, 9, 0, accuracy=lambda _: None)
    text, holds, _ = verify(copy)
    assert not holds
    assert text.startswith("Differs, first at step 9, seed 0: accuracy was nan, is ")


def test_missing_lines_are_reported(copy):
    lines = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(lines[:-3]))
    text, holds, _ = verify(copy)
    assert not holds
    assert text == f"{copy / 'metrics.jsonl'} lacks lines of steps that were logged."


def resave(run_dir, change):
    """Save the last checkpoint once more, with other numbers."""
    like = TrainLoop(run_metadata.load_config(run_dir)).blank
    restored = checkpoints.restore(run_dir / "checkpoints", like)
    assert restored is not None
    state = change(restored.state)
    checkpoints.save(run_dir / "checkpoints", restored.step, state, restored.position)


def test_a_difference_in_the_last_state_is_named(copy):
    def flip(state):
        kernel = np.array(state.params["readout"]["kernel"])
        kernel[2, 1, 1] = np.nextafter(kernel[2, 1, 1], np.float32(9))
        return state._replace(
            params=state.params | {"readout": {**state.params["readout"], "kernel": kernel}}
        )

    resave(copy, flip)
    text, holds, _ = verify(copy)
    assert not holds
    assert (
        text
        == "The metrics are equal, but the last state differs, in .params['readout']['kernel']."
    )


@pytest.mark.slow
@pytest.mark.parametrize(("off", "holds"), [(0.5 * TOLERANCE, True), (1.5 * TOLERANCE, False)])
def test_a_run_from_another_machine_is_compared_within_a_tolerance(copy, off, holds):
    move(copy)
    rows = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    largest = max(row["loss"] for row in rows)
    change(copy, 3, 2, loss=lambda loss: loss + off * largest)
    text, *verdict = verify(copy)
    assert verdict == [holds, False]
    first, second = text.splitlines()
    assert first == f"The environment differs: jaxlib was 0.0.1, is {jaxlib.version.__version__}."
    if holds:
        assert second.startswith(
            "Within 0.001 of each metric's largest value: 10 logged steps of 3"
        )
        assert "the largest difference is at step 3, seed 2: loss" in second
    else:
        assert second.startswith(
            "Beyond 0.001 of each metric's largest value, first at step 3, seed 2"
        )


def test_resuming_elsewhere_is_reported(copy):
    """Started and verified here, but resumed on another machine in between."""
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["sessions"].append({"from_step": 4, "differences": ["jaxlib was 1, is 2"]})
    (copy / "manifest.json").write_text(json.dumps(manifest))
    text, holds, bitwise = verify(copy)
    assert holds and bitwise
    first = text.splitlines()[0]
    assert first.startswith("The environment differs: ") and "jaxlib was 1, is 2" in first


@pytest.mark.parametrize("change", ["rename", "reshape"])
def test_a_task_with_other_metrics_is_refused(copy, change):
    rows = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        value = row.pop("accuracy")
        row |= {"share": value} if change == "rename" else {"accuracy": [value, value]}
    (copy / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = (copy / "metrics.jsonl").read_bytes()
    for command in (verify, runner.resume):
        with pytest.raises(
            RunError, match=r"logged .*, but its task now measures accuracy, grad_norm"
        ):
            command(copy)
    assert (copy / "metrics.jsonl").read_bytes() == before


def test_another_model_is_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    config["experiment"]["model"]["recurrent"]["cell"]["features"] = 5
    (copy / "config.json").write_text(json.dumps(config))
    for command in (verify, runner.resume):
        with pytest.raises(RunError, match="belongs to another model"):
            command(copy)


def test_a_run_from_another_machine_can_be_bitwise_equal(copy):
    move(copy)
    text, holds, bitwise = verify(copy)
    assert holds and bitwise
    assert text.splitlines()[1].startswith("Bitwise equal")


def test_a_run_without_a_checkpoint_cannot_be_verified(copy):
    shutil.rmtree(copy / "checkpoints")
    text, holds, _ = verify(copy)
    assert not holds
    assert "nothing to verify" in text


def test_a_sweep_is_bitwise_equal_if_all_its_runs_are(tmp_path, monkeypatch):
    """Each run's verdict is given here; tests of sweeps train them."""
    found = {"a": Verdict("Bitwise", True, True), "b": Verdict("Within", True)}
    monkeypatch.setattr(verification.sweep_results, "is_sweep", lambda _: True)
    monkeypatch.setattr(verification.joint_run, "has_ended", lambda _: True)
    monkeypatch.setattr(verification, "_verify_run", lambda run_dir, _: found[run_dir.name])
    for names, bitwise in ({"a": True, "ab": False}).items():
        runs = {"runs": [tmp_path / name for name in names]}
        monkeypatch.setattr(verification.sweep_results, "read", lambda _, runs=runs: runs)
        text = "\n".join(f"{name}: {found[name].text}" for name in names)
        assert verify(tmp_path) == Verdict(text, True, bitwise)
