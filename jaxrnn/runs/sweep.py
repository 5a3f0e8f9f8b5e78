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
import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxrnn.choices import suggest
from jaxrnn.errors import DivergedError, RunError, SettingError
from jaxrnn.runs import (
    compilation_cache,
    config_json,
    import_paths,
    joint_run,
    run_directory,
    run_metadata,
    runner,
)
from jaxrnn.runs.files import write_json
from jaxrnn.runs.progress import note
from jaxrnn.runs.sweep_results import (
    SWEEP,
    Settings,
    SweepResult,
    label,
    outcome,
    read,
    write_results,
)
from jaxrnn.training import processes
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.joint import JointConfig, fixed_parts, join_experiments, put
from jaxrnn.training.loop import TrainLoop
from jaxrnn.training.mesh import use_all_cpus

LONGEST_NAME = 150

Make = Callable[..., ExperimentConfig]


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
      vmap_size: how many networks a program trains in one `vmap`, at most; None takes the
        experiment's if it has several seeds, or the fastest size, which is measured.
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
    _require_one_process()
    if vmap_size is not None and vmap_size < 1:
        raise SettingError("vmap size must be at least 1")
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
    _require_one_process()
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
    write_results(result)
    if result.best is None:
        raise DivergedError(f"the loss of every network of the sweep in {folder} is not finite")
    return result


def _require_one_process() -> None:
    if processes.are_several():
        processes.end_together()
        raise SettingError("a sweep is trained by one process; start it without --coordinator")


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
        close = suggest(name, _settings(experiment, parts)) if not found else ""
        raise SettingError(
            f"{name} is a setting of {where}: give its path, such as train.{name}{close}"
        )
    return f"{found[0]}.{name}"


def _settings(experiment: ExperimentConfig, parts: Sequence[str]) -> list[str]:
    """List the names of the fields of an experiment's parts."""
    fields = (dataclasses.fields(getattr(experiment, part)) for part in parts)
    return [field.name for each in fields for field in each]


def _require_different(labels: list[str], written: list[Any]) -> None:
    seen: dict[str, str] = {}
    for name, experiment in zip(labels, written, strict=True):
        made = {part: value for part, value in experiment.items() if part != "options"}
        same = seen.setdefault(json.dumps(made, sort_keys=True), name)
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
        layout = layout and min(layout, first.seeds * len(experiments))
        joint = join_experiments(experiments, layout)
        assert isinstance(joint, JointConfig)
        joint_run.train(joint, folder, run_dirs, progress_label)
        return
    [config], [run_dir] = experiments, run_dirs
    if joint_run.has_ended(run_dir):
        return
    if vmap_size is not None:
        config = replace(config, vmap_size=min(vmap_size, config.seeds))
    with contextlib.suppress(DivergedError):
        if (run_dir / run_directory.CONFIG).exists():
            runner.resume(run_dir, label=progress_label)
        else:
            runner.run(config, run_dir=run_dir, label=progress_label)
