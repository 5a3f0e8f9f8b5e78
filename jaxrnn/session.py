"""One process's work on a run: from a start, or a checkpoint, to an end, a signal, or a kill.

The one loop with side effects: it adds disk, clock and signals to a study's program.
"""

import importlib
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrnn import grouping, signals
from jaxrnn.disk import checkpoints, metrics, record, runs
from jaxrnn.disk.metrics import History
from jaxrnn.disk.tensorboard import Events
from jaxrnn.errors import DivergedError, RunError
from jaxrnn.show.progress import Progress, note
from jaxrnn.stretches import stretches
from jaxrnn.study import Program, Study, compile_program
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
class Start:
    """Where a run begins, or goes on."""

    step: int = 0
    state: Any = None  # None: from nothing
    seconds: float = 0.0  # of work done
    history: tuple[History, ...] = ()
    broken: dict[int, int] = field(default_factory=dict)  # as of `End`
    checkpoint: Path | None = None


class End(NamedTuple):
    """What came of a run."""

    history: History
    state: TrainState  # after the last update; each leaf [S, ...]
    broken: dict[int, int]  # by seed, the step whose loss or gradient was not finite
    clock: Clock


def restore(run_dir: Path, study: Study, program: Program) -> Start:
    """The last whole checkpoint, and the metrics before it.

    Raises:
      RunError: if they do not fit the study, or each other.
      OSError: if no checkpoint is whole.
    """
    try:
        restored = checkpoints.restore(run_dir / runs.CHECKPOINTS, program.blank)
    except ValueError as error:
        raise RunError(str(error)) from error
    for path, reason in restored.broken if restored else ():
        note(f"{path} is passed over: {reason}")
    if restored is None or not restored.position["next_step"]:  # nothing done: from the beginning
        return Start()
    step, file = restored.position["next_step"], run_dir / runs.METRICS
    history = metrics.read(file, before=step)
    wanted = (study.seed_numbers.tolist(), study.logged(np.arange(step)).tolist())
    if (history.seeds.tolist(), history.steps.tolist()) != wanted:
        raise RunError(
            f"{file} lacks lines that were there when {restored.path} was saved; put them back, or"
            " start anew in another directory"
        )
    require_fit(run_dir, history, program)
    updates, last = restored.state.step, study.train.steps
    lost = updates < min(step, last)  # [S]
    if step > last:
        lost |= ~np.isfinite(history.values["loss"][:, -1])
    broken = dict(zip(study.seed_numbers[lost].tolist(), updates[lost].tolist(), strict=True))
    seconds = restored.position["seconds"]
    return Start(step, restored.state, seconds, (history,), broken, restored.path)


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
    start: Start,
    asked: list[signal.Signals],
) -> End:
    """Train to the end, or until a signal asks to stop or no seed is left.

    Args:
      directory: the run's.
      study: what is trained.
      program: its program.
      start: where it begins.
      asked: a list that a signal may be put into; see `signals.deferred`.
    """
    path, train = directory.path, study.train
    done = start.step > train.steps or len(start.broken) == study.seeds
    saved = time.perf_counter()
    compiled, compile_seconds = None, 0.0
    if not done:
        compiled = compile_program(study, program, meanwhile=_import_writers)
        grouping.require_memory(compiled)
        compile_seconds = time.perf_counter() - saved
    # One that was killed when only the manifest did not know yet that it had ended gets to know it.
    known = done and record.load(path)["status"] in ("finished", "diverged")
    if known:
        note(f"the run in {path} has ended already")
    else:
        record.begin_session(path, start.step)
    state = program.blank if start.state is None else start.state
    histories, seconds, step, broken = [*start.history], 0.0, start.step, start.broken
    checkpoint = start.checkpoint
    with Progress(train.steps, step) as progress, Events(path / runs.TENSORBOARD, step) as events:
        for stretch in stretches(study, compiled, state, step) if not (asked or done) else ():
            for seed in stretch.broken.keys() - broken.keys() if study.seeds > 1 else ():
                progress.print_above(
                    f"note: seed {seed} is not finite at step {stretch.broken[seed]}, and is frozen"
                )
            step, state, history, broken, ends, took = stretch
            seconds += took
            histories.append(history)
            now = {"utc": manifest.utc_now(), "seconds": round(start.seconds + seconds, 6)}
            metrics.append(directory.metrics, history, now)
            events.add(history.steps, history.values, [time.time()] * len(history.steps))
            progress.update(min(step, train.steps), metrics.last_loss(histories))
            due = time.perf_counter() - saved >= train.checkpoint_seconds
            # Before step N one look is left to be taken; then the last checkpoint is of N updates.
            if ends or ((asked or due) and step != train.steps):
                os.fsync(directory.metrics.fileno())
                position = {"next_step": step, "seconds": start.seconds + seconds}
                folder, updates = path / runs.CHECKPOINTS, min(step, train.steps)
                checkpoint = checkpoints.save(folder, updates, state, position)
                saved = time.perf_counter()
                if asked:
                    break
    status = "finished" if step > train.steps else "interrupted"
    status = "diverged" if len(broken) == study.seeds else status
    if not known:
        record.end_session(path, status, step, broken)
    if status == "diverged":
        which = f"seed {study.seed}" if study.seeds == 1 else f"each of {study.seeds} seeds"
        raise DivergedError(
            f"the loss or gradient of {which} is not finite, at step {max(broken.values())}; the"
            f" last good checkpoint, from before that step, is {checkpoint}"
        )
    if status == "interrupted":
        note(f"stopped at step {step}; go on with: {runs.how_to_resume(path)}")
        signals.stop(asked[0])
    clock = Clock(compile_seconds, seconds)
    return End(metrics.join(histories), jax.device_get(state), broken, clock)


def _import_writers() -> None:
    """Import what saving takes, so that it need not be waited for later."""
    for name in ("orbax.checkpoint", "tensorboardX.proto.event_pb2", "tensorboardX.record_writer"):
        importlib.import_module(name)
