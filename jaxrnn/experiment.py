"""Run a study in a directory of its own, go on with one that broke off, draw it.

Everything a run's numbers depend on is in its `Study`; what adds disk, clock and signals to it is
`session`.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax import linen as nn

from jaxrnn import grouping, session, signals
from jaxrnn.disk import metrics, names, record, runs
from jaxrnn.disk.metrics import History
from jaxrnn.errors import RunError
from jaxrnn.program import make_program
from jaxrnn.session import Clock
from jaxrnn.show import report
from jaxrnn.show.progress import note
from jaxrnn.study import Study
from jaxrnn.surroundings import compilation_cache
from jaxrnn.tasks.task import Task
from jaxrnn.train import Train, TrainState
from jaxrnn.validation import LOSS


class Result(NamedTuple):
    """What came of a run."""

    run_dir: Path
    study: Study
    history: History
    state: TrainState  # after the last update; each leaf [S, ...]
    broken: dict[int, int]  # by seed, the step whose loss or gradient was not finite
    stopped: dict[int, int]  # by seed, the step at which it stopped early
    clock: Clock

    @property
    def solved(self) -> np.ndarray | None:
        """[S] bool: which seeds have learned the task, if it can be."""
        return self.study.task.solved(metrics.last_rows(self.history, self.stopped))

    def __str__(self) -> str:
        """The run in a few lines."""
        task = self.study.task
        ends = self.solved, self.broken, task.baseline, self.stopped
        lines = [report.study(_name(task), *self.history, *ends)]
        if (held_out := self.history.values.get(LOSS)) is not None:
            lines.append(report.best(*self.history[:2], held_out, task.explain))
        lines.append(f"The training took {self.clock}; the run is in {self.run_dir}.")
        return "\n".join(lines)


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
    study = Study(task, model, train, seed, seeds, group)
    return run_study(study, run_dir=run_dir, name=name, picture=picture)


def run_study(
    study: Study,
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
    if names.loading_script():
        raise RunError('put what this script runs under `if __name__ == "__main__":`')
    compilation_cache.enable()
    record.config_of(study)  # refuses what cannot be written, before anything is made
    name, wanted = name or _name(study.task), None if run_dir is None else Path(run_dir)
    with signals.deferred() as asked, runs.new_run(name, wanted) as directory:
        study = grouping.choose(study)
        record.begin(directory.path, study)
        program = make_program(study)
        begin = session.Standing(0, program.blank)
        ended = session.work(directory, study, program, begin, asked)
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
    with signals.deferred() as asked, runs.open_run(run_dir) as directory:
        study = record.load_study(run_dir)
        for difference in record.differences(run_dir):
            note(f"{difference}; the run may not end with the bits it would have had")
        record.check_data(run_dir)
        program = make_program(study)
        at = session.restore(run_dir, study, program)
        metrics.cut(run_dir / runs.METRICS, at.step)
        ended = session.work(directory, study, program, at, asked)
    draw(run_dir)
    return Result(run_dir, study, *ended)


def draw(run_dir: Path | str) -> Path:
    """Draw a run's picture, from its metrics.jsonl.

    Raises:
      RunError: if there is nothing in it yet, or something else.
      OSError: if there is no metrics.jsonl, or the picture cannot be written.
    """
    from jaxrnn.show import plots  # not at the top: Matplotlib takes a second to import

    run_dir = Path(run_dir)
    file, path = run_dir / runs.METRICS, run_dir / runs.PICTURE
    history = metrics.read(file)
    if not history.steps.size:
        raise RunError(f"{file} has no line yet, so there is nothing to draw")
    title = "/".join(run_dir.resolve().parts[-2:])
    plots.curves(path, history.steps, history.values, record.baseline(run_dir), title)
    return path


def _name(task: Task) -> str:
    """NextCharacter -> next_character."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(task).__name__).lower()
