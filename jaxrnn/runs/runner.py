"""Run an experiment in a directory of its own, or resume one: the only loop with side effects."""

import contextlib
import importlib
import re
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from jaxrnn.errors import DivergedError, RunError
from jaxrnn.runs import (
    agreement,
    checkpoints,
    compilation_cache,
    import_paths,
    initialization,
    metrics,
    run_directory,
    run_metadata,
    signals,
    tracking,
    tuning,
)
from jaxrnn.runs.callbacks import (
    Callback,
    CheckpointWriter,
    EventsWriter,
    MetricsWriter,
    ProgressBar,
    most_updates,
)
from jaxrnn.runs.progress import note
from jaxrnn.runs.run_directory import RunDirectory
from jaxrnn.runs.tensorboard import Events, import_tensorboardx
from jaxrnn.tasks.base import Task
from jaxrnn.training import processes
from jaxrnn.training.calls import CompiledLoop, compile_loop, run_loop
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.history import History, last_rows
from jaxrnn.training.loop import TrainLoop
from jaxrnn.training.mesh import MeshShape, to_host, use_all_cpus
from jaxrnn.training.processes import is_first, share
from jaxrnn.training.run_state import RunState, seed_status
from jaxrnn.training.step import TrainState


@dataclass(frozen=True)
class RunResult:
    """The outcome of a run.

    `jaxrnn.analysis.report.summarize` describes it in a few lines.
    """

    run_dir: Path
    config: ExperimentConfig
    history: History  # every logged step
    state: TrainState  # after the last update; each leaf [S, ...], in host memory
    diverged: dict[int, int]  # seed -> step at which its loss or gradient was not finite
    stopped: dict[int, int]  # seed -> step at which it stopped early, out of patience
    solved_at: dict[int, int]  # seed -> step at which it solved the task, with `stop_when_solved`
    compile_seconds: float  # tracing and compiling, or loading from the compilation cache
    run_seconds: float  # training in this process

    @property
    def solved(self) -> np.ndarray | None:
        """[S] bool, whether each seed solved the task; None if the task cannot be solved."""
        if self.config.train.stop_when_solved:
            return np.isin(self.config.seed_numbers, list(self.solved_at))
        return self.config.task.solved(last_rows(self.history, self.stopped))


def run(
    config: ExperimentConfig,
    *,
    run_dir: Path | str | None = None,
    name: str | None = None,
    callbacks: Iterable[Callback] = (),
    label: str = "",
    track: str | None = None,
) -> RunResult:
    """Train an experiment in a run directory of its own.

    Everything the run writes is in the directory: settings, versions, metrics, checkpoints and
    TensorBoard events. If it is interrupted or killed, `resume` continues it.

    Args:
      config: what to train.
      run_dir: a new or empty directory; None for the next number in `runs/<name>`.
      name: None for the task's name.
      callbacks: called after each call of the compiled loop, after the run's own.
      label: shown at the start of each line of progress.
      track: an experiment tracker that also gets the metrics, "wandb" or "trackio", if installed.

    Returns:
      the outcome, with the final states and all logged metrics.

    Raises:
      RunError: if a setting cannot be written to config.json.
      SettingError: if several processes have different settings or data.
      OSError: if the directory is in use, or the disk is full.
      DivergedError: if the loss of every seed stopped being finite.
      MemoryError: if the program does not fit into memory.
      KeyboardInterrupt: after Ctrl-C, once everything is saved; SystemExit(143) after SIGTERM.
    """
    if import_paths.loading_script():
        raise RunError('put what this script runs under `if __name__ == "__main__":`')
    use_all_cpus()
    compilation_cache.enable()
    run_metadata.config_of(config)  # raises before anything is created
    if track is not None:
        tracking.require(track)
    agreement.require_same_experiment(config)
    name, wanted = name or name_of(config.task), None if run_dir is None else Path(run_dir)
    with signals.deferred() as asked, run_directory.new_run(name, wanted) as directory:
        loop = tuning.choose_layout(TrainLoop(config))
        tuning.require_memory(loop)
        state, source = initialization.initial_state(loop)
        if is_first():
            run_metadata.begin(directory.path, loop.config, source, track=track)
        if is_first() and (name := run_metadata.only_in_session(directory.path)):
            note(
                f"{name} is defined at a prompt or in a notebook, so this run can be resumed and"
                " verified only from there, not from the command line"
            )
        callbacks = [*callbacks, *_trackers(directory)]
        return _work(directory, loop, RunState(0, state), None, asked, callbacks, label)


def resume(
    run_dir: Path | str,
    *,
    mesh: MeshShape | None = None,
    callbacks: Iterable[Callback] = (),
    label: str = "",
) -> RunResult:
    """Continue an interrupted run from its newest intact checkpoint.

    On the same machine, versions and mesh, it ends bitwise equal to a run that was never
    interrupted. A run that has finished is left as it is.

    Args:
      run_dir: the run's directory.
      mesh: the devices to use; None for those it used before, or for others if JAX has fewer now.
      callbacks: as for `run`.
      label: as for `run`.

    Returns:
      the outcome, as `run` does; the history includes the steps before the interruption.

    Raises:
      RunError: if the run's files do not fit each other, or something they name is missing.
      OSError: if there is no run, another process works on it, or no checkpoint is intact.
      DivergedError, MemoryError, KeyboardInterrupt: as `run`.
    """
    run_dir = Path(run_dir)
    use_all_cpus()
    compilation_cache.enable()
    with signals.deferred() as asked, run_directory.open_run(run_dir) as directory:
        _require_alone(run_dir)
        config = tuning.fit_devices(run_metadata.load_config(run_dir), mesh)
        agreement.require_same_experiment(config)
        for difference in run_metadata.differences(run_dir):
            note(f"{difference}; the run may end with other bits")
        run_metadata.check_data(run_dir)
        tuning.require_memory(loop := TrainLoop(config))
        run_state, checkpoint = restore(run_dir, loop)
        agreement.require_same_step(run_dir, run_state.step)
        if is_first():
            metrics.truncate(run_dir / run_directory.METRICS, run_state.step)
        callbacks = [*callbacks, *_trackers(directory)]
        return _work(directory, loop, run_state, checkpoint, asked, callbacks, label)


def restore(run_dir: Path, loop: TrainLoop) -> tuple[RunState, Path | None]:
    """Return the run as of its newest intact checkpoint, and that checkpoint.

    Raises:
      RunError: if the checkpoint, the metrics and the experiment do not fit each other.
      OSError: if there are checkpoints, but none is intact.
    """
    config = loop.config
    restored = checkpoints.restore(run_dir / run_directory.CHECKPOINTS, loop.blank)
    for path, reason in restored.damaged if restored else ():
        note(f"skipping {path}: {reason}")
    if restored is None or not restored.position["next_step"]:
        source = run_metadata.load(run_dir).get("init_from")
        state, _ = initialization.initial_state(loop, source)
        return RunState(0, state), None
    step, file = restored.position["next_step"], run_dir / run_directory.METRICS
    history = metrics.read(file, before=step)
    last = seed_status(config, restored.state, step).last_success(config)
    wanted = (config.seed_numbers.tolist(), config.logged(np.arange(step), last).tolist())
    if (history.seeds.tolist(), history.steps.tolist()) != wanted:
        raise RunError(
            f"{file} lacks lines that it had when {restored.path} was saved; restore them, or start"
            " again in another directory"
        )
    require_same_metrics(run_dir, history, loop)
    status = seed_status(config, restored.state, step, history.values["loss"][:, -1])
    run_state = RunState(
        step,
        restored.state,
        restored.position["seconds"],
        (history,),
        *status,
        is_over=step > config.train.steps or status.is_all(config),
    )
    return run_state, restored.path


def _trackers(directory: RunDirectory) -> list[Callback]:
    """Return the callback of the run's experiment tracker, in process 0, if it has one."""
    record = run_metadata.load(directory.path).get("tracker") if is_first() else None
    if record is None:
        return []
    return [EventsWriter(partial(tracking.Tracker, directory.path, record))]


def _require_alone(run_dir: Path) -> None:
    """Raise RunError for a run that is trained together with others and has not ended."""
    manifest = run_metadata.load(run_dir)
    if "sweep" in manifest and manifest["status"] not in ("finished", "diverged"):
        command = run_directory.resume_command(Path(manifest["sweep"]["directory"]).parents[1])
        raise RunError(f"{run_dir} is a part of a sweep; resume that with: {command}")


def require_same_metrics(run_dir: Path, history: History, loop: TrainLoop) -> None:
    """Raise RunError if the experiment no longer measures what the run logged."""
    logged = {name: values.shape[2:] for name, values in history.values.items()}
    measured = {name: array.shape for name, array in loop.metrics.items()}
    if logged != measured:
        raise RunError(
            f"the run in {run_dir} logged {_listed(logged)}, but its task now measures"
            f" {_listed(measured)}: restore the code that the run started with"
        )


def _work(
    directory: RunDirectory,
    loop: TrainLoop,
    run_state: RunState,
    checkpoint: Path | None,
    asked_to_stop: list[signal.Signals],
    callbacks: Iterable[Callback],
    label: str,
) -> RunResult:
    """Train until the end, or until a signal asks to stop; then record how it ended."""
    path, config, compile_seconds = directory.path, loop.config, 0.0
    seconds_before = run_state.seconds
    saver = CheckpointWriter(directory, config, asked_to_stop, checkpoint)
    ended = run_state.is_over and run_metadata.load(path)["status"] in ("finished", "diverged")
    if share([ended])[0, 0]:
        note(f"the run in {path} has already ended")
    else:  # it may be over: killed after its last checkpoint, before its end was recorded
        compiled = None
        if not run_state.is_over:
            compiled, compile_seconds = compile_run(loop)
        if is_first():
            run_metadata.begin_session(path, run_state.step, config)
        stopping = signals.agree(asked_to_stop)
        if compiled and not stopping:
            run_state = _train(
                directory, compiled, run_state, saver, asked_to_stop, callbacks, label
            )

    status = "finished" if run_state.is_over else "interrupted"
    status = "diverged" if len(run_state.diverged) == config.seeds else status
    state = to_host(run_state.state)
    if is_first():
        ends = {"diverged": run_state.diverged, "stopped_early": run_state.stopped}
        if config.train.stop_when_solved:
            ends["solved_at"] = run_state.solved_at
        run_metadata.end_session(path, status, most_updates(state), ends)
    processes.end_together()
    if status == "diverged":
        which = f"seed {config.seed}" if config.seeds == 1 else f"each of {config.seeds} seeds"
        raise DivergedError(
            f"the loss or gradient of {which} is not finite, at step"
            f" {max(run_state.diverged.values())}; the last good checkpoint, from before that"
            f" step, is {saver.path}"
        )
    if status == "interrupted":
        command = run_directory.resume_command(path)
        if run_metadata.only_in_session(path):
            command = f"jaxrnn.resume({str(path)!r})"
        note(f"stopped at step {run_state.step}; resume with: {command}")
        signals.stop(asked_to_stop[0])
    return RunResult(
        path,
        config,
        run_state.history,
        state,
        run_state.diverged,
        run_state.stopped,
        run_state.solved_at,
        compile_seconds,
        run_state.seconds - seconds_before,
    )


def compile_run(loop: TrainLoop) -> tuple[CompiledLoop, float]:
    """Compile the loop; return it and the seconds that took.

    Meanwhile import what saving needs.
    """
    started = time.perf_counter()
    compiled = tuning.fit_memory(compile_loop(loop, meanwhile=_import_writers))
    return compiled, time.perf_counter() - started


def _import_writers() -> None:
    importlib.import_module("orbax.checkpoint")
    import_tensorboardx()


def _train(
    directory: RunDirectory,
    compiled: CompiledLoop,
    run_state: RunState,
    saver: CheckpointWriter,
    asked_to_stop: list[signal.Signals],
    callbacks: Iterable[Callback],
    label: str,
) -> RunState:
    """Call the compiled loop until training is over or a checkpoint answered a signal."""
    config, events = compiled.config, directory.path / run_directory.TENSORBOARD
    with contextlib.ExitStack() as stack:
        writers: list[Callback] = [saver, *callbacks]
        if directory.metrics is not None:
            shown = ProgressBar(config, run_state, label), MetricsWriter(directory.metrics)
            writers = [*shown, EventsWriter(partial(Events, events, run_state.step)), *writers]
        for writer in writers:
            stack.enter_context(writer)
        for run_state in run_loop(compiled, run_state):  # noqa: B020
            for writer in writers:
                writer.after_call(run_state)
            if signals.agree(asked_to_stop) and saver.step == run_state.step:
                break
    return run_state


def _listed(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name}{list(shape) or ''}" for name, shape in sorted(shapes.items()))


def name_of(task: Task) -> str:
    """Return a name for the runs of a task: NextCharacter -> next_character."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(task).__name__).lower()
