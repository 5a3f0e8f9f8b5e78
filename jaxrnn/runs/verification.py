"""Train a finished or broken-off run again, in memory, and compare it with what is on disk."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrnn.runs import runner
from jaxrnn.runs import checkpoints, metrics, run_metadata, run_directory
from jaxrnn.training.history import History
from jaxrnn.training.loop import make_program
from jaxrnn.training.loop import replay
from jaxrnn.runs import compilation_cache

TOLERANCE = 1e-3
"""Elsewhere: how far a number may be off, relative to the largest of its metric in the run. Other
machines round otherwise, and training lets roundings grow."""


class Verdict(NamedTuple):
    """What came of a comparison."""

    text: str
    holds: bool


class Difference(NamedTuple):
    """One number of the metrics that came out otherwise."""

    step: int
    seed: int
    name: str
    was: float
    now: float
    size: float  # relative to the largest of this metric in the run

    def __str__(self) -> str:
        return (
            f"step {self.step}, seed {self.seed}: {self.name} was {self.was!r}, is {self.now!r}"
            f" (off by {self.size:.2g} of its largest)"
        )


def verify(run_dir: Path | str) -> Verdict:
    """Whether a run comes out the same again.

    On the machine and versions that made it, metrics, parameters and optimiser state must be
    bitwise equal; on others, each number of the metrics within `TOLERANCE`.

    Raises:
      RunError: if its files are damaged, or what they name is not there any more.
      OSError: if there is no run, another process works on it, or no checkpoint is whole.
    """
    run_dir = Path(run_dir)
    compilation_cache.enable()
    run_directory.require_idle(run_dir)
    study = run_metadata.load_config(run_dir)
    run_metadata.check_data(run_dir)
    program = make_program(study)
    saved = checkpoints.restore(run_dir / run_directory.CHECKPOINTS, program.blank)
    until = saved.position["next_step"] if saved else 0
    if saved is None or not until:
        return Verdict(f"{run_dir} has no step saved yet, so there is nothing to verify.", False)
    recorded = metrics.read(run_dir / run_directory.METRICS, before=until)
    runner.require_fit(run_dir, recorded, program)
    state, again = replay(study, until)
    if not all(map(np.array_equal, recorded[:2], again[:2])):
        return Verdict(f"{run_dir / run_directory.METRICS} lacks lines of steps that were logged.", False)
    found = differences(recorded, again)
    leaves = unequal_leaves(saved.state, state)
    return _judge(run_metadata.differences(run_dir), found, leaves, len(again.steps), study.seeds)


def differences(recorded: History, again: History) -> list[Difference]:
    """Each number that is not the same, to the bit, in order of steps and seeds."""
    found = []
    for name, was in recorded.values.items():
        now = again.values[name].astype(np.float64)
        was = was.astype(np.float64)
        same = (was == now) | (np.isnan(was) & np.isnan(now))  # [S, R, ...]
        largest = np.max(np.abs(was), initial=0.0, where=np.isfinite(was)) or 1.0
        for s, r, *rest in np.argwhere(~same):
            place = (s, r, *rest)
            size = float(abs(was[place] - now[place]) / largest)
            step, seed = int(recorded.steps[r]), int(recorded.seeds[s])
            found.append(Difference(step, seed, name, float(was[place]), float(now[place]), size))
    return sorted(found, key=lambda each: (each.step, each.seed))


def unequal_leaves(saved: Any, again: Any) -> list[str]:
    """The names of the arrays that are not the same, to the bit."""
    return [
        jax.tree_util.keystr(path)
        for (path, was), now in zip(
            jax.tree.leaves_with_path(saved), jax.tree.leaves(again), strict=True
        )
        if np.asarray(was).tobytes() != np.asarray(now).tobytes()
    ]


def _judge(
    elsewhere: list[str], found: list[Difference], leaves: list[str], steps: int, seeds: int
) -> Verdict:
    what = f"{steps} logged steps of {seeds} seed{'s' if seeds > 1 else ''}"
    where = [f"Not as it was made: {difference}." for difference in elsewhere]
    if not found and not leaves:
        equal = f"Bitwise equal: {what}, the parameters and the optimiser's state."
        return Verdict("\n".join([*where, equal]), True)
    if not elsewhere:
        if found:
            return Verdict(f"Differs, first at {found[0]}.", False)
        return Verdict(f"The metrics are equal, but the last state differs, in {leaves[0]}.", False)
    beyond = [each for each in found if not each.size <= TOLERANCE]
    limit = f"{TOLERANCE:g} of each metric's largest value"
    if beyond:
        return Verdict("\n".join([*where, f"Beyond {limit}, first at {beyond[0]}."]), False)
    worst = max(found, key=lambda each: each.size, default=None)
    most = f"; furthest off at {worst}" if worst else "; only the last state is not the same"
    return Verdict("\n".join([*where, f"Within {limit}: {what}{most}."]), True)
