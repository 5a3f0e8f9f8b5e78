"""What a sweep has on disk: sweep.json, its runs, and the table of results."""

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxrnn import atomic
from jaxrnn.errors import RunError
from jaxrnn.runs import config_json, import_paths, metrics, run_directory, run_metadata
from jaxrnn.runs.files import read_json, write_json
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.history import last_rows
from jaxrnn.training.validation import LOSS

SWEEP = "sweep.json"
RESULTS = "results.json"
TABLE = "results.csv"

Settings = dict[str, Any]


@dataclass(frozen=True)
class Combination:
    """What became of one combination of settings."""

    settings: Settings  # by name
    run_dir: Path
    losses: np.ndarray  # [S]; NaN for a seed that diverged
    solved: np.ndarray | None  # [S] bool; None if the task cannot be solved
    mean: float  # over the seeds that did not diverge
    interval: tuple[float, float] | None  # 95%, Student's t; None with fewer than two seeds

    @property
    def diverged(self) -> int:
        """How many seeds have no finite loss."""
        return int(np.sum(~np.isfinite(self.losses)))


@dataclass(frozen=True)
class SweepResult:
    """The outcome of a sweep. `jaxrnn.analysis.sweep_table.summarize` makes a table of it."""

    sweep_dir: Path
    measure: str  # what `losses` are: "best validation loss" or "final training loss"
    combinations: tuple[Combination, ...]
    by_success: bool  # whether the share of solved seeds counts first: with `stop_when_solved`

    @property
    def best(self) -> Combination | None:
        """The lowest mean loss, of those with the fewest diverged seeds; None if all diverged."""

        def rank(each: Combination) -> tuple[float, ...]:
            solved = int(np.sum(each.solved)) if self.by_success and each.solved is not None else 0
            return each.diverged, -solved, each.mean

        there = [each for each in self.combinations if math.isfinite(each.mean)]
        return min(there, key=rank, default=None)


def is_sweep(path: Path | str) -> bool:
    """Whether a directory is that of a sweep."""
    return (Path(path) / SWEEP).is_file()


def read(sweep_dir: Path) -> dict[str, Any]:
    """Read sweep.json, with experiments and paths of runs.

    Raises:
      RunError: if it is damaged, or names something that no longer exists.
      OSError: if it cannot be read.
    """
    file = sweep_dir / SWEEP
    try:
        record = read_json(file)
        script = Path(record["script"]) if record["script"] else None
        for name in ("experiments", "settings"):
            parts = record[name]
            record[name] = [config_json.from_json(part, script, name) for part in parts]
        record["runs"] = [sweep_dir / run for run in record["runs"]]
        return record
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file}: {import_paths.first_line(error)}") from error


def outcome(sweep_dir: Path) -> SweepResult:
    """Read what became of a sweep's runs, all of which have ended."""
    record = read(sweep_dir)
    experiments = record["experiments"]
    validates = all(each.validates for each in experiments)
    combinations = tuple(
        _combination(settings, run_dir, config, validates)
        for settings, run_dir, config in zip(
            record["settings"], record["runs"], experiments, strict=True
        )
    )
    measure = "best validation loss" if validates else "final training loss"
    by_success = any(each.train.stop_when_solved for each in experiments)
    return SweepResult(sweep_dir, measure, combinations, by_success)


def label(settings: Settings, separator: str = ",") -> str:
    """Return a combination in one word.

    >>> label({"learning_rate": 0.001, "projection_size": None})
    'learning_rate=0.001,projection_size=None'
    """
    return separator.join(f"{name}={text(value)}" for name, value in settings.items())


def text(value: Any) -> str:
    """Return a setting's value as a word."""
    return getattr(value, "__name__", None) or str(value)


def write_results(result: SweepResult) -> None:
    """Write results.json and results.csv."""
    rows = list(_rows(result))
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic.write(result.sweep_dir / TABLE, table.getvalue().encode())
    best = None if result.best is None else result.best.run_dir.name
    record = {"measure": result.measure, "interval": "95%, Student's t", "best": best, "rows": rows}
    write_json(result.sweep_dir / RESULTS, record)


def _combination(
    settings: Settings, run_dir: Path, config: ExperimentConfig, validates: bool
) -> Combination:
    manifest = run_metadata.load(run_dir)
    history = metrics.read(run_dir / run_directory.METRICS)
    diverged, stopped, solved_at = (
        {int(seed): step for seed, step in manifest.get(name, {}).items()}
        for name in ("diverged", "stopped_early", "solved_at")
    )
    last = last_rows(history, {**stopped, **solved_at})
    losses = np.asarray(last["loss"], float)
    if validates:
        found = np.asarray(history.values[LOSS], float)
        losses = np.min(np.where(np.isfinite(found), found, np.inf), axis=1)
    losses = np.where(np.isin(history.seeds, list(diverged)), np.nan, losses)
    losses = np.where(np.isfinite(losses), losses, np.nan)
    if config.train.stop_when_solved:
        solved = np.isin(history.seeds, list(solved_at))
    else:
        solved = config.task.solved(last)
    finite = losses[np.isfinite(losses)]
    mean = float(finite.mean()) if finite.size else math.nan
    solved = None if solved is None else np.asarray(solved) & np.isfinite(losses)
    return Combination(settings, run_dir, losses, solved, mean, _interval(finite))


def _interval(values: np.ndarray) -> tuple[float, float] | None:
    """Return the 95% interval of the mean of some numbers, by Student's t."""
    if len(values) < 2:
        return None
    from scipy.stats import t  # takes longer to import than a small sweep

    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    half = float(t.ppf(0.975, len(values) - 1)) * error
    return float(values.mean()) - half, float(values.mean()) + half


def _rows(result: SweepResult) -> Iterator[dict[str, Any]]:
    for each in result.combinations:
        low, high = each.interval or (None, None)
        plain = (bool, int, float, str, type(None))
        yield {
            **{
                name: value if isinstance(value, plain) else text(value)
                for name, value in each.settings.items()
            },
            "mean": each.mean if math.isfinite(each.mean) else None,
            "low": low,
            "high": high,
            "seeds": len(each.losses),
            "diverged": each.diverged,
            "solved": None if each.solved is None else int(each.solved.sum()),
            "run": each.run_dir.name,
        }
