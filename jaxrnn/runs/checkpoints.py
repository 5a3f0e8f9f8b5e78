"""Checkpoints that survive kills, full disks and flipped bits.

A checkpoint is a directory, named after the number of updates made so far:

    00000050/
      state/         the arrays, in Orbax's format
      position.json  the next step, and the seconds trained so far
      SHA256SUMS     checksums of the files above; check by hand with `sha256sum -c SHA256SUMS`

It is written to a hidden directory, synced, and then renamed. A kill can leave a hidden directory,
which the next save removes, but never half a checkpoint. Saving a step a second time, after a
resume that skipped a damaged checkpoint, creates `00000050.2` before the old one is removed, so at
every moment one of the two exists. docs/decisions.md compares this with Orbax's CheckpointManager.
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
from jaxrnn.runs.files import read_json, rename_durably, sync, write_json

STATE = "state"
POSITION = "position.json"
_NAME = re.compile(
    r"([0-9]{8}|[1-9][0-9]{8,})(?:\.([0-9]+))?"
)  # step, and how often it has been saved
_PARTIAL = re.compile(r"\.[0-9]{8,}.*\.partial")


class CheckpointError(OSError):
    """A checkpoint cannot be saved, or all are damaged. The message is one line."""


class Restored(NamedTuple):
    """A checkpoint that was read."""

    step: int  # updates made so far
    state: Any  # the pytree of arrays
    position: dict[str, Any]  # as passed to `save`
    path: Path  # the checkpoint's directory
    damaged: list[tuple[Path, str]]  # newer ones that were skipped, and why


def save(folder: Path, step: int, state: Any, position: Mapping[str, Any], keep: int = 2) -> Path:
    """Save a checkpoint. It is on the disk when this returns.

    Args:
      folder: the directory of a run's checkpoints, created if missing. Only one process may save
        in it at a time.
      step: updates made so far.
      state: a pytree of JAX or NumPy arrays.
      position: JSON values.
      keep: how many undamaged checkpoints to keep, up to this step; at least 1.

    Returns:
      the checkpoint's directory.

    Raises:
      CheckpointError: if it cannot be written; earlier checkpoints are unchanged.
      TypeError: if a leaf of `state` is not an array or holds PRNG keys, or `position` is not JSON.
      ValueError: if `keep` is less than 1, or a number in `position` is not finite.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, not {keep}")
    partial = _partial(folder, f"{step:08d}")
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True)
            sync(folder.parent)
        _clear(folder)
        _write(partial, state, position)
        path = _publish(partial, folder, step)
    except BaseException as error:
        for _ in range(5):  # Orbax's threads may still be writing, and create it again
            shutil.rmtree(partial, ignore_errors=True)
            time.sleep(0.02)
        reason = pytree_io.os_error_text(error)
        if reason is None:
            raise
        raise CheckpointError(
            f"cannot save a checkpoint in {folder}: {reason}; {_describe_newest(folder)}"
        ) from error
    _prune(folder, path, step, keep)
    return path


def restore(folder: Path, like: Any, partial: bool = False) -> Restored | None:
    """Read the newest undamaged checkpoint: one whose files all match their checksums.

    Args:
      folder: the directory of a run's checkpoints.
      like: a pytree of arrays or `jax.ShapeDtypeStruct` with the saved structure.
      partial: whether the checkpoint may hold arrays that are not in `like`; they are ignored.

    Returns:
      the saved bits, as NumPy arrays (JAX arrays where `like` names devices: see
      `pytree_io.read`); None if there is no checkpoint.

    Raises:
      CheckpointError: if there are checkpoints but all are damaged.
      RunError: if the saved arrays' names, shapes or dtypes differ from those of `like`.
    """
    damaged: list[tuple[Path, str]] = []
    for step, _, path in reversed(_found(folder)):
        if damage := checksums.damage(path):
            damaged.append((path, damage))
            continue
        state, position = pytree_io.read(path / STATE, like, partial), read_json(path / POSITION)
        return Restored(step, state, position, path, damaged)
    if damaged:
        reasons = "; ".join(reason for _, reason in damaged)
        raise CheckpointError(
            f"all checkpoints are damaged: {reasons}; start again in a new directory"
        )
    return None


def steps(folder: Path) -> list[int]:
    """List the steps with a checkpoint, ascending. Checksums are not verified."""
    return sorted({step for step, _, path in _found(folder) if (path / checksums.SUMS).is_file()})


def _found(folder: Path) -> list[tuple[int, int, Path]]:
    """Find checkpoints: (step, how often saved, directory), oldest first."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if (match := _NAME.fullmatch(path.name)) and path.is_dir() and not path.is_symlink():
            found.append((int(match[1]), int(match[2] or 1), path))
    return sorted(found)


def _partial(folder: Path, name: str) -> Path:
    """Choose an unused hidden name, which is never read as a checkpoint."""
    return folder / f".{name}.{secrets.token_hex(4)}.partial"


def _clear(folder: Path) -> None:
    """Remove hidden directories that earlier kills left behind."""
    for path in folder.iterdir():
        if _PARTIAL.fullmatch(path.name) and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def _write(partial: Path, state: Any, position: Mapping[str, Any]) -> None:
    """Write all files of a checkpoint and sync them."""
    partial.mkdir()
    pytree_io.write(partial / STATE, state)
    write_json(partial / POSITION, dict(position))
    checksums.seal(partial)


def _publish(partial: Path, folder: Path, step: int) -> Path:
    """Rename a checkpoint to its final name, atomically, and sync the name."""
    times = max((times for other, times, _ in _found(folder) if other == step), default=0)
    names = (f"{step:08d}.{n}" if n > 1 else f"{step:08d}" for n in itertools.count(times + 1))
    path = next(folder / name for name in names if not os.path.lexists(folder / name))
    rename_durably(partial, path)
    return path


def _prune(folder: Path, saved: Path, step: int, keep: int) -> None:
    """Keep the checkpoint just saved and the newest undamaged ones before it; remove the others.

    Checkpoints of later steps were skipped as damaged; they stay until the run reaches them.
    """
    kept = {step: saved}
    for other, _, path in reversed(_found(folder)):
        if other > step or path == saved:
            continue
        if other not in kept and len(kept) < keep and not checksums.damage(path):
            kept[other] = path
            continue
        hidden = _partial(folder, path.name)  # a half-removed checkpoint must not look like one
        with contextlib.suppress(OSError):  # the next save tries again
            shutil.rmtree(path.rename(hidden))


def _describe_newest(folder: Path) -> str:
    """Say in a few words which checkpoint can still be used."""
    with contextlib.suppress(OSError):
        for step, _, path in reversed(_found(folder)):
            if not checksums.damage(path):
                return f"the checkpoint of step {step} is still good"
    return "there is no earlier checkpoint"
