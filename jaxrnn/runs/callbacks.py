"""The outputs of a run in progress: metrics, events, a progress bar, checkpoints.

The runner opens its callbacks as context managers and calls `after_call` on each, in order, after
every call of the compiled loop. A user's own callbacks come last.
"""

import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

from jaxrnn.runs import checkpoints, files, metrics, run_directory, signals
from jaxrnn.runs.progress import Progress
from jaxrnn.runs.provenance import utc_now
from jaxrnn.runs.tensorboard import Events
from jaxrnn.runs.tracking import Tracker
from jaxrnn.training import processes
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.history import last_loss, last_measured
from jaxrnn.training.mesh import to_host
from jaxrnn.training.run_state import RunState
from jaxrnn.training.step import TrainState


class Callback:
    """Base class: does nothing."""

    def __enter__(self) -> Self:
        """Start, before the first call."""
        return self

    def __exit__(self, *error: object) -> None:
        """Clean up, however training ended."""

    def after_call(self, run_state: RunState) -> None:
        """Receive the run after a call; `run_state.histories[-1]` is what that call logged.

        The arrays of `run_state.state` are only valid until this returns.
        """


class MetricsWriter(Callback):
    """Appends the logged steps to metrics.jsonl."""

    def __init__(self, file: BinaryIO):
        self._file = file

    def after_call(self, run_state: RunState) -> None:
        """Write the lines of this call."""
        clock = {"utc": utc_now(), "seconds": round(run_state.seconds, 6)}
        metrics.append(self._file, run_state.histories[-1], clock)


class EventsWriter(Callback):
    """Writes the logged steps as TensorBoard events, or to an experiment tracker."""

    def __init__(self, open_events: Callable[[], Events | Tracker]):
        self._open = open_events
        self._events: Events | Tracker | None = None

    def __enter__(self) -> Self:
        """Open the event file, or start the tracker."""
        self._events = self._open()
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        if self._events is not None:
            self._events.close()

    def after_call(self, run_state: RunState) -> None:
        """Write what this call logged."""
        assert self._events is not None
        history = run_state.histories[-1]
        self._events.add(history.steps, history.values, [time.time()] * len(history.steps))


class ProgressBar(Callback):
    """Shows progress on standard error, and names seeds that diverge."""

    def __init__(
        self, config: ExperimentConfig, run_state: RunState | None = None, label: str = ""
    ):
        self._config, self._named = config, set(run_state.diverged if run_state else ())
        first = run_state.step if run_state else 0
        self._progress = Progress(config.train.steps, first, label=label)
        self._last: dict[str, np.ndarray] = {}
        for history in run_state.histories if run_state else ():
            self._last = last_measured(history, self._last)

    def __enter__(self) -> Self:
        """Start the clock."""
        self._progress.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the bar."""
        self._progress.__exit__(*error)

    def after_call(self, run_state: RunState) -> None:
        """Update the bar."""
        if self._config.seeds > 1:
            for seed in sorted(run_state.diverged.keys() - self._named):
                where = f"seed {seed} diverged at step {run_state.diverged[seed]}"
                self._progress.print_above(f"note: {where} and is frozen")
            self._named |= run_state.diverged.keys()
        self._last = last_measured(run_state.histories[-1], self._last)
        step = min(run_state.step, self._config.train.steps)
        solved = solved_now(self._config, run_state, self._last) if self._config.seeds > 1 else None
        self._progress.update(step, last_loss(run_state.histories), solved)


def solved_now(
    config: ExperimentConfig, run_state: RunState, last: Mapping[str, np.ndarray]
) -> tuple[int, int] | None:
    """Return how many of the seeds have solved the task as of now, and how many there are.

    Args:
      config: what is trained.
      run_state: the run.
      last: what each seed measured last, by name, [S, ...].

    Returns:
      None if it is unknown.
    """
    if not last:
        return None
    if config.train.stop_when_solved:
        return len(run_state.solved_at), config.seeds
    solved = config.task.solved(dict(last))
    if solved is None:
        return None
    trained = ~np.isin(config.seed_numbers, list(run_state.diverged))
    return int(np.sum(np.asarray(solved) & trained)), config.seeds


class CheckpointWriter(Callback):
    """Saves a checkpoint every `checkpoint_seconds`, at the end, and when a signal asks to stop.

    Attributes:
      path: the last checkpoint; None before the first.
      step: the next step as of the last checkpoint.
    """

    def __init__(
        self,
        directory: run_directory.RunDirectory,
        config: ExperimentConfig,
        asked_to_stop: list[signal.Signals],
        path: Path | None = None,
    ):
        self.path, self.step = path, -1
        self._directory, self._config, self._asked_to_stop = directory, config, asked_to_stop
        self._saved_at = time.perf_counter()

    def after_call(self, run_state: RunState) -> None:
        """Save if it is time to."""
        due = time.perf_counter() - self._saved_at >= self._config.train.checkpoint_seconds
        due = bool(processes.share([due])[0, 0])
        stopping = signals.agree(self._asked_to_stop)
        # Before step N only one measurement is left, and the last checkpoint is of N updates.
        last = run_state.step == self._config.train.steps
        if run_state.is_over or ((stopping or due) and not last):
            state = to_host(run_state.state)
            if processes.is_first():
                files.sync(self._directory.path / run_directory.METRICS)
                position = {"next_step": run_state.step, "seconds": run_state.seconds}
                folder = self._directory.path / run_directory.CHECKPOINTS
                self.path = checkpoints.save(folder, most_updates(state), state, position)
            self.path = Path(processes.text_of_first(str(self.path)))
            self.step, self._saved_at = run_state.step, time.perf_counter()


def most_updates(state: TrainState) -> int:
    """Return the updates of the seed that was trained longest."""
    return int(max(state.step.tolist()))
