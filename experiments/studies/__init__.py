"""Studies: a published result, trained again with many seeds. One file per study.

To add one, write `experiments/studies/NAME.py` with a `STUDY`:

    def experiments(options: Options) -> dict[str, ExperimentConfig]:
        train = TrainConfig(200 if options.small else 6000, stop_when_solved=True)
        cells = ("lstm", "gru")
        return {cell: ExperimentConfig(Adding(200), model(cell), train, seeds=options.seeds) ...}

    STUDY = Study(
        title="The adding problem",
        question="Which cells learn to add two numbers that are 200 steps apart?",
        experiments=experiments,
        measures=(
            Measure("solved", solved),
            Measure("final loss", final("loss"), higher_is_better=False),
            Measure("steps to success", steps_to_success(), False, statistic="median"),
        ),
        published=(Published("lstm", "final loss", "0.164", "Bai et al. (2018), table 1"),),
        seeds=20,
        curve="loss",
    )

`python experiments/study.py NAME` then trains each experiment in `runs/studies/NAME/LABEL`, where
`jaxrnn verify` and the other commands work on it, and prints a table. The labels "T=200/lstm" and
"T=200/gru" are two curves in one panel of the figure. Tasks, cells and optimizers must be in
`jaxrnn`, not in the study's file, or `jaxrnn verify` does not find them.

`--publish` writes the figure, the entry in docs/results/results.json, the table in
docs/results/NAME.md, and the gallery. Below the table, write what agrees, what does not, and why.
"""

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np

from jaxrnn.choices import check_choice
from jaxrnn.errors import SettingError
from jaxrnn.runs.evaluation import evaluate
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.history import History, last_rows
from jaxrnn.training.validation import LOSS


class Options(NamedTuple):
    """What the command line says."""

    seeds: int
    small: bool = False  # the smaller version, for machines on which the full one takes too long
    data: Path | None = None  # of --data, for a study that reads a file

    @property
    def half(self) -> int:
        """A `vmap_size` for small networks: half of the seeds, so that two cores have work."""
        return (self.seeds + 1) // 2


class Outcome(NamedTuple):
    """One experiment of a study, after training."""

    config: ExperimentConfig
    history: History  # every logged step; NaN after a seed diverged or stopped
    diverged: dict[int, int]  # seed -> step
    stopped: dict[int, int]  # seed -> step at which it stopped early
    seconds: float  # of training
    solved_at: Mapping[int, int] = MappingProxyType({})  # seed -> step, with `stop_when_solved`
    run_dir: Path = Path()  # of the run

    def last_rows(self) -> dict[str, np.ndarray]:
        """The last metrics that each seed has: by name, [S, ...]."""
        return last_rows(self.history, {**self.stopped, **self.solved_at})


Values = Callable[[Outcome], np.ndarray]

NO_FORGET_GATE = 1e4
"""A forget bias with which the gate is exactly 1, and without a gradient: the LSTM of 1997."""

PERCENT = (0.0, 100.0)
"""The bounds of a percentage."""


@dataclass(frozen=True)
class Measure:
    """A number per seed.

    Attributes:
      name: with its unit, such as "test accuracy, %".
      values: returns [S] float, NaN for a seed that has none; or [S] bool, for a success rate.
      higher_is_better: which seed is the best; ignored for rates.
      statistic: what is compared with the published value: the mean or the median over the seeds.
      bounds: the lowest and the highest possible value; intervals end there.
    """

    name: str
    values: Values
    higher_is_better: bool = True
    statistic: Literal["mean", "median"] = "mean"
    bounds: tuple[float, float] = (-math.inf, math.inf)


class Published(NamedTuple):
    """A published value."""

    label: str  # of the experiment
    measure: str  # its name
    value: str
    source: str  # paper or page, with section or table
    line: float | None = None  # a dashed line in the figure, in the curve's unit


@dataclass(frozen=True)
class Study:
    """A question, what was published, and the experiments that answer it.

    Attributes:
      title: a heading.
      question: one sentence.
      experiments: makes the experiments by label.
      measures: what is reported; the first with a published value goes into the gallery.
      published: the values to compare with.
      seeds: the default number of seeds.
      curve: the metric that the figure shows over the steps.
      small: what --small runs, in a phrase; empty if there is no smaller version.
      takes_data: whether the study has the option --data.
    """

    title: str
    question: str
    experiments: Callable[[Options], Mapping[str, ExperimentConfig]]
    measures: tuple[Measure, ...]
    published: tuple[Published, ...] = ()
    seeds: int = 100
    curve: str = "loss"
    small: str = ""
    takes_data: bool = False


def names() -> list[str]:
    """Return the names of all studies."""
    return sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py"))


def load(name: str) -> Study:
    """Return a study.

    Raises:
      SettingError: if there is none of that name.
    """
    check_choice("the study", name, names())
    return importlib.import_module(f"studies.{name}").STUDY


def final(metric: str, scale: float = 1.0) -> Values:
    """A metric of each seed's final network, times `scale`; NaN for a seed that diverged."""

    def values(outcome: Outcome) -> np.ndarray:
        values = outcome.last_rows()[metric] * scale
        return np.where(np.isin(outcome.history.seeds, list(outcome.diverged)), np.nan, values)

    return values


def at_lowest_validation_loss(metric: str, scale: float = 1.0) -> Values:
    """A metric of the network that `jaxrnn.load` gives for each seed, times `scale`."""

    def values(outcome: Outcome) -> np.ndarray:
        losses = outcome.history.values[LOSS]  # [S, R]
        rows = np.argmin(np.where(np.isfinite(losses), losses, np.inf), axis=1)
        return outcome.history.values[metric][np.arange(len(rows)), rows] * scale

    return values


def highest(metric: str, scale: float = 1.0) -> Values:
    """The highest value of a metric that each seed had at a logged step, times `scale`."""

    def values(outcome: Outcome) -> np.ndarray:
        values = np.asarray(outcome.history.values[metric], float)  # [S, R]
        best = np.max(np.where(np.isfinite(values), values, -np.inf), axis=1)
        return np.where(np.isfinite(best), best * scale, np.nan)

    return values


def on_test_part(metric: str, scale: float = 1.0) -> Values:
    """A metric of the network that `jaxrnn.load` gives for each seed, on the task's test part."""

    def values(outcome: Outcome) -> np.ndarray:
        values = evaluate(outcome.run_dir, "test").metrics[metric] * scale
        return np.where(np.isin(outcome.history.seeds, list(outcome.diverged)), np.nan, values)

    return values


def solved(outcome: Outcome) -> np.ndarray:
    """[S] bool, whether each seed solved its task, by the task's criterion, in the end."""
    if outcome.config.train.stop_when_solved:
        return np.isin(outcome.history.seeds, list(outcome.solved_at))
    return _solved(outcome, outcome.last_rows())


def steps_to_success(per_step: float = 1) -> Values:
    """The first logged step at which each seed solved its task; NaN for those that did not.

    Exact with `TrainConfig(log_every=1)`; with `stop_when_solved` in any case.

    Args:
      per_step: the number of sequences in a step, to count sequences.
    """

    def values(outcome: Outcome) -> np.ndarray:
        if outcome.config.train.stop_when_solved:
            seeds = outcome.history.seeds.tolist()
            return np.array([outcome.solved_at.get(seed, np.nan) for seed in seeds]) * per_step
        found = _solved(outcome, outcome.history.values)  # [S, R]
        first = outcome.history.steps[np.argmax(found, axis=1)] * per_step
        return np.where(np.any(found, axis=1), first, np.nan)

    return values


def steps_below_memoryless_loss(share: float = 1.0) -> Values:
    """The first logged step at which each seed's loss is below `share` times that without memory.

    NaN for those whose loss never was.
    """

    def values(outcome: Outcome) -> np.ndarray:
        level = outcome.config.task.memoryless_loss
        assert level is not None
        below = outcome.history.values["loss"] < share * level  # [S, R]
        first = outcome.history.steps[np.argmax(below, axis=1)]
        return np.where(np.any(below, axis=1), first, np.nan)

    return values


def _solved(outcome: Outcome, metrics: dict[str, np.ndarray]) -> np.ndarray:
    found = outcome.config.task.solved(metrics)
    if found is None:
        raise SettingError(f"{type(outcome.config.task).__name__} has no criterion of success")
    return np.asarray(found)
