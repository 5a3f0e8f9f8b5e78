"""One process's work on a run: from a start, or a checkpoint, to an end, a signal, or a kill.

The one loop with side effects: it adds disk, clock and signals to a study's program.
"""

import importlib
import os
import signal
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrnn import grouping, signals
from jaxrnn.disk import checkpoints, metrics, record, runs
from jaxrnn.disk.metrics import History
from jaxrnn.disk.tensorboard import Events, import_tensorboardx
from jaxrnn.errors import DivergedError, RunError
from jaxrnn.program import Program, compile_program
from jaxrnn.show.progress import Progress, note
from jaxrnn.stretches import fates, stretches
from jaxrnn.study import Study
from jaxrnn.surroundings import manifest
from jaxrnn.train import TrainState


class Clock(NamedTuple):
    """What a run cost this process."""

    compile_seconds: float  # tracing, lowering, and XLA's compilation or its loading from the cache
    run_seconds: float

    def __str__(self) -> str:
        run = self.run_seconds
        took = f"{run * 1e3:.1f} ms" if run < 1 else f"{run:.2f} s"
        return f"{took} after {self.compile_seconds:.2f} s of compiling"


@dataclass(frozen=True)
class Standing:
    """Where a run stands: what it goes on from."""

    step: int  # the next
    state: Any  # each leaf [S, ...]; before step 0 of the shapes alone
    seconds: float = 0.0  # of work done
    histories: tuple[History, ...] = ()
    broken: dict[int, int] = field(default_factory=dict)  # as of `End`
    stopped: dict[int, int] = field(default_factory=dict)  # as of `End`
    checkpoint: Path | None = None  # the last


class End(NamedTuple):
    """What came of a run."""

    history: History
    state: TrainState  # after the last update; each leaf [S, ...]
    broken: dict[int, int]  # by seed, the step whose loss or gradient was not finite
    stopped: dict[int, int]  # by seed, the step at which it stopped early
    clock: Clock


def restore(run_dir: Path, study: Study, program: Program) -> Standing:
    """The last whole checkpoint, and the metrics before it.

    Raises:
      RunError: if they do not fit the study, or each other.
      OSError: if no checkpoint is whole.
    """
    restored = checkpoints.restore(run_dir / runs.CHECKPOINTS, program.blank)
    for path, reason in restored.broken if restored else ():
        note(f"{path} is passed over: {reason}")
    if restored is None or not restored.position["next_step"]:  # nothing done: from the beginning
        return Standing(0, program.blank)
    step, file = restored.position["next_step"], run_dir / runs.METRICS
    history = metrics.read(file, before=step)
    wanted = (study.seed_numbers.tolist(), study.logged(np.arange(step)).tolist())
    if (history.seeds.tolist(), history.steps.tolist()) != wanted:
        raise RunError(
            f"{file} lacks lines that were there when {restored.path} was saved; put them back, or"
            " start anew in another directory"
        )
    require_fit(run_dir, history, program)
    broken, stopped = fates(study, restored.state, step, history.values["loss"][:, -1])
    seconds = restored.position["seconds"]
    return Standing(step, restored.state, seconds, (history,), broken, stopped, restored.path)


def require_fit(run_dir: Path, history: History, program: Program) -> None:
    """Refuse a program that measures other things than a run did, with a RunError."""
    was = {name: values.shape[2:] for name, values in history.values.items()}
    now = {name: array.shape for name, array in program.metrics.items()}
    if was != now:
        raise RunError(
            f"the run in {run_dir} measured {_listed(was)}; its task now measures {_listed(now)}:"
            " bring back the code that it was made with"
        )


def _listed(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name}{list(shape) or ''}" for name, shape in sorted(shapes.items()))


def work(
    directory: runs.RunDirectory,
    study: Study,
    program: Program,
    at: Standing,
    asked: list[signal.Signals],
) -> End:
    """Train to the end, or until a signal asks to stop or no seed is left.

    Args:
      directory: the run's.
      study: what is trained.
      program: its program.
      at: where it stands.
      asked: a list that a signal may be put into; see `signals.deferred`.

    Raises:
      DivergedError: if no seed is left.
      KeyboardInterrupt, SystemExit: after a signal, once all is saved.
      MemoryError: if the program does not fit.
    """
    path, last = directory.path, study.train.steps
    began, clock = at.seconds, Clock(0.0, 0.0)
    if at.step <= last and len(at.broken) + len(at.stopped) < study.seeds:
        compiled, compile_seconds = _compile(study, program)
        record.begin_session(path, at.step)
        if not asked:
            at = _train(directory, study, compiled, at, asked)
        clock = Clock(compile_seconds, at.seconds - began)
    elif record.load(path)["status"] in ("finished", "diverged"):
        note(f"the run in {path} has ended already")
    else:  # killed when all was done but this
        record.begin_session(path, at.step)
    over = at.step > last or len(at.broken) + len(at.stopped) == study.seeds
    status = "finished" if over else "interrupted"
    status = "diverged" if len(at.broken) == study.seeds else status
    record.end_session(path, status, updates(at.state), at.broken, at.stopped)
    if status == "diverged":
        which = f"seed {study.seed}" if study.seeds == 1 else f"each of {study.seeds} seeds"
        raise DivergedError(
            f"the loss or gradient of {which} is not finite, at step {max(at.broken.values())}; the"
            f" last good checkpoint, from before that step, is {at.checkpoint}"
        )
    if status == "interrupted":
        note(f"stopped at step {at.step}; go on with: {runs.how_to_resume(path)}")
        signals.stop(asked[0])
    history, state = metrics.join(at.histories), jax.device_get(at.state)
    return End(history, state, at.broken, at.stopped, clock)


def updates(state: TrainState) -> int:
    """How many updates the network that was trained the longest has had."""
    return int(np.asarray(state.step).max())


def _compile(study: Study, program: Program) -> tuple[Any, float]:
    """The program compiled, and the seconds that took.

    What saving needs is imported meanwhile, so that it need not be waited for later.
    """
    began = time.perf_counter()
    compiled = compile_program(study, program, meanwhile=_import_writers)
    return grouping.fit_memory(compiled), time.perf_counter() - began


def _train(
    directory: runs.RunDirectory,
    study: Study,
    compiled: Any,
    at: Standing,
    asked: list[signal.Signals],
) -> Standing:
    """Call the program again and again; log each stretch of steps, and save now and then."""
    path, last, saved = directory.path, study.train.steps, time.perf_counter()
    with Progress(last, at.step) as progress, Events(path / runs.TENSORBOARD, at.step) as events:
        for stretch in stretches(study, compiled, at.state, at.step):
            for seed in sorted(stretch.broken.keys() - at.broken.keys()) if study.seeds > 1 else ():
                where = f"seed {seed} is not finite at step {stretch.broken[seed]}"
                progress.print_above(f"note: {where}, and is frozen")
            history, seconds = stretch.history, at.seconds + stretch.seconds
            histories = (*at.histories, history)
            at = Standing(
                stretch.step,
                stretch.state,
                seconds,
                histories,
                stretch.broken,
                stretch.stopped,
                at.checkpoint,
            )
            now = {"utc": manifest.utc_now(), "seconds": round(seconds, 6)}
            metrics.append(directory.metrics, history, now)
            events.add(history.steps, history.values, [time.time()] * len(history.steps))
            progress.update(min(at.step, last), metrics.last_loss(histories))
            due = time.perf_counter() - saved >= study.train.checkpoint_seconds
            # Before step N one look is left to be taken; then the last checkpoint is of N updates.
            if stretch.ends or ((asked or due) and at.step != last):
                os.fsync(directory.metrics.fileno())
                position = {"next_step": at.step, "seconds": seconds}
                folder = path / runs.CHECKPOINTS
                checkpoint = checkpoints.save(folder, updates(at.state), at.state, position)
                at, saved = replace(at, checkpoint=checkpoint), time.perf_counter()
                if asked:
                    break
    return at


def _import_writers() -> None:
    """Import what saving takes, so that it need not be waited for later."""
    importlib.import_module("orbax.checkpoint")
    import_tensorboardx()
