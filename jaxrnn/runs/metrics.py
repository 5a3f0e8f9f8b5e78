"""metrics.jsonl: one JSON line per logged step and seed."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxrnn.errors import RunError
from jaxrnn.training.history import History

CLOCK = "clock"
"""The key of what differs between equal runs: the time of writing, and the seconds of training."""


def append(file: BinaryIO, history: History, clock: Mapping[str, Any]) -> None:
    """Write a line for each step and seed; numbers that are not finite become null."""
    columns = {name: values.tolist() for name, values in history.values.items()}
    lines = []
    for r, step in enumerate(history.steps.tolist()):
        for s, seed in enumerate(history.seeds.tolist()):
            row = {name: _null(column[s][r]) for name, column in columns.items()}
            lines.append(json.dumps({"step": step, "seed": seed, **row, CLOCK: clock}) + "\n")
    try:
        file.write("".join(lines).encode())
        file.flush()
    except OSError as error:
        error.filename = file.name  # a full-disk error does not name the file
        raise


def _null(value: Any) -> Any:
    if isinstance(value, list):
        return [_null(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read(path: Path, before: int | None = None) -> History:
    """Read a metrics.jsonl, without a last step that a kill left incomplete.

    Args:
      path: the file.
      before: leave out this step and all later ones.

    Raises:
      RunError: if a line is damaged, or a line for a step and seed is missing or out of order.
      OSError: if the file cannot be read.
    """
    rows = _rows(path, before)
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    rows = rows[: len(rows) - len(rows) % max(len(seeds), 1)]
    steps = [row["step"] for row in rows[:: len(seeds) or 1]]
    if [(row["step"], row["seed"]) for row in rows] != [(n, s) for n in steps for s in seeds]:
        raise RunError(f"{path} lacks a line for some step and seed, or its lines are out of order")
    names = [name for name in rows[0] if name not in ("step", "seed", CLOCK)] if rows else []
    values = {name: _array([row[name] for row in rows], len(seeds)) for name in names}
    return History(np.array(seeds, np.int64), np.array(steps, np.int64), values)


def truncate(path: Path, before: int) -> None:
    """Remove the lines of a step and all later ones from a metrics.jsonl.

    A resumed run measures the steps after its last checkpoint again.
    """
    with path.open("r+b") as file:
        for line in file:
            if not line.endswith(b"\n") or json.loads(line)["step"] >= before:
                file.seek(-len(line), 1)
                file.truncate()
                return


def _rows(path: Path, before: int | None) -> list[dict[str, Any]]:
    rows = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
                step, _, _ = row["step"], row["seed"], row["loss"]
            except (ValueError, KeyError, TypeError):
                raise RunError(f"{path}, line {number}, does not contain metrics") from None
            if before is not None and step >= before:
                break
            if rows and row.keys() != rows[0].keys():
                raise RunError(f"{path}, line {number}, has other metrics than the first line")
            rows.append(row)
    return rows


def _array(column: Sequence[Any], seeds: int) -> np.ndarray:
    """Convert a column of rows to an array [S, R, ...]; null becomes NaN."""
    array = np.array([_nan(value) for value in column])
    return np.moveaxis(array.reshape(-1, seeds, *array.shape[1:]), 0, 1)


def _nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_nan(part) for part in value]
    return math.nan if value is None else value
