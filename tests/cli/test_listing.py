"""`jaxrnn list`: what a user reads, for runs in every state and folders that are none."""

import fcntl
import json
import re
import shutil
from pathlib import Path

import pytest
from example_runs import make_run

from jaxrnn.cli import commands
from jaxrnn.cli.listing import format_entries
from jaxrnn.runs import catalogue
from jaxrnn.runs.catalogue import cells, describe, find


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture
def copy(trained, tmp_path):
    """Copy the trained run to a folder below `runs`, with other fields of its manifest."""

    def copy(name: str, **manifest) -> Path:
        path = tmp_path / "runs" / name
        shutil.copytree(trained, path)
        file = path / "manifest.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | manifest))
        return path

    return copy


@pytest.fixture
def listed(call):
    def listed(*words: str) -> list[str]:
        result = call(commands.main, "jaxrnn", "list", *words)
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout.splitlines()

    return listed


def test_states_of_runs(copy, listed):
    copy("memory/0001")
    copy("memory/0002", status="running")
    copy("memory/0003", status="interrupted")
    copy("memory/0004", diverged={"1": 2})
    copy("memory/0005", status="diverged", diverged={"0": 2, "1": 2})
    with (copy("memory/0006", status="running") / "metrics.jsonl").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        heads, *lines = listed()
    assert heads.split() == ["run", "task", "cell", "seeds", "status", "best", "loss"]
    assert [line[:16] for line in lines] == [f"runs/memory/{n:04d}" for n in range(1, 7)]
    assert all(line.split()[1:5] == ["adding", "Elman", "3", "2"] for line in lines)
    assert [re.split("  +", line)[4] for line in lines] == [
        "finished",
        "killed at 4 of 4",
        "interrupted at 4 of 4",
        "finished, 1 diverged",
        "diverged",
        "running at 4 of 4",
    ]


def test_the_best_loss(copy):
    path = copy("memory/0001")
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert describe(path).best == min(row["loss"] for row in rows if row["step"] == 4)
    assert not describe(path).is_validated
    validated = [0.5, 0.7, None, None, 0.25, 0.9, None, None, 0.3, 0.8]
    lines = [
        json.dumps(row | {"validation_loss": loss})
        for row, loss in zip(rows, validated, strict=True)
    ]
    (path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 5, "se')
    found = describe(path)
    assert (found.best, found.is_validated, found.step) == (0.25, True, 4)
    (path / "metrics.jsonl").write_text("")
    assert format_entries([describe(path)], None).endswith("  -")


def test_folders_that_cannot_be_listed(copy, listed, tmp_path):
    """One line each, with the reason, between those that can."""
    copy("a/good")
    (copy("a/no_manifest") / "manifest.json").unlink()
    (copy("a/not_json") / "config.json").write_text("{")
    (copy("a/of_another_program") / "config.json").write_text('{"lr": 1}')
    (copy("a/strange") / "config.json").write_text("[]")
    (copy("a/wrong_lines") / "metrics.jsonl").write_text("hello\n")
    (tmp_path / "runs/a/foreign/deep").mkdir(parents=True)
    (tmp_path / "runs/a/foreign/deep/notes.txt").write_text("x")
    (tmp_path / "runs/a/empty").mkdir()
    (tmp_path / "runs/a/.hidden").mkdir()
    (tmp_path / "runs/a/loop").symlink_to(tmp_path / "runs")
    (tmp_path / "runs/a/two\nlines").mkdir()
    (tmp_path / "runs/a/two\nlines/file").write_text("x")
    lines = listed()[1:]
    said = {line.split()[0].removeprefix("runs/a/"): line for line in lines}
    assert len(said) == len(lines) == 8
    assert said["foreign"].split()[1:] == ["not", "a", "run"]
    assert r"two\nlines" in said
    assert "finished" in said["good"]
    assert "damaged: it has no manifest.json" in said["no_manifest"]
    assert "it is not JSON" in said["not_json"]
    assert "damaged: no 'experiment'" in said["of_another_program"]
    assert "damaged: " in said["strange"]
    assert "line 1, does not contain metrics" in said["wrong_lines"]


def test_sweeps_and_studies(copy, tmp_path):
    copy("memory/0001/learning_rate=0.1")
    copy("studies/jsb/LSTM")
    sweep = tmp_path / "runs/memory/0001"
    names = ["learning_rate=0.1", "learning_rate=0.2"]
    (sweep / "sweep.json").write_text(json.dumps({"runs": names}))
    copy("memory/0001/programs/1")
    found = list(find(tmp_path / "runs"))
    assert [each.path.name for each in found] == [*names, "LSTM"]
    assert [each.problem for each in found] == ["", "not started", ""]
    (sweep / "sweep.json").write_text("{}")
    assert next(find(tmp_path / "runs")).problem == "cannot be read: 'runs'"


def test_no_runs(call, listed, tmp_path):
    assert listed() == ["There are no runs here: there is no folder runs."]
    (tmp_path / "runs").mkdir()
    assert listed() == ["There are no runs in runs."]
    result = call(commands.main, "jaxrnn", "list", "rusn")
    assert (result.returncode, result.stderr) == (2, "error: there is no folder rusn\n")


def test_a_narrow_terminal_gets_two_lines(copy):
    entries = [describe(copy("memory/0001")), catalogue.Entry(Path("runs/x"), "not a run")]
    wide = format_entries(entries, None).splitlines()
    assert format_entries(entries, max(map(len, wide))).splitlines() == wide
    narrow = format_entries(entries, 20).splitlines()
    assert narrow[1].startswith("  adding, Elman 3, 2 seeds, finished, best loss 0.")
    assert narrow[2:] == ["runs/x", "  not a run"]


def test_cells_of_models():
    gru = {"cell": {"type": "jaxrnn.cells.gru:GRUCell", "features": 8}}
    own = {"cell": {"type": "__main__:LeakyCell", "hidden_size": 8}}
    both = {"forward": gru, "backward": gru}
    assert cells({"recurrent": {"layers": [both, both, gru]}}) == "BiGRU 2x8 + GRU 8"
    assert cells({"encoder": both, "decoder": own}) == "BiGRU 8 + Leaky ?"
    assert cells({"type": "__main__:Transformer"}) == ""
