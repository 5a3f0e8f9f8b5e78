"""Which class is this sequence? MNIST-1D, handwritten digits, and speakers of Japanese vowels.

    python experiments/classify.py --task mnist1d --cell gru --bidirectional --pool flatten
    python experiments/classify.py --task digits --view pixels --permutation-seed 0
    python experiments/classify.py --task japanese-vowels --batch-size 27 --steps 1000

Sources and the published accuracies are in `jaxrnn/tasks`.
"""

import os

if __name__ == "__main__":  # before JAX is imported; see experiments/hihello.py
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxrnn import cli
from jaxrnn.choices import check_choice
from jaxrnn.cli.options import NetworkOptions, RunOptions, TrainingOptions, make_experiment
from jaxrnn.errors import SettingError
from jaxrnn.models import SequenceClassifier
from jaxrnn.tasks import MNIST1D, Classification, Digits, JapaneseVowels, LabelledFile
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.processes import Processes

OPTIONS = {
    "mnist1d": ("permutation_seed", "fresh"),
    "digits": ("permutation_seed", "view"),
    "japanese-vowels": ("folder",),
    "file": ("permutation_seed", "data"),
}
"""The options that each task has."""


@dataclass(frozen=True)
class Config:
    """Train recurrent networks to classify sequences."""

    task: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(OPTIONS) + "}")] = "mnist1d"
    """mnist1d: ten shapes in noise, generated; digits: 8x8 images, from scikit-learn;
    japanese-vowels: nine speakers, from aeon; file: sequences of your own."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="FILE.npz", help_behavior_hint="")] = None
    """With --task file: the arrays x [N, T] or [N, T, F], y [N], x_test and y_test."""
    folder: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """With --task japanese-vowels: where the .ts files are; by default in the package aeon."""
    view: Literal["rows", "pixels"] | None = None
    """With --task digits: read an image row by row, which is the default, or pixel by pixel."""
    permutation_seed: int | None = None
    """Put the steps in a fixed random order, the same for all sequences."""
    fresh: bool = False
    """With --task mnist1d: new examples for every batch, not a training set of 4000."""
    order: Literal["random", "sequential"] = "random"
    """Draw the rows of each batch at random, or take them in the order of the set."""
    pool: Literal["last", "mean", "flatten"] = "last"
    """Read the class from the last outputs, their mean, or all of them."""
    batch_size: int = 100
    """Sequences per batch."""
    network: Annotated[NetworkOptions, tyro.conf.arg(name="")] = NetworkOptions()
    training: Annotated[TrainingOptions, tyro.conf.arg(name="")] = TrainingOptions()
    run: Annotated[RunOptions, tyro.conf.arg(name="")] = RunOptions()
    processes: Annotated[Processes, tyro.conf.arg(name="")] = Processes()

    def __post_init__(self) -> None:
        check_choice("--task", self.task, OPTIONS)
        for name in dict.fromkeys(name for names in OPTIONS.values() for name in names):
            if name not in OPTIONS[self.task] and getattr(self, name) not in (None, False):
                option = name.replace("_", "-")
                having = [task for task, names in OPTIONS.items() if name in names]
                raise SettingError(f"--{option} is for --task {' or '.join(having)}")
        if self.task == "file" and self.data is None:
            raise SettingError("--task file needs --data FILE.npz")
        make_task(self)  # checks the settings


def make_task(config: Config) -> Classification:
    """Return the task."""
    settings: dict[str, Any] = {"batch_size": config.batch_size, "order": config.order}
    if config.task == "japanese-vowels":
        return JapaneseVowels(**settings, folder=config.folder)
    settings |= {"permutation_seed": config.permutation_seed}
    if config.task == "file":
        return LabelledFile(**settings, file=config.data)  # pyright: ignore[reportArgumentType]
    if config.task == "digits":
        return Digits(**settings, view=config.view or "rows")
    return MNIST1D(**settings, train_size=None if config.fresh else MNIST1D.train_size)


def make_config(config: Config) -> ExperimentConfig:
    """Return the experiment: task, model and training settings."""
    task = make_task(config)
    task.arrays()  # so that a missing or damaged file is reported first
    model = SequenceClassifier(config.network.stack(), task.output_size, config.pool)
    return make_experiment(config, task, model)


def main(config: Config) -> None:
    """Train, print a summary and plot the curves."""
    run = config.run
    cli.run_and_report(
        make_config(config),
        run_dir=run.run_dir,
        name="classify",
        plots=not run.no_plots,
        track=run.track,
    )


if __name__ == "__main__":
    cli.run_command(Config, main, make_config=make_config)
