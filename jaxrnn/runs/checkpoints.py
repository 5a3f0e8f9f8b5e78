"""Checkpoints that survive kills, full disks and flipped bits.

A checkpoint is a directory, named for the number of updates made so far:

    00000050/
      state/         the arrays, as Orbax saves them
      position.json  where the data and the metrics stand
      SHA256SUMS     of every file above; `sha256sum -c SHA256SUMS` checks them by hand

It is written under a name with a dot in front, brought to the disk, and renamed when all of it is
there: a kill leaves a directory that the next save clears away, never half a checkpoint. If a step
is saved again, as after a resume that passed over a broken checkpoint, the new one is published as
`00000050.2`, and the old one goes after that: no moment is without either.
"""

import contextlib
import itertools
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxrnn.runs import checksums, pytree_io
from jaxrnn.runs.files import read_json, write_json

STATE = "state"
POSITION = "position.json"
_NAME = re.compile(r"([0-9]{8}|[1-9][0-9]{8,})(?:\.([0-9]+))?")  # step, and which time it was saved
_PARTIAL = re.compile(r"\.[0-9]{8,}.*\.partial")


class CheckpointError(OSError):
    """A checkpoint cannot be saved, or none that is there is whole; the message is one line."""


class Restored(NamedTuple):
    """What `restore` found."""

    step: int  # updates made so far
    state: Any  # the tree of arrays
    position: dict[str, Any]  # as it was given to `save`
    path: Path  # the checkpoint's directory
    damaged: list[tuple[Path, str]]  # newer ones that were passed over, and what is wrong with each


def save(folder: Path, step: int, state: Any, position: Mapping[str, Any], keep: int = 2) -> Path:
    """Save a checkpoint; when this returns, it is on the disk.

    Args:
      folder: the directory of a run's checkpoints, made if it is not there. One process at a time
        may save in it.
      step: updates made so far.
      state: a tree of JAX or NumPy arrays.
      position: JSON values.
      keep: how many whole checkpoints to keep, of this step and before; at least 1.

    Returns:
      the checkpoint's directory.

    Raises:
      CheckpointError: if it cannot be written; the checkpoints before it are as they were.
      TypeError: if a part of `state` is no array or one of PRNG keys, or of `position` no JSON.
      ValueError: if `keep` is less than 1, or a number in `position` is not finite.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, not {keep}")
    partial = _partial(folder, f"{step:08d}")
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True)
            checksums.sync(folder.parent)
        _clear(folder)
        _write(partial, state, position)
        path = _publish(partial, folder, step)
    except BaseException as error:
        for _ in range(5):  # other writes of Orbax's may be under way still, and make it anew
            shutil.rmtree(partial, ignore_errors=True)
            time.sleep(0.02)
        trouble = pytree_io.trouble(error)
        if trouble is None:
            raise
        raise CheckpointError(
            f"cannot save a checkpoint in {folder}: {trouble}; {_what_is_left(folder)}"
        ) from error
    _prune(folder, path, step, keep)
    return path


def restore(folder: Path, like: Any, some: bool = False) -> Restored | None:
    """Read the newest checkpoint that is whole: every file has the bytes that were saved.

    Args:
      folder: the directory of a run's checkpoints.
      like: the tree that was saved, of arrays or `jax.ShapeDtypeStruct`.
      some: whether more may have been saved than is in `like`; the rest is not returned.

    Returns:
      what was saved, bit for bit, as NumPy arrays (or as JAX's where `like` says on which devices
      one is to lie: see `arrays.read`); None if there is no checkpoint.

    Raises:
      CheckpointError: if there are checkpoints but none is whole.
      RunError: if the arrays in it have other names, shapes or types than `like`.
    """
    damaged: list[tuple[Path, str]] = []
    for step, _, path in reversed(_found(folder)):
        if damage := checksums.damage(path):
            damaged.append((path, damage))
            continue
        state, position = pytree_io.read(path / STATE, like, some), read_json(path / POSITION)
        return Restored(step, state, position, path, damaged)
    if damaged:
        reasons = "; ".join(reason for _, reason in damaged)
        raise CheckpointError(f"no checkpoint is whole: {reasons}; start anew in another directory")
    return None


def steps(folder: Path) -> list[int]:
    """The steps of the checkpoints that look complete, ascending; no file is read."""
    return sorted({step for step, _, path in _found(folder) if (path / checksums.SUMS).is_file()})


def _found(folder: Path) -> list[tuple[int, int, Path]]:
    """Step, which time it was saved, and directory of each checkpoint, the newest last."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if (match := _NAME.fullmatch(path.name)) and path.is_dir() and not path.is_symlink():
            found.append((int(match[1]), int(match[2] or 1), path))
    return sorted(found)


def _partial(folder: Path, name: str) -> Path:
    """A new name, under which nothing is a checkpoint."""
    return folder / f".{name}.{secrets.token_hex(4)}.partial"


def _clear(folder: Path) -> None:
    """Remove what earlier kills left."""
    for path in folder.iterdir():
        if _PARTIAL.fullmatch(path.name) and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def _write(partial: Path, state: Any, position: Mapping[str, Any]) -> None:
    """Write all files of a checkpoint, and bring them to the disk."""
    partial.mkdir()
    pytree_io.write(partial / STATE, state)
    write_json(partial / POSITION, dict(position))
    checksums.seal(partial)


def _publish(partial: Path, folder: Path, step: int) -> Path:
    """Give a checkpoint its name, at one blow, and bring the name to the disk."""
    times = max((times for other, times, _ in _found(folder) if other == step), default=0)
    names = (f"{step:08d}.{n}" if n > 1 else f"{step:08d}" for n in itertools.count(times + 1))
    path = next(folder / name for name in names if not os.path.lexists(folder / name))
    partial.rename(path)
    checksums.sync(folder)
    return path


def _prune(folder: Path, saved: Path, step: int, keep: int) -> None:
    """Of the checkpoints up to this step, remove all but the one just saved and the newest whole.

    Later ones stay: they were passed over as broken, and go when the run has got that far.
    """
    kept = {step: saved}
    for other, _, path in reversed(_found(folder)):
        if other > step or path == saved:
            continue
        if other not in kept and len(kept) < keep and not checksums.damage(path):
            kept[other] = path
            continue
        hidden = _partial(folder, path.name)  # half of a checkpoint must not look like one
        with contextlib.suppress(OSError):  # the next save tries again
            shutil.rmtree(path.rename(hidden))


def _what_is_left(folder: Path) -> str:
    """What to say of the other checkpoints when one cannot be saved."""
    with contextlib.suppress(OSError):
        for step, _, path in reversed(_found(folder)):
            if not checksums.damage(path):
                return f"the checkpoint of step {step} is still good"
    return "there is no earlier one"
