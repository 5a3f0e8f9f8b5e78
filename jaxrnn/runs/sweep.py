"""Train an experiment with several values of its settings, in all combinations.

A sweep has a directory, with a run directory for each combination:

    sweep.json               the combinations, from which the sweep is resumed
    learning_rate=0.001/     a run, on which all commands work
    programs/1/              what training several runs in one program needs: see `joint_run`
    results.json, .csv       a row for each combination

Combinations that differ only in numbers such as the learning rate are trained in one program; each
of the others has a program of its own.
"""

import contextlib
import csv
import io
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxrnn import atomic
from jaxrnn.errors import DivergedError, RunError, SettingError
from jaxrnn.runs import (
    compilation_cache,
    config_json,
    import_paths,
    joint_run,
    metrics,
    run_directory,
    run_metadata,
    runner,
)
from jaxrnn.runs.files import read_json, write_json
from jaxrnn.runs.progress import note
from jaxrnn.training import processes
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.history import last_rows
from jaxrnn.training.joint import JointConfig, fixed_parts, join_experiments, put
from jaxrnn.training.loop import TrainLoop
from jaxrnn.training.mesh import use_all_cpus
from jaxrnn.training.validation import LOSS

SWEEP = "sweep.json"
RESULTS = "results.json"
TABLE = "results.csv"
LONGEST_NAME = 150

Make = Callable[..., ExperimentConfig]
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


def sweep(
    experiment: ExperimentConfig | Make,
    settings: Mapping[str, Sequence[Any]],
    *,
    vmap_size: int | None = None,
    run_dir: Path | str | None = None,
    name: str | None = None,
) -> SweepResult:
    """Train all combinations of some settings, each with all seeds of the experiment.

    Args:
      experiment: the experiment, or a function of the settings that returns one.
      settings: the values of each setting. With an `ExperimentConfig`, a name is a field of its
        training or task, such as "learning_rate", or a path, such as "model.recurrent.dropout".
      vmap_size: how many networks a program trains in one `vmap`; None takes the experiment's if
        it has several seeds, or the fastest size, which is measured.
      run_dir: a new or empty directory; None for the next number in `runs/<name>`.
      name: None for the task's name.

    Returns:
      the outcome of each combination, and the best one.

    Raises:
      SettingError: if a setting is unknown or out of range, or two combinations are the same.
      RunError, OSError, MemoryError, KeyboardInterrupt, SystemExit: as `run`.
      DivergedError: if every seed of every combination diverged.

    >>> import tempfile
    >>> from jaxrnn import Adding, ElmanCell, ExperimentConfig, Recurrent
    >>> from jaxrnn import SequenceModel, TrainConfig, resume_sweep, sweep
    >>> model = SequenceModel(Recurrent(ElmanCell(4)), output_size=1)
    >>> config = ExperimentConfig(Adding(5, batch_size=2), model, TrainConfig(steps=3), seeds=2)
    >>> folder = tempfile.mkdtemp() + "/sweep"
    >>> found = sweep(config, {"learning_rate": [1e-3, 0.1]}, vmap_size=4, run_dir=folder)
    >>> [each.run_dir.name for each in found.combinations]
    ['learning_rate=0.001', 'learning_rate=0.1']
    >>> found.best.losses.shape  # [S]
    (2,)
    >>> resume_sweep(folder).best.settings == found.best.settings  # already finished
    True
    """
    combinations = [
        dict(zip(settings, values, strict=True)) for values in itertools.product(*settings.values())
    ]
    experiments = [_make(experiment, each) for each in combinations]
    return train_all(combinations, experiments, vmap_size=vmap_size, run_dir=run_dir, name=name)


def train_all(
    combinations: Sequence[Settings],
    experiments: Sequence[ExperimentConfig],
    *,
    vmap_size: int | None = None,
    run_dir: Path | str | None = None,
    name: str | None = None,
) -> SweepResult:
    """Do what `sweep` does, for experiments that have been made, one for each combination."""
    if import_paths.loading_script():
        raise RunError('put what this script runs under `if __name__ == "__main__":`')
    if processes.are_several():
        raise SettingError("a sweep is trained by one process; start it without --coordinator")
    if not experiments:
        raise SettingError("a sweep needs at least one value of each setting")
    use_all_cpus()
    compilation_cache.enable()
    labels = [label(each) for each in combinations]
    written = [run_metadata.config_of(each) for each in experiments]
    _require_different(labels, [each["experiment"] for each in written])
    numbers = plan(experiments)
    name = name or runner.name_of(experiments[0].task)
    folder = run_directory.new_folder(name, None if run_dir is None else Path(run_dir))
    record = {
        "settings": [config_json.to_json(each) for each in combinations],
        "runs": _folder_names(labels),
        "programs": numbers,
        "vmap_size": vmap_size,
        "experiments": [each["experiment"] for each in written],
        "script": written[0]["script"],
    }
    write_json(folder / SWEEP, record)
    return resume_sweep(folder)


def resume_sweep(sweep_dir: Path | str) -> SweepResult:
    """Continue an interrupted sweep; what has been trained is not trained again.

    Args:
      sweep_dir: the sweep's directory.

    Returns:
      the outcome, as `sweep` does.

    Raises:
      RunError, OSError, MemoryError, KeyboardInterrupt, SystemExit, DivergedError: as `sweep`.
    """
    folder = Path(sweep_dir)
    use_all_cpus()
    compilation_cache.enable()
    record = read(folder)
    experiments, run_dirs = record["experiments"], record["runs"]
    try:
        for n, numbers in enumerate(record["programs"], 1):
            _train_program(
                [experiments[c] for c in numbers],
                [run_dirs[c] for c in numbers],
                folder / "programs" / str(n),
                record["vmap_size"],
                _progress_label(folder, record, numbers),
            )
    except (KeyboardInterrupt, SystemExit):
        note(f"resume the sweep with: {run_directory.resume_command(folder)}")
        raise
    result = outcome(folder)
    _write_results(result)
    if result.best is None:
        raise DivergedError(f"the loss of every network of the sweep in {folder} is not finite")
    return result


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


def plan(experiments: Sequence[ExperimentConfig]) -> list[list[int]]:
    """Return which experiments are trained in one program, by number.

    Raises:
      SettingError: if the parts of an experiment do not fit each other.
    """
    groups: dict[str, list[int]] = {}
    for c, experiment in enumerate(experiments):
        alike = run_metadata.config_of(fixed_parts(experiment))["experiment"]
        groups.setdefault(json.dumps(alike, sort_keys=True), []).append(c)
    programs = []
    for numbers in groups.values():
        if _fit_one_program([experiments[c] for c in numbers]):
            programs.append(numbers)
            continue
        for c in numbers:
            TrainLoop(experiments[c])  # raises now, not after hours of training others
            programs.append([c])
    return programs


def _fit_one_program(experiments: list[ExperimentConfig]) -> bool:
    joint = join_experiments(experiments, None)
    if joint is None:
        return False
    try:
        TrainLoop(joint)
    except Exception:  # of any kind: some optimizer needs a number that is not traced
        return False
    return True


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


def _make(experiment: ExperimentConfig | Make, settings: Settings) -> ExperimentConfig:
    if not isinstance(experiment, ExperimentConfig):
        return experiment(**settings)
    config: ExperimentConfig = experiment
    for name, value in settings.items():
        config = put(config, _path(config, name), value)
    return config


def _path(experiment: ExperimentConfig, name: str) -> str:
    """Return the path of a setting that is given by its field's name alone."""
    if "." in name:
        return name
    parts = "train", "task", "model"
    found = [part for part in parts if hasattr(getattr(experiment, part), name)]
    if len(found) != 1:
        where = " and ".join(found) or "none of the experiment's parts"
        raise SettingError(f"{name} is a setting of {where}: give its path, such as train.{name}")
    return f"{found[0]}.{name}"


def _require_different(labels: list[str], written: list[Any]) -> None:
    seen: dict[str, str] = {}
    for name, experiment in zip(labels, written, strict=True):
        same = seen.setdefault(json.dumps(experiment, sort_keys=True), name)
        if same is not name:
            raise SettingError(f"the settings {same} and {name} give the same experiment")


def _folder_names(labels: list[str]) -> list[str]:
    """Return a name for the directory of each combination: its label, or else its number."""
    names = [re.sub(r"[^\w.=,+-]", "-", each) for each in labels]
    long = max(map(len, names)) > LONGEST_NAME
    if long or len(set(names)) < len(names) or any(each.startswith(".") for each in names):
        return [f"{n:04d}" for n in range(1, len(names) + 1)]
    return names


def _progress_label(folder: Path, record: dict[str, Any], numbers: list[int]) -> str:
    count = len(record["runs"])
    if len(numbers) == 1:
        return f"{record['runs'][numbers[0]].name} ({numbers[0] + 1} of {count})"
    return f"{folder.name}, {len(numbers)} of {count} settings together"


def _train_program(
    experiments: list[ExperimentConfig],
    run_dirs: list[Path],
    folder: Path,
    vmap_size: int | None,
    progress_label: str,
) -> None:
    """Train or continue the runs of one program."""
    if len(experiments) > 1:
        first = experiments[0]
        layout = vmap_size or (first.vmap_size if first.seeds > 1 else None)
        joint = join_experiments(experiments, layout)
        assert isinstance(joint, JointConfig)
        joint_run.train(joint, folder, run_dirs, progress_label)
        return
    [config], [run_dir] = experiments, run_dirs
    if joint_run.has_ended(run_dir):
        return
    with contextlib.suppress(DivergedError):
        if (run_dir / run_directory.CONFIG).exists():
            runner.resume(run_dir, label=progress_label)
        else:
            runner.run(config, run_dir=run_dir, label=progress_label)


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


def _write_results(result: SweepResult) -> None:
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
