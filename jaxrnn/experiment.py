"""The one loop with side effects: run a study, and go on with one that broke off.

Everything a run's numbers depend on is in its `Study`; this file adds disk, clock and signals.
"""

import os
import re
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from jaxrnn import grouping, signals
from jaxrnn.disk import checkpoints, metrics, names, record, runs
from jaxrnn.disk.metrics import History
from jaxrnn.disk.tensorboard import Events
from jaxrnn.errors import DivergedError, RunError
from jaxrnn.show import report
from jaxrnn.show.progress import Progress
from jaxrnn.stretches import stretches
from jaxrnn.study import Program, Study, compile_program, make_program
from jaxrnn.surroundings import compilation_cache, manifest
from jaxrnn.tasks.task import Task
from jaxrnn.train import Train, TrainState


class Clock(NamedTuple):
    """What a run cost this process."""

    compile_seconds: float  # tracing, lowering, and XLA's compilation or its loading from the cache
    run_seconds: float

    def __str__(self) -> str:
        run = self.run_seconds
        took = f"{run * 1e3:.1f} ms" if run < 1 else f"{run:.2f} s"
        return f"{took} after {self.compile_seconds:.2f} s of compiling"


class Result(NamedTuple):
    """What came of a run."""

    run_dir: Path
    study: Study
    history: History
    state: TrainState  # after the last update; each leaf [S, ...]
    broken: dict[int, int]  # by seed, the step whose loss or gradient was not finite
    clock: Clock

    @property
    def solved(self) -> np.ndarray:
        """[S] bool: which seeds have learned the task."""
        last = {name: values[:, -1] for name, values in self.history.values.items()}
        return self.study.task.solved(last)

    def __str__(self) -> str:
        """The run in a few lines."""
        task, history = self.study.task, self.history
        said = report.study(_name(task), *history, self.solved, self.broken, task.baseline)
        return f"{said}\nThe training took {self.clock}; the run is in {self.run_dir}."


def run(
    task: Task,
    *,
    model: nn.Module,
    train: Train,
    seed: int = 0,
    seeds: int = 1,
    group: int | None = None,
    run_dir: Path | str | None = None,
    name: str | None = None,
    picture: bool = True,
) -> Result:
    """Train networks on a task, in a directory of their own.

    Args:
      task: draws the batches.
      model: a module `inputs [B, T, F] -> (outputs [B, T, V], carry)`, as `SequenceModel`.
      train: the settings.
      seed: the first seed.
      seeds: S, how many networks to train, with the seeds from `seed` on.
      group: how many of them side by side; None measures what is fastest here.
      run_dir: a new or empty directory. Without it: a new number in `runs/<name>`.
      name: the task's, if None.
      picture: whether to draw the metrics at the end.

    Raises:
      ValueError: if a number is out of range.
      RunError: if something cannot be written in config.json.
      OSError: if the directory holds something, or the disk is full.
      DivergedError: if the loss of a single run, or of all seeds, is not finite any more.
      KeyboardInterrupt: after Ctrl-C, once all is saved; after SIGTERM SystemExit(143).
    """
    if names.loading_script():
        raise RunError('put what this script runs under `if __name__ == "__main__":`')
    compilation_cache.enable()
    study = Study(task, model, train, seed, seeds, group or 1)
    wanted = None if run_dir is None else Path(run_dir)
    with signals.deferred() as asked, runs.new_run(name or _name(task), wanted) as directory:
        if group is None:
            study = grouping.choose(study)
        record.begin(directory.path, study)
        result = _train(directory, study, make_program(study), Start(), asked)
    if picture:
        draw(result.run_dir)
    return result


def resume(run_dir: Path) -> Result:
    """Go on with a run that broke off, from its last whole checkpoint.

    On the same machine and versions it ends bitwise equal to a run never broken off.

    Raises:
      RunError: if its files do not fit each other, or what they name is not there any more.
      OSError: if there is no run, another process works on it, or no checkpoint is whole.
      DivergedError, KeyboardInterrupt: as `run`.
    """
    compilation_cache.enable()
    with signals.deferred() as asked, runs.open_run(run_dir) as directory:
        study = record.load_study(run_dir)
        for difference in record.differences(run_dir):
            _note(f"{difference}; the run may not end with the bits it would have had")
        record.check_data(run_dir)
        program = make_program(study)
        start = _restore(run_dir, study, program)
        metrics.cut(run_dir / runs.METRICS, start.step)
        result = _train(directory, study, program, start, asked)
    draw(run_dir)
    return result


def draw(run_dir: Path) -> Path:
    """Draw a run's picture, from its metrics.jsonl.

    Raises:
      RunError: if there is nothing in it yet, or something else.
      OSError: if there is no metrics.jsonl, or the picture cannot be written.
    """
    from jaxrnn.show import plots  # not at the top: Matplotlib takes a second to import

    file = run_dir / runs.METRICS
    history = metrics.read(file)
    if not history.steps.size:
        raise RunError(f"{file} has no line yet, so there is nothing to draw")
    path, title = run_dir / runs.PICTURE, "/".join(run_dir.resolve().parts[-2:])
    plots.curves(path, history.steps, history.values, record.baseline(run_dir), title)
    return path


@dataclass(frozen=True)
class Start:
    """Where a run begins, or goes on."""

    step: int = 0
    state: Any = None  # None: from nothing
    seconds: float = 0.0  # of work done
    history: tuple[History, ...] = ()
    broken: dict[int, int] = field(default_factory=dict)  # as of `Result`


def _restore(run_dir: Path, study: Study, program: Program) -> Start:
    """The last whole checkpoint, and the metrics before it."""
    restored = checkpoints.restore(run_dir / runs.CHECKPOINTS, program.blank)
    if restored is None:
        return Start()
    for path, reason in restored.broken:
        _note(f"{path} is passed over: {reason}")
    step, file = restored.position["next_step"], run_dir / runs.METRICS
    history = metrics.read(file, before=step)
    wanted = (study.seed_numbers.tolist(), study.logged(np.arange(step)).tolist())
    if (history.seeds.tolist(), history.steps.tolist()) != wanted:
        raise RunError(
            f"{file} lacks lines that were there when {restored.path} was saved; put them back, or"
            " start anew in another directory"
        )
    updates, last = restored.state.step, study.train.steps
    lost = updates < min(step, last)  # [S]
    if step > last:
        lost |= ~np.isfinite(history.values["loss"][:, -1])
    broken = dict(zip(study.seed_numbers[lost].tolist(), updates[lost].tolist(), strict=True))
    return Start(step, restored.state, restored.position["seconds"], (history,), broken)


def _train(
    directory: runs.RunDirectory,
    study: Study,
    program: Program,
    start: Start,
    asked: list[signal.Signals],
) -> Result:
    """Train to the end, or until a signal asks to stop or no seed is left."""
    path, train = directory.path, study.train
    saved = time.perf_counter()
    compiled = compile_program(study, program, meanwhile=_import_writers)
    compile_seconds = time.perf_counter() - saved
    state = program.blank if start.state is None else start.state
    histories, seconds, step, broken = [*start.history], 0.0, start.step, start.broken
    checkpoint = None
    record.begin_session(path, step)
    with Progress(train.steps, step) as progress, Events(path / runs.TENSORBOARD, step) as events:
        for stretch in stretches(study, compiled, state, step) if not asked else ():
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
    finished = step > train.steps
    status = "diverged" if len(broken) == study.seeds else "finished" if finished else "interrupted"
    record.end_session(path, status, step, broken)
    if status == "diverged":
        which = f"seed {study.seed}" if study.seeds == 1 else f"each of {study.seeds} seeds"
        raise DivergedError(
            f"the loss or gradient of {which} is not finite, at step {max(broken.values())}; the"
            f" last good checkpoint, from before that step, is {checkpoint}"
        )
    if asked:
        _note(
            f"stopped at step {min(step, train.steps)}; go on with: python -m jaxrnn resume {path}"
        )
        signals.stop(asked[0])
    clock = Clock(compile_seconds, seconds)
    return Result(path, study, metrics.join(histories), jax.device_get(state), broken, clock)


def _import_writers() -> None:
    """Import what saving takes, so that it need not be waited for later."""
    import tensorboardX.proto.event_pb2
    import tensorboardX.record_writer  # noqa: F401


def _name(task: Task) -> str:
    """NextCharacter -> next_character."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(task).__name__).lower()


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
