"""A run in progress: what has been measured, and which seeds are no longer trained."""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import numpy as np

from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.history import History, join, mask_diverged
from jaxrnn.training.step import TrainState
from jaxrnn.training.success import UNSOLVED
from jaxrnn.types import Metrics


@dataclass(frozen=True)
class RunState:
    """A run in progress: everything needed to continue it, and what it measured so far."""

    step: int  # the next step
    state: TrainState  # each leaf [S, ...]; before step 0 only the shapes matter
    seconds: float = 0.0  # of training
    histories: tuple[History, ...] = ()  # logged steps, one history per call
    diverged: dict[int, int] = field(default_factory=dict)  # seed -> step with a non-finite loss
    stopped: dict[int, int] = field(default_factory=dict)  # seed -> step of its early stop
    solved_at: dict[int, int] = field(default_factory=dict)  # seed -> step at which it stopped so
    is_over: bool = False  # all steps are done, or no seed is left to train

    @property
    def history(self) -> History:
        """All logged steps so far."""
        return join(self.histories)


class Call(NamedTuple):
    """What one call of the compiled loop did, to all networks."""

    state: TrainState  # on the devices
    progress: TrainState  # the few numbers that `seed_status` needs
    values: Metrics  # by name, [S, calls_up_to, ...]
    stop: int  # the step after the last one it took
    seconds: float  # it took

    def of(self, rows: slice) -> "Call":
        """The same of some of the networks, without their whole state."""
        progress, values = jax.tree.map(lambda leaf: leaf[rows], self[1:3])
        return Call(progress, progress, values, self.stop, self.seconds)


def after_call(config: ExperimentConfig, before: RunState, call: Call) -> RunState:
    """Return the run after a call that took the steps from `before.step` on."""
    start, stop, progress, values = before.step, call.stop, call.progress, call.values
    losses = np.asarray(values["loss"])
    status = seed_status(config, progress, stop, losses[:, stop - start - 1])
    nobody_left = status.is_all(config)
    updates = np.asarray(progress.step)  # [S]
    shown = updates.max() + 1 if nobody_left else stop  # later steps trained nothing
    logged = config.logged(np.arange(start, shown), status.last_success(config))
    order = ["loss", *sorted(values.keys() - {"loss", "grad_norm"}), "grad_norm"]
    rows = {name: np.asarray(values[name])[:, logged - start] for name in order}
    history = History(config.seed_numbers, logged, mask_diverged(rows, logged, updates))
    if nobody_left:
        stop = status.next_step
    return RunState(
        step=stop,
        state=call.state,
        seconds=before.seconds + call.seconds,
        histories=(*before.histories, history),
        diverged=status.diverged,
        stopped=status.stopped,
        solved_at=status.solved_at,
        is_over=nobody_left or stop > config.train.steps,
    )


class SeedStatus(NamedTuple):
    """The seeds that are no longer trained, each with the step at which it ended."""

    diverged: dict[int, int]  # its loss or gradient was not finite
    stopped: dict[int, int]  # out of patience
    solved_at: dict[int, int]  # it solved the task, with `stop_when_solved`

    def is_all(self, config: ExperimentConfig) -> bool:
        """Whether no seed is left to train."""
        return sum(map(len, self)) == config.seeds

    def last_success(self, config: ExperimentConfig) -> int | None:
        """Return the step of the success that ended the run; None if none did."""
        last = max(max(seeds.values(), default=-1) for seeds in self)
        ended = self.is_all(config) and last in self.solved_at.values()
        return last if ended else None

    @property
    def next_step(self) -> int:
        """The step to resume from when no seed is left.

        The step of a stop is complete; the step of a divergence would be tried again.
        """
        complete = [*self.stopped.values(), *self.solved_at.values()]
        return max([*self.diverged.values(), *(n + 1 for n in complete)])


def seed_status(
    config: ExperimentConfig, state: TrainState, step: int, loss: np.ndarray | None = None
) -> SeedStatus:
    """Return which seeds are no longer trained.

    Args:
      config: what is trained.
      state: its `step`, `best` and `solved_at`, leaves [S], when all steps before `step` are done.
      step: the next step, at most N+1.
      loss: [S], the last measured loss; only this tells whether step N diverged.
    """
    seeds, updates = config.seed_numbers, np.asarray(state.step)  # [S] each
    behind = updates < min(step, config.train.steps)
    solved = np.False_ if state.solved_at is None else np.asarray(state.solved_at) != UNSOLVED
    solved = np.broadcast_to(solved, updates.shape)
    early = behind & config.has_stopped(state) & ~solved
    broken = behind if loss is None else behind | ~np.isfinite(loss)

    def by_seed(which: np.ndarray) -> dict[int, int]:
        return dict(zip(seeds[which].tolist(), updates[which].tolist(), strict=True))

    return SeedStatus(by_seed(broken & ~early & ~solved), by_seed(early), by_seed(solved))


def progress_of(state: TrainState) -> TrainState:
    """Return the few numbers that `seed_status` needs."""
    best = None if state.best is None else state.best._replace(params=None)
    return TrainState(state.step, None, None, None, best, state.solved_at)
