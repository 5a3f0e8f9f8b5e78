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
from jaxrnn.runs import vmap_tuning, signals
from jaxrnn.runs import checkpoints, metrics, run_metadata, run_directory
from jaxrnn.training.history import History, join, last_loss, last_rows
from jaxrnn.runs.tensorboard import Events, import_tensorboardx
from jaxrnn.errors import DivergedError, RunError
from jaxrnn.training.loop import Program, compile_program
from jaxrnn.runs.progress import Progress, note
from jaxrnn.training.loop import seed_status, stretches
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.runs import provenance
from jaxrnn.training.step import TrainState
import re
from pathlib import Path
from typing import NamedTuple
import numpy as np
from flax import linen as nn
from jaxrnn.runs import vmap_tuning, signals
from jaxrnn.runs import metrics, import_paths, run_metadata, run_directory
from jaxrnn.training.history import History, join, last_loss, last_rows
from jaxrnn.errors import RunError
from jaxrnn.training.loop import make_program
from jaxrnn.analysis import report
from jaxrnn.runs.progress import note
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.runs import compilation_cache
from jaxrnn.tasks.base import Task
from jaxrnn.training.config import TrainConfig
from jaxrnn.training.step import TrainState
from jaxrnn.training.validation import LOSS






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
    diverged: dict[int, int] = field(default_factory=dict)  # as of `End`
    stopped: dict[int, int] = field(default_factory=dict)  # as of `End`
    checkpoint: Path | None = None  # the last


class End(NamedTuple):
    """What came of a run."""

    history: History
    state: TrainState  # after the last update; each leaf [S, ...]
    diverged: dict[int, int]  # by seed, the step whose loss or gradient was not finite
    stopped: dict[int, int]  # by seed, the step at which it stopped early
    clock: Clock


def restore(run_dir: Path, study: ExperimentConfig, program: Program) -> Standing:
    """The last whole checkpoint, and the metrics before it.

    Raises:
      RunError: if they do not fit the study, or each other.
      OSError: if no checkpoint is whole.
    """
    restored = checkpoints.restore(run_dir / run_directory.CHECKPOINTS, program.blank)
    for path, reason in restored.damaged if restored else ():
        note(f"{path} is passed over: {reason}")
    if restored is None or not restored.position["next_step"]:  # nothing done: from the beginning
        return Standing(0, program.blank)
    step, file = restored.position["next_step"], run_dir / run_directory.METRICS
    history = metrics.read(file, before=step)
    wanted = (study.seed_numbers.tolist(), study.logged(np.arange(step)).tolist())
    if (history.seeds.tolist(), history.steps.tolist()) != wanted:
        raise RunError(
            f"{file} lacks lines that were there when {restored.path} was saved; put them back, or"
            " start anew in another directory"
        )
    require_fit(run_dir, history, program)
    diverged, stopped = seed_status(study, restored.state, step, history.values["loss"][:, -1])
    seconds = restored.position["seconds"]
    return Standing(step, restored.state, seconds, (history,), diverged, stopped, restored.path)


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
    directory: run_directory.RunDirectory,
    study: ExperimentConfig,
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
    if at.step <= last and len(at.diverged) + len(at.stopped) < study.seeds:
        compiled, compile_seconds = _compile(study, program)
        run_metadata.begin_session(path, at.step)
        if not asked:
            at = _train(directory, study, compiled, at, asked)
        clock = Clock(compile_seconds, at.seconds - began)
    elif run_metadata.load(path)["status"] in ("finished", "diverged"):
        note(f"the run in {path} has ended already")
    else:  # killed when all was done but this
        run_metadata.begin_session(path, at.step)
    over = at.step > last or len(at.diverged) + len(at.stopped) == study.seeds
    status = "finished" if over else "interrupted"
    status = "diverged" if len(at.diverged) == study.seeds else status
    run_metadata.end_session(path, status, updates(at.state), at.diverged, at.stopped)
    if status == "diverged":
        which = f"seed {study.seed}" if study.seeds == 1 else f"each of {study.seeds} seeds"
        raise DivergedError(
            f"the loss or gradient of {which} is not finite, at step {max(at.diverged.values())}; the"
            f" last good checkpoint, from before that step, is {at.checkpoint}"
        )
    if status == "interrupted":
        note(f"stopped at step {at.step}; go on with: {run_directory.resume_command(path)}")
        signals.stop(asked[0])
    history, state = join(at.histories), jax.device_get(at.state)
    return End(history, state, at.diverged, at.stopped, clock)


def updates(state: TrainState) -> int:
    """How many updates the network that was trained the longest has had."""
    return int(np.asarray(state.step).max())


def _compile(study: ExperimentConfig, program: Program) -> tuple[Any, float]:
    """The program compiled, and the seconds that took.

    What saving needs is imported meanwhile, so that it need not be waited for later.
    """
    began = time.perf_counter()
    compiled = compile_program(study, program, meanwhile=_import_writers)
    return vmap_tuning.fit_memory(compiled), time.perf_counter() - began


def _train(
    directory: run_directory.RunDirectory,
    study: ExperimentConfig,
    compiled: Any,
    at: Standing,
    asked: list[signal.Signals],
) -> Standing:
    """Call the program again and again; log each stretch of steps, and save now and then."""
    path, last, saved = directory.path, study.train.steps, time.perf_counter()
    with Progress(last, at.step) as progress, Events(path / run_directory.TENSORBOARD, at.step) as events:
        for stretch in stretches(study, compiled, at.state, at.step):
            for seed in sorted(stretch.diverged.keys() - at.diverged.keys()) if study.seeds > 1 else ():
                where = f"seed {seed} is not finite at step {stretch.diverged[seed]}"
                progress.print_above(f"note: {where}, and is frozen")
            history, seconds = stretch.history, at.seconds + stretch.seconds
            histories = (*at.histories, history)
            at = Standing(
                stretch.step,
                stretch.state,
                seconds,
                histories,
                stretch.diverged,
                stretch.stopped,
                at.checkpoint,
            )
            now = {"utc": provenance.utc_now(), "seconds": round(seconds, 6)}
            metrics.append(directory.metrics, history, now)
            events.add(history.steps, history.values, [time.time()] * len(history.steps))
            progress.update(min(at.step, last), last_loss(histories))
            due = time.perf_counter() - saved >= study.train.checkpoint_seconds
            # Before step N one look is left to be taken; then the last checkpoint is of N updates.
            if stretch.ends or ((asked or due) and at.step != last):
                os.fsync(directory.metrics.fileno())
                position = {"next_step": at.step, "seconds": seconds}
                folder = path / run_directory.CHECKPOINTS
                checkpoint = checkpoints.save(folder, updates(at.state), at.state, position)
                at, saved = replace(at, checkpoint=checkpoint), time.perf_counter()
                if asked:
                    break
    return at


def _import_writers() -> None:
    """Import what saving takes, so that it need not be waited for later."""
    importlib.import_module("orbax.checkpoint")
    import_tensorboardx()







class Result(NamedTuple):
    """What came of a run."""

    run_dir: Path
    study: ExperimentConfig
    history: History
    state: TrainState  # after the last update; each leaf [S, ...]
    diverged: dict[int, int]  # by seed, the step whose loss or gradient was not finite
    stopped: dict[int, int]  # by seed, the step at which it stopped early
    clock: Clock

    @property
    def solved(self) -> np.ndarray | None:
        """[S] bool: which seeds have learned the task, if it can be."""
        return self.study.task.solved(last_rows(self.history, self.stopped))

    def __str__(self) -> str:
        """The run in a few lines."""
        task = self.study.task
        ends = self.solved, self.diverged, task.memoryless_loss, self.stopped
        lines = [report.study(_name(task), *self.history, *ends)]
        if (held_out := self.history.values.get(LOSS)) is not None:
            lines.append(report.best(*self.history[:2], held_out, task.format_loss))
        lines.append(f"The training took {self.clock}; the run is in {self.run_dir}.")
        return "\n".join(lines)


def run(
    task: Task,
    *,
    model: nn.Module,
    train: TrainConfig,
    seed: int = 0,
    seeds: int = 1,
    vmap_size: int | None = None,
    run_dir: Path | str | None = None,
    name: str | None = None,
    picture: bool = True,
) -> Result:
    """Train networks on a task, in a directory of their own: `run_study` of these parts.

    Args:
      task: draws the batches.
      model: a module with the call of `SequenceModel`: inputs [B, T, F], an initial carry, lengths
        and deterministic -> outputs [B, T, V], carry; its variables are all parameters.
      train: the settings.
      seed: the first seed.
      seeds: S, how many networks to train, with the seeds from `seed` on.
      group: how many of them side by side; None measures what is fastest here.
      run_dir: a new or empty directory. Without it: a new number in `runs/<name>`.
      name: the task's, if None.
      picture: whether to draw the metrics at the end.

    Raises:
      SettingError: if a number is out of range.
      RunError: if something cannot be written in config.json.
      OSError: if the directory holds something, or the disk is full.
      DivergedError: if the loss of a single run, or of all seeds, is not finite any more.
      MemoryError: if the program does not fit.
      KeyboardInterrupt: after Ctrl-C, once all is saved; after SIGTERM SystemExit(143).
    """
    study = ExperimentConfig(task, model, train, seed, seeds, vmap_size)
    return run_experiment(study, run_dir=run_dir, name=name, picture=picture)


def run_experiment(
    study: ExperimentConfig,
    *,
    run_dir: Path | str | None = None,
    name: str | None = None,
    picture: bool = True,
) -> Result:
    """Train the networks of a study, in a directory of their own.

    Args:
      study: what is trained.
      run_dir: as for `run`, and so are the others, and the errors.
      name: the task's, if None.
      picture: whether to draw the metrics at the end.
    """
    if import_paths.loading_script():
        raise RunError('put what this script runs under `if __name__ == "__main__":`')
    compilation_cache.enable()
    run_metadata.config_of(study)  # refuses what cannot be written, before anything is made
    name, wanted = name or _name(study.task), None if run_dir is None else Path(run_dir)
    with signals.deferred() as asked, run_directory.new_run(name, wanted) as directory:
        study = vmap_tuning.choose(study)
        run_metadata.begin(directory.path, study)
        program = make_program(study)
        begin = Standing(0, program.blank)
        ended = work(directory, study, program, begin, asked)
        result = Result(directory.path, study, *ended)
    if picture:
        draw(result.run_dir)
    return result


def resume(run_dir: Path | str) -> Result:
    """Go on with a run that broke off, from its last whole checkpoint.

    On the same machine and versions it ends bitwise equal to a run never broken off. One that has
    ended already stays as it is.

    Raises:
      RunError: if its files do not fit each other, or what they name is not there any more.
      OSError: if there is no run, another process works on it, or no checkpoint is whole.
      DivergedError, KeyboardInterrupt: as `run`.
    """
    run_dir = Path(run_dir)
    compilation_cache.enable()
    with signals.deferred() as asked, run_directory.open_run(run_dir) as directory:
        study = run_metadata.load_config(run_dir)
        for difference in run_metadata.differences(run_dir):
            note(f"{difference}; the run may not end with the bits it would have had")
        run_metadata.check_data(run_dir)
        program = make_program(study)
        at = restore(run_dir, study, program)
        metrics.cut(run_dir / run_directory.METRICS, at.step)
        ended = work(directory, study, program, at, asked)
    draw(run_dir)
    return Result(run_dir, study, *ended)


def draw(run_dir: Path | str) -> Path:
    """Draw a run's picture, from its metrics.jsonl.

    Raises:
      RunError: if there is nothing in it yet, or something else.
      OSError: if there is no metrics.jsonl, or the picture cannot be written.
    """
    from jaxrnn.analysis import plots# not at the top: Matplotlib takes a second to import

    run_dir = Path(run_dir)
    file, path = run_dir / run_directory.METRICS, run_dir / run_directory.PICTURE
    history = metrics.read(file)
    if not history.steps.size:
        raise RunError(f"{file} has no line yet, so there is nothing to draw")
    title = "/".join(run_dir.resolve().parts[-2:])
    plots.curves(path, history.steps, history.values, run_metadata.memoryless_loss(run_dir), title)
    return path


def _name(task: Task) -> str:
    """NextCharacter -> next_character."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(task).__name__).lower()
