"""A run on disk: a directory that one process works in at a time.

config.json     the experiment, from which the run is rebuilt
manifest.json   status and provenance
metrics.jsonl   one line per logged step and seed; locked by the process that works on the run
checkpoints/    what resuming needs
tensorboard/    the metrics as TensorBoard events
*.png           plots
"""

import contextlib
import fcntl
import itertools
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from jaxrnn.runs.files import require_decodable
from jaxrnn.training.processes import is_first, text_of_first

CONFIG = "config.json"
MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
WANDB = "wandb"  # where its package keeps a run
PICTURE = "curves.png"
_BEFORE_START = {METRICS, MANIFEST, f"{MANIFEST}.partial", f"{CONFIG}.partial"}
_LOCKED = "another process works on the run in {}; wait for it, or stop it first"


def resume_command(path: Path) -> str:
    """Return the shell command that resumes a run."""
    return f"python -m jaxrnn resume {shlex.quote(str(path))}"


class RunDirectory(NamedTuple):
    """The directory of a run that this process works on."""

    path: Path
    metrics: BinaryIO | None  # metrics.jsonl, locked and open for appending, in process 0


@contextlib.contextmanager
def new_run(name: str, run_dir: Path | None) -> Iterator[RunDirectory]:
    """Create a directory for a new run; remove it if an error occurs before the first metrics.

    Args:
      name: the parent of numbered directories: `runs/<name>/0001`, `0002`, ...
      run_dir: a new or empty directory to use instead; None for the next number.

    Yields:
      the directory, with an empty metrics.jsonl.

    Raises:
      FileExistsError: if `run_dir` is not empty; nothing in it is changed.
      OSError: if the directory cannot be created or written.
      RunError: if its path cannot be used.
    """
    if not is_first():
        yield RunDirectory(Path(text_of_first()), None)
        return
    require_decodable(run_dir or Path("runs") / name)
    path, created = _next_number(Path("runs") / name) if run_dir is None else _take(run_dir)
    try:
        metrics = _claim(path)
    except OSError:
        _remove_empty(created)
        raise
    text_of_first(str(path))
    with _closed_after(metrics):
        try:
            yield RunDirectory(path, metrics)
        except Exception:  # not Ctrl-C or SIGTERM: such a run can be resumed
            if not (path / METRICS).stat().st_size:
                for file in (METRICS, CONFIG, MANIFEST):
                    (path / file).unlink(missing_ok=True)
                for folder in (CHECKPOINTS, TENSORBOARD, WANDB):
                    shutil.rmtree(path / folder, ignore_errors=True)
                _remove_empty(created)
            raise


def new_folder(name: str, wanted: Path | None) -> Path:
    """Create a directory that will hold the directories of several runs.

    Args:
      name: the parent of numbered directories, as for `new_run`.
      wanted: a new or empty directory to use instead; None for the next number.

    Raises:
      OSError: if it is not empty, or cannot be created.
      RunError: if its path cannot be used.
    """
    require_decodable(wanted or Path("runs") / name)
    return (_next_number(Path("runs") / name) if wanted is None else _take(wanted))[0]


@contextlib.contextmanager
def open_run(path: Path) -> Iterator[RunDirectory]:
    """Lock the directory of an existing run.

    Raises:
      OSError: if there is no run, it cannot be written, or another process works on it.
    """
    require_run(path)
    if not is_first():
        yield RunDirectory(path, None)
        return
    try:
        metrics = (path / METRICS).open("ab")
    except OSError as error:
        raise OSError(f"cannot write in the run directory {path}: {error.strerror}") from None
    with _closed_after(metrics):
        _lock(path, metrics)
        yield RunDirectory(path, metrics)


def require_run(path: Path) -> None:
    """Check that a directory contains a run.

    Raises:
      FileNotFoundError: if not.
      RunError: if its path cannot be used.
    """
    for file in (CONFIG, METRICS):
        if not (path / file).is_file():
            raise FileNotFoundError(f"{path} contains no run: it has no {file}")
    require_decodable(path)


def is_locked(path: Path) -> bool:
    """Tell whether another process works on a run."""
    with (path / METRICS).open("rb") as metrics:
        try:
            fcntl.flock(metrics, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def require_idle(path: Path) -> None:
    """Check that a directory contains a run that no other process works on.

    Raises:
      OSError: if not.
    """
    require_run(path)
    if is_locked(path):
        raise BlockingIOError(_LOCKED.format(path))


def _next_number(parent: Path) -> tuple[Path, list[Path]]:
    """Create the directory `parent/NNNN` with the next free number; return as `_create`."""
    numbers = [int(entry.name) for entry in parent.glob("*") if entry.name.isdecimal()]
    for number in itertools.count(max(numbers, default=0) + 1):
        with contextlib.suppress(FileExistsError):  # another process took this number
            return _create(parent / f"{number:04d}")
    raise AssertionError("there is always a next number")


def _take(path: Path) -> tuple[Path, list[Path]]:
    """Create the directory that the user named, or take it if it is empty; return as `_create`.

    One with the files of a run that was killed before it started counts as empty.
    """
    if not path.is_dir():
        return _create(path)
    inside = {entry.name for entry in path.iterdir()}
    if CONFIG in inside or (METRICS in inside and not inside <= _BEFORE_START):
        raise FileExistsError(_in_use(path))
    if not inside <= _BEFORE_START:
        raise FileExistsError(f"{path} is not empty; choose another run directory")
    return path, []


def _create(path: Path) -> tuple[Path, list[Path]]:
    """Create a directory and its missing parents.

    Returns:
      the directory, and all directories that were created, innermost first.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir()
    except OSError as error:
        _remove_empty(missing[1:])
        raise type(error)(f"cannot create the run directory {path}: {error.strerror}") from None
    return path, missing


def _in_use(path: Path) -> str:
    return (
        f"{path} already contains a run; resume it with `{resume_command(path)}`, or choose another"
        " run directory"
    )


def _claim(path: Path) -> BinaryIO:
    """Lock a new directory for this process."""
    try:
        metrics = (path / METRICS).open("ab")
    except OSError as error:
        raise OSError(f"cannot write in the run directory {path}: {error.strerror}") from None
    with contextlib.suppress(BlockingIOError):
        _lock(path, metrics)
        if not metrics.tell() and not (path / CONFIG).exists():
            return metrics
    metrics.close()  # another process was faster
    raise FileExistsError(_in_use(path))


def _lock(path: Path, metrics: BinaryIO) -> None:
    """Lock out other processes; the lock ends with this process, even if it is killed."""
    try:
        fcntl.flock(metrics, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        metrics.close()
        raise BlockingIOError(_LOCKED.format(path)) from None


@contextlib.contextmanager
def _closed_after(metrics: BinaryIO) -> Iterator[None]:
    """Close the file at the end; if an error is on its way, hide a second one from closing."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            metrics.close()
        raise
    metrics.close()


def _remove_empty(folders: list[Path]) -> None:
    """Remove the directories that are empty, innermost first."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
