"""Run directories: new, numbered, never overwritten, one process at a time, gone if unused."""

import concurrent.futures
import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from jaxrnn.errors import RunError
from jaxrnn.runs import run_directory


def save(directory):
    """What makes a run of a directory: a config.json, and a line of metrics."""
    (directory.path / "config.json").write_text("{}")
    directory.metrics.write(b"{}\n")
    directory.metrics.flush()


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_runs_are_numbered_and_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in ("0001", "0002"):
        with run_directory.new_run("lab", None) as directory:
            save(directory)
        assert directory.path == Path("runs/lab") / number
    (tmp_path / "runs/lab/0041").mkdir()
    (tmp_path / "runs/lab/notes").mkdir()
    with run_directory.new_run("lab", None) as directory:
        save(directory)
    assert directory.path.name == "0042"


@pytest.mark.parametrize("name", ["config.json", "notes.txt"])
def test_a_directory_with_anything_in_it_is_refused_and_untouched(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with (
        pytest.raises(FileExistsError, match="choose another"),
        run_directory.new_run("lab", tmp_path),
    ):
        pass
    assert contents(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_an_existing_run_is_refused_with_the_resume_command(tmp_path):
    with run_directory.new_run("lab", tmp_path / "a") as directory:
        save(directory)
    told = f"python -m jaxrnn resume {tmp_path / 'a'}`"
    with pytest.raises(FileExistsError, match=told), run_directory.new_run("lab", tmp_path / "a"):
        pass


def test_an_empty_directory_is_used_and_kept(tmp_path):
    with pytest.raises(RuntimeError), run_directory.new_run("lab", tmp_path):
        raise RuntimeError
    assert contents(tmp_path) == []
    with run_directory.new_run("lab", tmp_path) as directory:
        save(directory)
    assert directory.path == tmp_path


@pytest.mark.parametrize("chosen", [None, Path("x/y/z")])
def test_a_run_that_fails_before_its_first_metrics_leaves_nothing(tmp_path, monkeypatch, chosen):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError), run_directory.new_run("lab", chosen) as directory:
        for name in ("config.json", "manifest.json"):
            (directory.path / name).write_text("{}")
        (directory.path / "tensorboard").mkdir()
        (directory.path / "tensorboard/events").write_text("")
        raise RuntimeError
    assert contents(tmp_path) == []


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_a_run_that_is_stopped_stays(tmp_path, ending):
    with pytest.raises(ending), run_directory.new_run("lab", tmp_path / "a") as directory:
        (directory.path / "config.json").write_text("{}")
        raise ending
    assert contents(tmp_path / "a") == ["config.json", "metrics.jsonl"]


def test_a_run_that_fails_after_its_first_metrics_stays(tmp_path):
    with pytest.raises(RuntimeError), run_directory.new_run("lab", tmp_path / "a") as directory:
        save(directory)
        raise RuntimeError
    assert contents(tmp_path / "a") == ["config.json", "metrics.jsonl"]


def test_a_run_that_fails_removes_only_its_own_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError), run_directory.new_run("lab", None):
        with run_directory.new_run("lab", None) as other:
            save(other)
        raise RuntimeError
    assert contents(tmp_path / "runs/lab") == [
        "0002",
        "0002/config.json",
        "0002/metrics.jsonl",
    ]


def test_two_runs_never_share_a_directory(tmp_path):
    with run_directory.new_run("lab", tmp_path / "mine"):
        second = run_directory.new_run("lab", tmp_path / "mine")
        with pytest.raises(FileExistsError, match="choose another"), second:
            pass
        assert contents(tmp_path / "mine") == ["metrics.jsonl"]


def hold(path, held, done):
    with run_directory.open_run(path):
        held.set()
        done.wait(60)


def test_one_process_at_a_time_works_on_a_run(tmp_path):
    """Another one is refused, until the first is gone, be it killed."""
    with run_directory.new_run("lab", tmp_path / "a") as directory:
        save(directory)
    path, context = directory.path, multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    process = context.Process(target=hold, args=(path, held, done))
    process.start()
    assert held.wait(60)
    assert run_directory.is_locked(path)
    with pytest.raises(BlockingIOError, match="another process works on the run in"):
        run_directory.require_idle(path)
    with pytest.raises(BlockingIOError, match="another process"), run_directory.open_run(path):
        pass
    process.kill()
    process.join()
    assert not run_directory.is_locked(path)
    with run_directory.open_run(path) as again:
        assert again.metrics
        again.metrics.write(b"more\n")
    assert (path / "metrics.jsonl").read_bytes() == b"{}\nmore\n"


@pytest.mark.parametrize("missing", ["config.json", "metrics.jsonl"])
def test_a_directory_without_a_run_is_not_opened(tmp_path, missing):
    for name in {"config.json", "metrics.jsonl"} - {missing}:
        (tmp_path / name).write_text("{}")
    with (
        pytest.raises(FileNotFoundError, match=f"it has no {missing}"),
        run_directory.open_run(tmp_path),
    ):
        pass
    assert missing not in contents(tmp_path)


def test_simultaneous_runs_get_different_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    barrier = threading.Barrier(4)

    def take(_):
        barrier.wait()
        with run_directory.new_run("lab", None) as directory:
            barrier.wait()
            save(directory)
        return directory.path

    for _ in range(30):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(take, range(4)))) == 4


def test_a_directory_that_cannot_be_created(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(OSError, match="cannot create"),
        run_directory.new_run("lab", tmp_path / "file/run"),
    ):
        pass
    with (
        pytest.raises(OSError, match="cannot create"),
        run_directory.new_run("lab", tmp_path / "new" / ("x" * 300)),
    ):
        pass
    assert contents(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="cannot write"), run_directory.new_run("lab", tmp_path):
        pass


def test_a_path_that_cannot_be_decoded_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    undecoded = tmp_path / os.fsdecode(b"bad\xff")
    with (
        pytest.raises(RunError, match="is not valid UTF-8"),
        run_directory.new_run("lab", undecoded),
    ):
        pass
    assert not list(tmp_path.iterdir())
    undecoded.mkdir()
    for file in ("config.json", "metrics.jsonl"):
        (undecoded / file).touch()
    with pytest.raises(RunError, match="is not valid UTF-8"):
        run_directory.require_run(undecoded)
    monkeypatch.chdir(undecoded)
    with pytest.raises(RunError), run_directory.new_run("lab", None):
        pass
    assert not (undecoded / "runs").exists()
