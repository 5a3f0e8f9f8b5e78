"""`jaxrnn compare`: the table and the picture of runs that differ in what runs differ in."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from example_runs import make_run

from jaxrnn.analysis import comparison, comparison_plot, plots
from jaxrnn.cli import commands
from jaxrnn.runs import metrics


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Runs a and b, of other lengths, numbers of seeds and learning rates."""
    folder = tmp_path_factory.mktemp("trained")
    make_run(folder / "a", steps=4, seeds=3)
    make_run(folder / "b", steps=6, seeds=2, learning_rate=0.5)
    return folder


@pytest.fixture
def runs(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "runs"))


@pytest.fixture
def compare(call):
    def compare(*words: str):
        return call(commands.main, "jaxrnn", "compare", *words)

    return compare


@pytest.fixture
def figures(monkeypatch) -> list:
    """Every figure that is written."""
    found = []
    write = plots.write
    monkeypatch.setattr(
        plots, "write", lambda figure, path: found.append(figure) or write(figure, path)
    )
    return found


def edit(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def losses(run: Path) -> np.ndarray:
    return metrics.read(run / "metrics.jsonl").values["loss"]


def test_table_and_picture(runs, compare, figures):
    result = compare("runs/a", "runs/b")
    assert (result.returncode, result.stderr) == (0, "")
    heads, a, b, last = result.stdout.splitlines()
    words = "run steps learning_rate seeds status updates final loss"
    assert heads.split() == words.split()
    for line, name, settings in ((a, "a", ["4", "0.001"]), (b, "b", ["6", "0.5"])):
        final = losses(runs / name)[:, -1]
        low, median, high = np.percentile(final, [25, 50, 75])
        numbers = [f"{median:.4g}", f"({low:.4g}", "to", f"{high:.4g})"]
        ends = [str(len(final)), "finished", settings[0], *numbers]
        assert line.split() == [f"runs/{name}", *settings, *ends]
    assert last == "The picture is compare.png."
    assert Path("compare.png").read_bytes().startswith(b"\x89PNG")
    [axis] = figures[0].axes
    first, second, baseline = axis.lines
    assert first.get_xdata().tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(first.get_ydata(), np.median(losses(runs / "a"), axis=0), rtol=1e-6)
    assert second.get_xdata().tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert baseline.get_ydata()[0] == pytest.approx(0.1667, abs=1e-3)
    assert [text.get_text() for text in figures[0].legends[0].texts][:2] == [
        "a: steps 4, learning rate 0.001",
        "b: steps 6, learning rate 0.5",
    ]
    for band, name in zip(axis.collections, "ab", strict=True):
        quartiles = np.percentile(losses(runs / name), [25, 75], axis=0)
        corners = band.get_paths()[0].vertices[:, 1]
        assert (corners.min(), corners.max()) == pytest.approx((quartiles.min(), quartiles.max()))


def test_equal_settings_are_said(runs, compare):
    shutil.copytree(runs / "a", runs / "c")
    *_, said, _ = compare("runs/a", "runs/c").stdout.splitlines()
    assert said == "Their settings are the same."
    assert "two runs or more" in compare().stderr


def test_runs_in_every_state(runs, compare):
    """A run in progress, one with a line that a kill left incomplete, a seed that diverged."""
    with (runs / "b/metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "see')
    edit(runs / "b/manifest.json", status="running")
    edit(runs / "a/manifest.json", diverged={"1": 2})
    result = compare("runs/a", "runs/b")
    assert (result.returncode, result.stderr) == (0, "")
    _, a, b, _ = result.stdout.splitlines()
    assert "finished, 1 diverged" in a
    assert " killed " in b
    stayed = losses(runs / "a")[[0, 2], -1]
    assert f"{np.median(stayed):.4g} (" in a


def test_the_validation_loss_counts_if_all_have_it(runs, compare):
    def validate(name: str) -> None:
        file = runs / name / "metrics.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        lines = [
            json.dumps(
                row
                | {"validation_loss": None if row["step"] % 2 else row["seed"] + row["step"] + 1}
            )
            for row in rows
        ]
        file.write_text("\n".join(lines) + "\n")

    validate("b")
    assert "final loss" in compare("runs/a", "runs/b").stdout
    validate("a")
    found = compare("runs/a", "runs/b").stdout
    assert "best validation loss" in found.splitlines()[0]
    assert found.splitlines()[1].endswith("2 (1.5 to 2.5)")
    assert "final grad norm" in compare("runs/a", "runs/b", "--metric", "grad_norm").stdout


def test_steps_to_success_and_other_tasks(runs, compare):
    edit(runs / "a/manifest.json", solved_at={"0": 2, "1": 3}, memoryless_loss=1.0)
    config = json.loads((runs / "b/config.json").read_text())
    config["experiment"]["task"]["type"] = "__main__:Gone"
    (runs / "b/config.json").write_text(json.dumps(config))
    heads, a, b, *others = compare("runs/a", "runs/b").stdout.splitlines()
    assert heads.split()[:2] == ["run", "task"]
    assert heads.endswith("solved")
    assert a.endswith("2 of 3")
    assert b.endswith("-")
    assert others[0] == "The tasks differ, so their losses may not be comparable."


def test_a_sweep_stands_for_its_runs(runs, compare, figures):
    (runs / "sweep.json").write_text(json.dumps({"runs": ["a", "b"]}))
    result = compare("runs", "--out", "other.svg")
    assert result.stdout.splitlines()[1].startswith("runs/a ")
    assert Path("other.svg").read_text().startswith("<?xml")
    assert compare("runs", str(runs / "a")).returncode == 0  # relative and absolute paths
    for name, rate in (("a", "0.001"), ("b", "0.5")):
        (runs / name).rename(runs / f"learning_rate={rate}")
    compare(*map(str, runs.glob("learning_rate=*")))
    labels = sorted(text.get_text() for text in figures[-1].legends[0].texts)
    assert labels[0] == "learning_rate=0.001: steps 4"  # said once


def test_seeds_that_stopped_keep_their_last_value(runs):
    edit(runs / "a/manifest.json", stopped_early={"0": 1})
    a, _ = comparison.read([runs / "a", runs / "b"])
    values = a.history.values["loss"]
    values[0, 2:] = np.nan
    assert comparison.final_values(a, "loss")[0] == values[0, 1]
    _, (low, *_) = comparison_plot._band(a, "loss")
    assert np.isfinite(low).all()
    np.testing.assert_allclose(low[-1], np.percentile([values[0, 1], *values[1:, -1]], 25))


BAD = {
    "runs/a": "compare needs two runs or more",
    "runs/a runs/a/": "compare needs two runs or more",
    "runs/a runs/c": "runs/c contains no run",
    "runs/a runs": "runs contains no run",
    "runs/a runs/b --metric los": "not 'los'; did you mean loss?",
    "runs/a runs/b --out picture.pgn": "the ending of --out must be .png, .svg or .pdf, not '.pgn'",
    "runs/a runs/b --out nowhere/a.png": "No such file or directory: nowhere/a.png",
}


@pytest.mark.parametrize("words", BAD)
def test_mistakes_are_one_line(runs, compare, words):
    result = compare(*words.split())
    assert result.returncode == 2
    assert BAD[words] in result.stderr
    assert result.stderr.count("\n") == 1


def test_damaged_runs_are_one_line(runs, compare):
    (runs / "a/metrics.jsonl").write_text("")
    assert "runs/a has logged nothing yet" in compare("runs/a", "runs/b").stderr
    (runs / "a/config.json").write_text("[")
    assert "it is not JSON" in compare("runs/a", "runs/b").stderr


def test_many_settings_and_a_narrow_terminal(runs):
    config = json.loads((runs / "b/config.json").read_text())
    names = ["warmup_steps", "clip_norm", "flatten", "patience", "validate_every", "log_every"]
    config["experiment"]["train"] |= dict.fromkeys(names, 7)
    (runs / "b/config.json").write_text(json.dumps(config))
    found = comparison.read([runs / "a", runs / "b"])
    *_, last = comparison.table(found, "loss").splitlines()
    assert last.startswith("These differ, too: ")
    narrow = comparison.table(found, "loss", columns=40).splitlines()
    assert narrow[0] == found[0].name
    assert "  learning_rate: 0.001" in narrow
    assert "  seeds: 3" in narrow
