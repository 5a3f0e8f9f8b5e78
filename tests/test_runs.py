"""Run directories: new, numbered, never overwritten, gone again if nothing was saved."""

import concurrent.futures
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from jaxrnn import runs


@dataclass(frozen=True)
class Config:
    text: str = "안녕"
    run_dir: Path | None = None


METRICS = {"loss": np.array([[1.5, np.nan], [0.25, np.inf]]), "correct": np.eye(2, dtype=bool)}


def save(path):
    runs.save(path, Config(), np.array([7, 8]), METRICS)


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_runs_are_numbered_and_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in ("0001", "0002"):
        with runs.new_run("lab", None) as path:
            save(path)
        assert path == Path("runs/lab") / number
    (tmp_path / "runs/lab/0041").mkdir()
    (tmp_path / "runs/lab/notes").mkdir()
    with runs.new_run("lab", None) as path:
        save(path)
    assert path.name == "0042"


def test_what_is_saved(tmp_path):
    with runs.new_run("lab", tmp_path / "a" / "b") as path:
        save(path)
    assert json.loads((path / "config.json").read_text("utf-8")) == {
        "text": "안녕",
        "run_dir": None,
    }
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [
        {"step": 0, "seed": 7, "loss": 1.5, "correct": True},
        {"step": 0, "seed": 8, "loss": 0.25, "correct": False},
        {"step": 1, "seed": 7, "loss": None, "correct": False},
        {"step": 1, "seed": 8, "loss": None, "correct": True},
    ]
    assert contents(path) == ["config.json", "metrics.jsonl"]


@pytest.mark.parametrize("name", ["config.json", "notes.txt"])
def test_a_directory_with_anything_in_it_is_refused_and_untouched(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match="choose another"), runs.new_run("lab", tmp_path):
        save(tmp_path)
    assert contents(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_an_empty_directory_is_taken_and_kept(tmp_path):
    with pytest.raises(KeyboardInterrupt), runs.new_run("lab", tmp_path):
        raise KeyboardInterrupt
    assert contents(tmp_path) == []
    with runs.new_run("lab", tmp_path) as path:
        save(path)
    assert path == tmp_path


@pytest.mark.parametrize("chosen", [None, Path("x/y/z")])
def test_a_run_that_breaks_off_unsaved_leaves_nothing(tmp_path, monkeypatch, chosen):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt), runs.new_run("lab", chosen) as path:
        (path / "metrics.jsonl").write_text("half a li")
        raise KeyboardInterrupt
    assert contents(tmp_path) == []


def test_a_run_that_breaks_off_removes_only_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt), runs.new_run("lab", None):
        with runs.new_run("lab", None) as other:
            save(other)
        raise KeyboardInterrupt
    assert contents(tmp_path / "runs/lab") == [
        "0002",
        "0002/config.json",
        "0002/metrics.jsonl",
    ]


def test_two_runs_never_share_a_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with runs.new_run("lab", tmp_path / "mine"):
        second = runs.new_run("lab", tmp_path / "mine")
        with pytest.raises(FileExistsError, match="choose another"), second:
            pass
        assert contents(tmp_path / "mine") == ["metrics.jsonl"]


def test_numbers_taken_at_the_same_moment_differ(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    barrier = threading.Barrier(4)

    def take(_):
        barrier.wait()
        with runs.new_run("lab", None) as path:
            barrier.wait()
            save(path)
        return path

    for _ in range(30):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(take, range(4)))) == 4


def test_a_saved_run_stays_whatever_comes_after(tmp_path):
    with pytest.raises(KeyboardInterrupt), runs.new_run("lab", tmp_path / "a") as path:
        save(path)
        raise KeyboardInterrupt
    assert contents(path) == ["config.json", "metrics.jsonl"]


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot make"), runs.new_run("lab", tmp_path / "file/run"):
        pass
    with (
        pytest.raises(OSError, match="cannot make"),
        runs.new_run("lab", tmp_path / "new" / ("x" * 300)),
    ):
        pass
    assert contents(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="cannot write"), runs.new_run("lab", tmp_path):
        pass
