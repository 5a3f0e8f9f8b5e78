"""Train a run again, in memory, and compare it with what is on disk."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrnn.runs import (
    checkpoints,
    compilation_cache,
    config_json,
    initialization,
    joint_run,
    metrics,
    run_directory,
    run_metadata,
    sweep_results,
)
from jaxrnn.runs.callbacks import ProgressBar
from jaxrnn.runs.runner import require_same_metrics
from jaxrnn.training.calls import train_in_memory
from jaxrnn.training.history import History
from jaxrnn.training.loop import TrainLoop
from jaxrnn.training.mesh import use_all_cpus
from jaxrnn.training.run_state import RunState

TOLERANCE = 1e-3
"""Largest allowed difference on another machine, relative to the metric's largest value in the run:
machines round differently, and training amplifies rounding."""


class Verdict(NamedTuple):
    """The outcome of a verification."""

    text: str  # a line or more, to print
    holds: bool
    bitwise: bool = False  # no bit differs


class MetricDifference(NamedTuple):
    """One logged number that came out differently."""

    step: int
    seed: int
    name: str
    was: float
    now: float
    size: float  # relative to the largest value of this metric in the run

    def __str__(self) -> str:
        """Describe it in one phrase."""
        return (
            f"step {self.step}, seed {self.seed}: {self.name} was {self.was!r}, is {self.now!r}"
            f" ({self.size:.2g} of its largest value)"
        )


def verify(run_dir: Path | str, label: str = "") -> Verdict:
    """Train a run again from step 0 and say whether it comes out the same.

    On the machine and versions that made it, the metrics, the parameters and the optimizer's state
    must be bitwise equal; elsewhere each logged number must be within `TOLERANCE`. A run that a
    sweep trained together with others is trained together with them again.

    Args:
      run_dir: a run that finished or was interrupted, or a sweep that has finished.
      label: what is trained, shown in the progress of a run.

    Raises:
      RunError: if its files are damaged, or something they name is missing.
      OSError: if there is no run, another process works on it, or no checkpoint is intact.
    """
    run_dir = Path(run_dir)
    use_all_cpus()
    compilation_cache.enable()
    if sweep_results.is_sweep(run_dir):
        return _verify_sweep(run_dir)
    return _verify_run(run_dir, {}, label)


Programs = dict[str, list[RunState]]
"""The runs of programs that were trained again, by the program's experiments as JSON."""


def _verify_sweep(folder: Path) -> Verdict:
    """Verify all runs of a sweep; what was trained in one program is trained again only once."""
    verdicts, programs = [], Programs()
    for run_dir in sweep_results.read(folder)["runs"]:
        if not joint_run.has_ended(run_dir):
            text = f"{run_dir} has not ended: resume the sweep first."
            verdicts.append(Verdict(text, False))
            continue
        found = _verify_run(run_dir, programs)
        verdicts.append(found._replace(text=f"{run_dir.name}: {found.text}"))
    text = "\n".join(each.text for each in verdicts)
    holds, bitwise = (
        all(getattr(each, name) for each in verdicts) for name in ("holds", "bitwise")
    )
    return Verdict(text, holds, bitwise)


def _verify_run(run_dir: Path, programs: Programs, label: str = "") -> Verdict:
    """Verify one run; add the program that it was trained in, if with others, to `programs`."""
    run_directory.require_idle(run_dir)
    config = run_metadata.load_config(run_dir)
    run_metadata.check_data(run_dir)
    loop = TrainLoop(config)
    saved = checkpoints.restore(run_dir / run_directory.CHECKPOINTS, loop.blank)
    until = saved.position["next_step"] if saved else 0
    if saved is None or not until:
        return Verdict(f"{run_dir} has no saved step yet, so there is nothing to verify.", False)
    logged = metrics.read(run_dir / run_directory.METRICS, before=until)
    require_same_metrics(run_dir, logged, loop)
    source = run_metadata.load(run_dir).get("init_from")
    if program := joint_run.program_of(run_dir):
        joint, number = program
        name = json.dumps(config_json.to_json(joint), sort_keys=True)
        if name not in programs:
            first, _ = initialization.initial_state(TrainLoop(joint), source)
            programs[name] = joint_run.train_in_memory(joint, first)
        again = programs[name][number]
    else:
        with ProgressBar(config, label=label) as progress:
            first, _ = initialization.initial_state(loop, source)
            again = train_in_memory(config, until, progress.after_call, first)
    history = again.history
    before = history.steps < until
    values = {name: rows[:, before] for name, rows in history.values.items()}
    history = History(history.seeds, history.steps[before], values)
    if not all(map(np.array_equal, logged[:2], history[:2])):
        file = run_dir / run_directory.METRICS
        return Verdict(f"{file} lacks lines of steps that were logged.", False)
    found = metric_differences(logged, history)
    leaves = unequal_leaves(saved.state, again.state)
    steps = len(history.steps)
    return _judge(run_metadata.differences(run_dir), found, leaves, steps, config.seeds)


def metric_differences(logged: History, again: History) -> list[MetricDifference]:
    """Return every number that is not bitwise equal, in order of steps and seeds."""
    found = []
    for name, was in logged.values.items():
        now = again.values[name].astype(np.float64)
        was = was.astype(np.float64)
        same = (was == now) | (np.isnan(was) & np.isnan(now))  # [S, R, ...]
        largest = np.max(np.abs(was), initial=0.0, where=np.isfinite(was)) or 1.0
        for s, r, *rest in np.argwhere(~same):
            index = (s, r, *rest)
            size = float(abs(was[index] - now[index]) / largest)
            step, seed = int(logged.steps[r]), int(logged.seeds[s])
            values = float(was[index]), float(now[index])
            found.append(MetricDifference(step, seed, name, *values, size))
    return sorted(found, key=lambda each: (each.step, each.seed))


def unequal_leaves(saved: Any, again: Any) -> list[str]:
    """Return the names of the arrays that are not bitwise equal."""
    return [
        jax.tree_util.keystr(path)
        for (path, was), now in zip(
            jax.tree.leaves_with_path(saved), jax.tree.leaves(again), strict=True
        )
        if np.asarray(was).tobytes() != np.asarray(now).tobytes()
    ]


def _judge(
    environment: list[str],
    found: list[MetricDifference],
    leaves: list[str],
    steps: int,
    seeds: int,
) -> Verdict:
    what = f"{steps} logged steps of {seeds} seed{'s' if seeds > 1 else ''}"
    changes = [f"The environment differs: {difference}." for difference in environment]
    if not found and not leaves:
        equal = f"Bitwise equal: {what}, the parameters and the optimizer's state."
        return Verdict("\n".join([*changes, equal]), holds=True, bitwise=True)
    if not environment:
        if found:
            return Verdict(f"Differs, first at {found[0]}.", False)
        return Verdict(f"The metrics are equal, but the last state differs, in {leaves[0]}.", False)
    beyond = [each for each in found if not each.size <= TOLERANCE]
    limit = f"{TOLERANCE:g} of each metric's largest value"
    if beyond:
        return Verdict("\n".join([*changes, f"Beyond {limit}, first at {beyond[0]}."]), False)
    worst = max(found, key=lambda each: each.size, default=None)
    most = f"; the largest difference is at {worst}" if worst else "; only the last state differs"
    return Verdict("\n".join([*changes, f"Within {limit}: {what}{most}."]), True)
