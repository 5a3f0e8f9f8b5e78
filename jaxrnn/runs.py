"""A run on disk: one directory with what made it, what was measured, and its pictures.

config.json     the settings; written last of the data, so its presence says: here is a run
metrics.jsonl   one line a training step and seed
*.png           pictures
"""

import contextlib
import dataclasses
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

CONFIG = "config.json"
METRICS = "metrics.jsonl"
_PARTIAL = "config.json.partial"
_IN_USE = "{} already holds a run; choose another --run-dir"


@contextlib.contextmanager
def new_run(experiment: str, run_dir: Path | None) -> Iterator[Path]:
    """Make a directory for a new run; if the run breaks off before it is saved, remove it again.

    Args:
      experiment: names the parent of numbered directories: `runs/<experiment>/0001`, `0002`, ...
      run_dir: a directory of the user's choice instead, new or empty.

    Yields:
      the directory.

    Raises:
      FileExistsError: if `run_dir` holds a run or anything else; nothing in it is touched.
      OSError: if the directory cannot be made or written.
    """
    path, made = _make_numbered(Path("runs") / experiment) if run_dir is None else _take(run_dir)
    try:
        _claim(path)
    except OSError:
        _remove_empty(made)
        raise
    try:
        yield path
    except BaseException:
        if not (path / CONFIG).exists():
            for name in (METRICS, _PARTIAL):
                (path / name).unlink(missing_ok=True)
            _remove_empty(made)
        raise


def save(path: Path, config: Any, seeds: np.ndarray, metrics: Mapping[str, np.ndarray]) -> None:
    """Write a run's data.

    Args:
      path: the run's directory.
      config: a dataclass of JSON values and paths.
      seeds: [S] int.
      metrics: by name, [S, N] each. A number that is not finite is written as null.
    """
    with (path / METRICS).open("w", encoding="utf-8") as file:
        for step in range(next(iter(metrics.values())).shape[1]):
            columns = {name: values[:, step].tolist() for name, values in metrics.items()}
            for s, seed in enumerate(seeds.tolist()):
                row = {name: _finite(values[s]) for name, values in columns.items()}
                file.write(json.dumps({"step": step, "seed": seed, **row}) + "\n")
    text = json.dumps(dataclasses.asdict(config), ensure_ascii=False, indent=2, default=str)
    (path / _PARTIAL).write_text(text + "\n", "utf-8", errors="backslashreplace")
    (path / _PARTIAL).replace(path / CONFIG)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no NaN


def _make_numbered(parent: Path) -> tuple[Path, list[Path]]:
    """Make the first free directory `parent/NNNN`; returns as `_make`."""
    numbers = [int(entry.name) for entry in parent.glob("*") if entry.name.isdecimal()]
    for number in itertools.count(max(numbers, default=0) + 1):
        with contextlib.suppress(FileExistsError):  # another process took this number
            return _make(parent / f"{number:04d}")
    raise AssertionError("there is always a next number")


def _take(path: Path) -> tuple[Path, list[Path]]:
    """Take the directory that the user named: a new or an empty one; returns as `_make`."""
    if not path.is_dir():
        return _make(path)
    if (path / CONFIG).exists() or (path / METRICS).exists():
        raise FileExistsError(_IN_USE.format(path))
    if any(path.iterdir()):
        raise FileExistsError(f"{path} is not empty; choose another --run-dir")
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


def _claim(path: Path) -> None:
    """Take the directory for this process alone, and find out whether files can be made here."""
    try:
        (path / METRICS).open("x").close()
    except FileExistsError:
        raise FileExistsError(_IN_USE.format(path)) from None
    except OSError as error:
        raise OSError(f"cannot write in the run directory {path}: {error.strerror}") from None


def _remove_empty(folders: list[Path]) -> None:
    """Remove directories, innermost first, but nothing that others put there."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
