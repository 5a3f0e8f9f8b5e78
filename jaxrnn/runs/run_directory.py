"""A run on disk: one directory, taken by one process at a time.

config.json     rebuilds the run
manifest.json   its status, and what it was made with
metrics.jsonl   one line a logged step and seed; whoever works in the directory holds a lock on it
checkpoints/    all that going on needs
tensorboard/    the metrics once more, as TensorBoard reads them
*.png           pictures
"""

import contextlib
import fcntl
import itertools
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

CONFIG = "config.json"
MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
PICTURE = "curves.png"
_UNBEGUN = {METRICS, MANIFEST, f"{MANIFEST}.partial", f"{CONFIG}.partial"}
_TAKEN = "another process works on the run in {}; wait for it, or stop it first"


def resume_command(path: Path) -> str:
    """The command that goes on with a run, to be pasted into a shell."""
    return f"python -m jaxrnn resume {shlex.quote(str(path))}"


class RunDirectory(NamedTuple):
    """A run's directory, taken by this process."""

    path: Path
    metrics: BinaryIO  # metrics.jsonl, open for writing at its end, and locked


@contextlib.contextmanager
def new_run(name: str, run_dir: Path | None) -> Iterator[RunDirectory]:
    """Make a directory for a new run. If an error ends it before it has measured, it is removed.

    Args:
      name: names the parent of numbered directories: `runs/<name>/0001`, `0002`, ...
      run_dir: a directory of the user's choice instead, new or empty.

    Yields:
      the directory, with an empty metrics.jsonl.

    Raises:
      FileExistsError: if `run_dir` holds a run or anything else; nothing in it is touched.
      OSError: if the directory cannot be made or written.
    """
    path, made = _make_numbered(Path("runs") / name) if run_dir is None else _take(run_dir)
    try:
        metrics = _claim(path)
    except OSError:
        _remove_empty(made)
        raise
    with _closed_after(metrics):
        try:
            yield RunDirectory(path, metrics)
        except Exception:  # not Ctrl-C, nor SIGTERM: such a run is to be gone on with
            if not (path / METRICS).stat().st_size:
                for file in (METRICS, CONFIG, MANIFEST):
                    (path / file).unlink(missing_ok=True)
                for folder in (CHECKPOINTS, TENSORBOARD):
                    shutil.rmtree(path / folder, ignore_errors=True)
                _remove_empty(made)
            raise


@contextlib.contextmanager
def open_run(path: Path) -> Iterator[RunDirectory]:
    """Take the directory of a run that is there.

    Raises:
      OSError: if there is no run, if it cannot be written, or if another process works on it.
    """
    require_run(path)
    try:
        metrics = (path / METRICS).open("ab")
    except OSError as error:
        raise OSError(f"cannot write in the run directory {path}: {error.strerror}") from None
    with _closed_after(metrics):
        _lock(path, metrics)
        yield RunDirectory(path, metrics)


def require_run(path: Path) -> None:
    """Refuse a directory that holds no run, with a FileNotFoundError."""
    for file in (CONFIG, METRICS):
        if not (path / file).is_file():
            raise FileNotFoundError(f"{path} holds no run: there is no {file} in it")


def is_taken(path: Path) -> bool:
    """Whether another process works on the run in this directory."""
    with (path / METRICS).open("rb") as metrics:
        try:
            fcntl.flock(metrics, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def require_idle(path: Path) -> None:
    """Refuse a directory that holds no run, or one that another process works on.

    Raises:
      OSError: if so.
    """
    require_run(path)
    if is_taken(path):
        raise BlockingIOError(_TAKEN.format(path))


def _make_numbered(parent: Path) -> tuple[Path, list[Path]]:
    """Make the first free directory `parent/NNNN`; returns as `_make`."""
    numbers = [int(entry.name) for entry in parent.glob("*") if entry.name.isdecimal()]
    for number in itertools.count(max(numbers, default=0) + 1):
        with contextlib.suppress(FileExistsError):  # another process took this number
            return _make(parent / f"{number:04d}")
    raise AssertionError("there is always a next number")


def _take(path: Path) -> tuple[Path, list[Path]]:
    """Take the directory that the user named: a new or an empty one; returns as `_make`.

    What a kill left of a run before it began counts as empty: there is nothing to go on with.
    """
    if not path.is_dir():
        return _make(path)
    inside = {entry.name for entry in path.iterdir()}
    if CONFIG in inside or (METRICS in inside and not inside <= _UNBEGUN):
        raise FileExistsError(_in_use(path))
    if not inside <= _UNBEGUN:
        raise FileExistsError(f"{path} is not empty; choose another run directory")
    return path, []


def _make(path: Path) -> tuple[Path, list[Path]]:
    """Make a directory that was not there.

    Returns:
      the directory, and those of it and its parents that were made, innermost first.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir()
    except OSError as error:
        _remove_empty(missing[1:])
        raise type(error)(f"cannot make the run directory {path}: {error.strerror}") from None
    return path, missing


def _in_use(path: Path) -> str:
    return (
        f"{path} already holds a run; go on with it by `{resume_command(path)}`, or choose another"
        " run directory"
    )


def _claim(path: Path) -> BinaryIO:
    """Take a new directory for this process, and find out whether files can be made here."""
    try:
        metrics = (path / METRICS).open("ab")
    except OSError as error:
        raise OSError(f"cannot write in the run directory {path}: {error.strerror}") from None
    with contextlib.suppress(BlockingIOError):
        _lock(path, metrics)
        if not metrics.tell() and not (path / CONFIG).exists():
            return metrics
    metrics.close()  # another process was quicker
    raise FileExistsError(_in_use(path))


def _lock(path: Path, metrics: BinaryIO) -> None:
    """Keep others out; the lock goes with the process, however it ends."""
    try:
        fcntl.flock(metrics, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        metrics.close()
        raise BlockingIOError(_TAKEN.format(path)) from None


@contextlib.contextmanager
def _closed_after(metrics: BinaryIO) -> Iterator[None]:
    """Close the file at the end. After an error, what could not be written is no second one."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            metrics.close()
        raise
    metrics.close()


def _remove_empty(folders: list[Path]) -> None:
    """Remove directories, innermost first, but nothing that others put there."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
