"""The runs below a folder, and what each one is and became, from its files alone.

Nothing that a run names is imported, so runs of scripts that have changed, or are gone, are listed
like any other.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxrnn.errors import RunError
from jaxrnn.runs import run_directory, run_metadata
from jaxrnn.runs.files import read_json
from jaxrnn.runs.sweep_results import SWEEP
from jaxrnn.tasks import TASKS

RUN_FILES = (run_directory.CONFIG, run_directory.MANIFEST, run_directory.METRICS)
PROGRAMS = "programs"  # of a sweep: what its programs need, and no runs
NOT_A_RUN = "not a run"
LOSS = re.compile(rb'"loss": (-?[\d.eE+-]+)')
VALIDATION_LOSS = re.compile(rb'"validation_loss": (-?[\d.eE+-]+)')
STEP_AND_SEED = re.compile(rb'\{"step": (\d+), "seed": (\d+),')


class Entry(NamedTuple):
    """A folder in the catalogue: a run, or why it cannot be read as one."""

    path: Path
    problem: str = ""  # the other fields are empty if there is one
    task: str = ""  # its name in `TASKS`, or one like "first_symbol"
    cell: str = ""  # as in "LSTM 2x128"
    seeds: int = 0
    status: str = ""  # running, killed, interrupted, finished or diverged
    diverged: int = 0  # how many seeds
    step: int = 0  # the last one that was logged
    steps: int = 0  # wanted
    best: float = math.nan  # the lowest loss of all seeds: in validation, or else the final one
    is_validated: bool = False  # whether `best` is a validation loss


def find(folder: Path) -> Iterator[Entry]:
    """Describe the runs in a folder and the folders below it, in the order of their names.

    A folder without any run in it or below it is an entry with a problem.

    Raises:
      FileNotFoundError: if there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    return _find(folder, set(), is_top=True)


def describe(run_dir: Path) -> Entry:
    """Describe one run. Never raises: what is wrong with its files is the entry's problem."""
    try:
        for name in RUN_FILES:
            if not (run_dir / name).is_file():
                return Entry(run_dir, f"damaged: it has no {name}")
        experiment = read_json(run_dir / run_directory.CONFIG)["experiment"]
        manifest = run_metadata.load(run_dir)
        step, best, is_validated = _losses(run_dir / run_directory.METRICS)
        return Entry(
            run_dir,
            task=task_name(experiment["task"]["type"]),
            cell=cells(experiment["model"]),
            seeds=int(experiment["seeds"]),
            status=run_metadata.status(run_dir),
            diverged=len(manifest.get("diverged", ())),
            step=step,
            steps=int(experiment["train"]["steps"]),
            best=best,
            is_validated=is_validated,
        )
    except (OSError, RunError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else str(error)
        return Entry(run_dir, f"damaged: {said}")


def task_name(kind: str) -> str:
    """Return a task's name in `TASKS`, or else one made from its class's.

    >>> task_name("jaxrnn.tasks.mnist1d:MNIST1D"), task_name("__main__:FirstSymbol")
    ('mnist1d', 'first_symbol')
    """
    for name, task in TASKS.items():
        if kind == f"{task.__module__}:{getattr(task, '__qualname__', '')}":
            return name
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", kind.rpartition(":")[2]).lower()


def cells(model: Any) -> str:
    """Return the cells of a model as in config.json, and how many layers of which size.

    >>> lstm = {"cell": {"type": "jaxrnn.cells.lstm:LSTMCell", "features": 128}}
    >>> cells({"recurrent": {"layers": [lstm, lstm]}})
    'LSTM 2x128'
    """
    counts: dict[tuple[str, Any], int] = {}
    for each in _cells(model, ""):
        counts[each] = counts.get(each, 0) + 1
    sizes = {each: f"{count}x{each[1]}" if count > 1 else each[1] for each, count in counts.items()}
    return " + ".join(f"{name} {sizes[name, size]}" for name, size in counts)


def _cells(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the name and the size of each layer's cell."""
    if isinstance(value, list):
        for part in value:
            yield from _cells(part, prefix)
    if not isinstance(value, dict):
        return
    if isinstance(cell := value.get("cell"), dict) and "type" in cell:
        name = cell["type"].rpartition(":")[2].removesuffix("Cell")
        yield prefix + name, cell.get("features", "?")
        return
    if "forward" in value and "backward" in value:
        yield from _cells(value["forward"], "Bi")
        return
    for part in value.values():
        yield from _cells(part, prefix)


def _find(folder: Path, seen: set[Path], is_top: bool = False) -> Iterator[Entry]:
    real = folder.resolve()
    if real in seen:  # a link to a folder above
        return
    seen.add(real)
    try:
        if any((folder / name).is_file() for name in RUN_FILES):
            yield describe(folder)
            return
        below = sorted(each for each in folder.iterdir() if each.is_dir() and each.name[0] != ".")
        is_empty, is_sweep = not any(folder.iterdir()), (folder / SWEEP).is_file()
        wanted = [folder / name for name in read_json(folder / SWEEP)["runs"]] if is_sweep else []
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        yield Entry(folder, f"cannot be read: {reason}")
        return
    if is_sweep:
        below = [each for each in below if each.name != PROGRAMS]
    found = [entry for each in below for entry in _find(each, seen)]
    found += [Entry(each, "not started") for each in wanted if each not in below]
    if is_empty or any(entry.problem != NOT_A_RUN for entry in found) or is_top:
        yield from found
    else:
        yield Entry(folder, NOT_A_RUN)


def _losses(file: Path) -> tuple[int, float, bool]:
    """Read the last step of a metrics.jsonl, the lowest loss, and whether that is of validation.

    A run may have a million lines, so that each is searched, not parsed as JSON.
    """
    last: dict[bytes, float] = {}
    step, lowest, is_validated = 0, math.inf, False
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):  # a kill left it incomplete
                break
            if not (found := STEP_AND_SEED.match(line)):
                raise RunError(f"{file}, line {number}, does not contain metrics")
            step = int(found[1])
            if loss := LOSS.search(line):
                last[found[2]] = float(loss[1])
            is_validated = is_validated or b'"validation_loss"' in line
            if loss := VALIDATION_LOSS.search(line):
                lowest = min(lowest, float(loss[1]))
    best = lowest if is_validated else min(last.values(), default=math.inf)
    return step, best if math.isfinite(best) else math.nan, is_validated
