"""Train several experiments in one program, each with a run directory of its own.

The program has a directory, too, whose checkpoints hold the networks of all experiments:

    config.json     the `JointConfig`
    metrics.jsonl   empty; locked by the process that works on the program
    checkpoints/    removed at the end, when each run has one of its own

A run's directory is what it would have been if the run had been trained alone; its manifest.json
also has the program, with which `jaxrnn verify` trains it again.
"""

import contextlib
import shutil
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrnn.errors import RunError
from jaxrnn.runs import (
    checkpoints,
    config_json,
    files,
    initialization,
    metrics,
    run_directory,
    run_metadata,
    runner,
    signals,
    tuning,
)
from jaxrnn.runs.callbacks import (
    Callback,
    CheckpointWriter,
    EventsWriter,
    MetricsWriter,
    most_updates,
    solved_now,
)
from jaxrnn.runs.files import write_json
from jaxrnn.runs.import_paths import script_of_main
from jaxrnn.runs.progress import Progress, note
from jaxrnn.runs.run_directory import RunDirectory
from jaxrnn.runs.tensorboard import Events
from jaxrnn.training.calls import CompiledLoop, compile_loop, run_calls
from jaxrnn.training.history import last_loss, last_measured
from jaxrnn.training.joint import JointConfig
from jaxrnn.training.loop import TrainLoop
from jaxrnn.training.mesh import to_host
from jaxrnn.training.run_state import RunState, after_call, seed_status
from jaxrnn.training.step import TrainState

ENDED = ("finished", "diverged")


def train(joint: JointConfig, folder: Path, run_dirs: Sequence[Path], label: str = "") -> None:
    """Train all experiments of a program, or continue; a run that has ended is left as it is.

    Args:
      joint: the experiments; a program that was started before keeps the layout it had.
      folder: the program's directory.
      run_dirs: the directory of each experiment's run.
      label: shown at the start of each line of progress.

    Raises:
      RunError, OSError, MemoryError, KeyboardInterrupt, SystemExit: as `runner.run` and `resume`.
    """
    if all(map(has_ended, run_dirs)):
        shutil.rmtree(folder / run_directory.CHECKPOINTS, ignore_errors=True)
        return
    with signals.deferred() as asked, contextlib.ExitStack() as stack:
        joint, directory = stack.enter_context(_open_program(joint, folder))
        tuning.require_memory(loop := TrainLoop(joint))
        source = None
        if (run_dirs[0] / run_directory.MANIFEST).exists():
            source = run_metadata.load(run_dirs[0]).get("init_from")
        first, source = initialization.initial_state(loop, source)
        runs = [
            stack.enter_context(_open_run(joint, c, run_dir, folder, source))
            for c, run_dir in enumerate(run_dirs)
        ]
        state, run_states = _restore(loop, first, directory, run_dirs)
        if not all(each.is_over for each in run_states):
            state, run_states = _train(loop, state, run_states, directory, runs, asked, label)
        _end(joint, state, run_states, run_dirs)
        if all(each.is_over for each in run_states):
            shutil.rmtree(folder / run_directory.CHECKPOINTS, ignore_errors=True)
            return
    signals.stop(asked[0])


def has_ended(run_dir: Path) -> bool:
    """Whether a run is there and has ended by itself."""
    file = run_dir / run_directory.MANIFEST
    return file.exists() and run_metadata.load(run_dir)["status"] in ENDED


def program_of(run_dir: Path) -> tuple[JointConfig, int] | None:
    """Return the program in which a run was trained, and its number there; None if alone.

    Raises:
      RunError: if it cannot be rebuilt.
    """
    found = run_metadata.load(run_dir).get("sweep")
    if found is None:
        return None
    script = Path(found["script"]) if found["script"] else None
    try:
        joint = config_json.from_json(found["program"], script, "program")
    except ValueError as error:
        raise RunError(f"{run_dir / run_directory.MANIFEST}: {error}") from error
    return joint, found["number"]


def train_in_memory(joint: JointConfig, first: TrainState, label: str = "") -> list[RunState]:
    """Train all experiments of a program from step 0, without a directory.

    Args:
      joint: the experiments.
      first: what the first call is given.
      label: shown at the start of each line of progress.

    Returns:
      the run of each experiment, with its state in host memory.
    """
    compiled = compile_loop(TrainLoop(joint))
    experiments = [joint.experiment(c) for c in range(joint.experiments)]
    run_states, state = [RunState(0, first)] * joint.experiments, first
    with _JointProgress(joint, run_states, label) as progress:
        for call in run_calls(compiled, first, 0):
            state = call.state
            run_states = [
                each if each.is_over else after_call(experiments[c], each, call.of(joint.rows(c)))
                for c, each in enumerate(run_states)
            ]
            progress.update(run_states)
            if all(each.is_over for each in run_states):
                break
    whole = to_host(state)
    return [
        RunState(each.step, _rows(whole, joint, c), histories=each.histories)
        for c, each in enumerate(run_states)
    ]


@contextlib.contextmanager
def _open_program(joint: JointConfig, folder: Path) -> Any:
    """Lock the program's directory; choose the layout if this is the first time."""
    file = folder / run_directory.CONFIG
    if not file.exists():
        config = tuning.choose_layout(TrainLoop(joint)).config
        folder.mkdir(parents=True, exist_ok=True)
        (folder / run_directory.METRICS).touch()
        write_json(file, run_metadata.config_of(config))
    with run_directory.open_run(folder) as directory:
        joint = run_metadata.load_config(folder)  # pyright: ignore[reportAssignmentType]
        yield tuning.fit_devices(joint, None), directory


@contextlib.contextmanager
def _open_run(
    joint: JointConfig, c: int, run_dir: Path, folder: Path, source: dict[str, str] | None
) -> Any:
    """Start or continue the run of one experiment; yield its directory."""
    if not (run_dir / run_directory.CONFIG).exists():
        script = script_of_main()
        sweep = {
            "number": c,
            "directory": str(folder),
            "program": config_json.to_json(joint),
            "script": str(script) if script else None,
        }
        with run_directory.new_run("sweep", run_dir) as directory:
            run_metadata.begin(run_dir, joint.experiment(c), source, sweep)
            yield directory
        return
    with run_directory.open_run(run_dir) as directory:
        if not has_ended(run_dir):
            for difference in run_metadata.differences(run_dir):
                note(f"{difference}; the run may end with other bits")
            run_metadata.check_data(run_dir)
        yield directory


def _restore(
    loop: TrainLoop, first: TrainState, directory: RunDirectory, run_dirs: Sequence[Path]
) -> tuple[TrainState, list[RunState]]:
    """Return the state of all networks as of the newest intact checkpoint, and each run."""
    joint = loop.config
    assert isinstance(joint, JointConfig)
    restored = checkpoints.restore(directory.path / run_directory.CHECKPOINTS, loop.blank)
    for path, reason in restored.damaged if restored else ():
        note(f"skipping {path}: {reason}")
    if restored is None:
        for run_dir in run_dirs:
            metrics.truncate(run_dir / run_directory.METRICS, 0)
        return first, [RunState(0, first)] * len(run_dirs)
    run_states = []
    for c, run_dir in enumerate(run_dirs):
        state = _rows(restored.state, joint, c)
        step, seconds = restored.position["next_step"], restored.position["seconds"]
        run_states.append(_restore_run(loop, joint.experiment(c), run_dir, state, step, seconds))
    return restored.state, run_states


def _restore_run(
    loop: TrainLoop, config: Any, run_dir: Path, state: TrainState, step: int, seconds: float
) -> RunState:
    """Return one run before a step of its program; it may be over already."""
    file, status = run_dir / run_directory.METRICS, seed_status(config, state, step)
    is_over = status.is_all(config)
    before = int(np.max(state.step)) + 1 if is_over else step
    history, last = metrics.read(file, before=before), status.last_success(config)
    if history.steps.tolist() != config.logged(np.arange(before), last).tolist():
        raise RunError(f"{file} lacks lines that it had when a checkpoint was saved; restore them")
    runner.require_same_metrics(run_dir, history, loop)
    metrics.truncate(file, before)
    status = seed_status(config, state, step, history.values["loss"][:, -1])
    is_over = is_over or step > config.train.steps
    step = status.next_step if status.is_all(config) else step
    return RunState(step, state, seconds, (history,), *status, is_over=is_over)


def _train(
    loop: TrainLoop,
    state: TrainState,
    run_states: list[RunState],
    directory: RunDirectory,
    runs: Sequence[RunDirectory],
    asked: list[signal.Signals],
    label: str,
) -> tuple[TrainState, list[RunState]]:
    """Call the compiled loop until all runs are over, or a checkpoint answered a signal."""
    joint = loop.config
    assert isinstance(joint, JointConfig)
    experiments = [joint.experiment(c) for c in range(joint.experiments)]
    seconds = max(each.seconds for each in run_states)
    step = max(each.step for each in run_states if not each.is_over)
    compiled: CompiledLoop = runner.compile_run(loop)[0]
    for run in runs:
        if not has_ended(run.path):
            run_metadata.begin_session(run.path, step, joint)
    if asked:
        return state, run_states
    with contextlib.ExitStack() as stack:
        saver = stack.enter_context(CheckpointWriter(directory, joint, asked))
        progress = stack.enter_context(_JointProgress(joint, run_states, label))
        writers = [
            [stack.enter_context(writer) for writer in _writers(run, each)]
            for run, each in zip(runs, run_states, strict=True)
        ]
        for call in run_calls(compiled, state, step):
            state, seconds, before = call.state, seconds + call.seconds, run_states
            run_states = []
            for c, each in enumerate(before):
                if not each.is_over:
                    each = after_call(experiments[c], each, call.of(joint.rows(c)))
                    for writer in writers[c]:
                        writer.after_call(each)
                run_states.append(each)
            progress.update(run_states)
            for run in runs:
                files.sync(run.path / run_directory.METRICS)
            is_over = all(each.is_over for each in run_states)
            saver.after_call(RunState(call.stop, state, seconds, is_over=is_over))
            if is_over or (signals.agree(asked) and saver.step == call.stop):
                break
    return state, run_states


def _writers(run: RunDirectory, run_state: RunState) -> list[Callback]:
    assert run.metrics is not None
    events = EventsWriter(partial(Events, run.path / run_directory.TENSORBOARD, run_state.step))
    return [MetricsWriter(run.metrics), events]


def _end(
    joint: JointConfig, state: TrainState, run_states: list[RunState], run_dirs: Sequence[Path]
) -> None:
    """Record how each run ended, with a checkpoint of its own if it is over."""
    whole = to_host(state)
    for c, (run_dir, each) in enumerate(zip(run_dirs, run_states, strict=True)):
        if has_ended(run_dir):
            continue
        own, config = _rows(whole, joint, c), joint.experiment(c)
        if not run_metadata.load(run_dir)["sessions"]:  # killed before its first was recorded
            run_metadata.begin_session(run_dir, each.step, joint)
        if each.is_over:
            position = {"next_step": each.step, "seconds": each.seconds}
            folder = run_dir / run_directory.CHECKPOINTS
            checkpoints.save(folder, most_updates(own), own, position)
        status = "finished" if each.is_over else "interrupted"
        status = "diverged" if len(each.diverged) == config.seeds else status
        ends = {"diverged": each.diverged, "stopped_early": each.stopped}
        if config.train.stop_when_solved:
            ends["solved_at"] = each.solved_at
        run_metadata.end_session(run_dir, status, most_updates(own), ends)


def _rows(state: TrainState, joint: JointConfig, c: int) -> TrainState:
    return jax.tree.map(lambda leaf: leaf[joint.rows(c)], state)


class _JointProgress:
    """One line of progress for all runs of a program."""

    def __init__(self, joint: JointConfig, run_states: Sequence[RunState], label: str):
        self._experiments = [joint.experiment(c) for c in range(joint.experiments)]
        first = max(each.step for each in run_states)
        self._progress = Progress(joint.train.steps, first, label=label)
        self._last: list[dict[str, np.ndarray]] = []
        for each in run_states:
            self._last.append({})
            for history in each.histories:
                self._last[-1] = last_measured(history, self._last[-1])

    def __enter__(self) -> "_JointProgress":
        self._progress.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.__exit__(*error)

    def update(self, run_states: Sequence[RunState]) -> None:
        """Show the runs after a call: the median loss, and how many networks have solved it."""
        losses, solved, step = [], [], 0
        for c, each in enumerate(run_states):
            step = max(step, min(each.step, self._experiments[c].train.steps))
            self._last[c] = last_measured(each.histories[-1], self._last[c])
            losses.append(last_loss(each.histories))
            solved.append(solved_now(self._experiments[c], each, self._last[c]))
        finite = np.array(losses)[np.isfinite(losses)]
        known = [found for found in solved if found is not None]
        total = (sum(a for a, _ in known), sum(b for _, b in known)) if known else None
        self._progress.update(step, float(np.median(finite)) if finite.size else np.nan, total)
