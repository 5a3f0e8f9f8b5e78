"""Forecast a series: synthetic, measured, or from your own file.

    python experiments/forecast.py --task mackey-glass --cell gru
    python experiments/forecast.py --task file --data FILE --horizon 3

The sources of the series are in `jaxrnn/tasks`. The run's directory gets a plot of a forecast.
"""

import os

if __name__ == "__main__":  # before JAX is imported; see experiments/hihello.py
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxrnn import cli
from jaxrnn.choices import check_choice
from jaxrnn.cli.options import NetworkOptions, RunOptions, TrainingOptions, make_experiment
from jaxrnn.errors import SettingError
from jaxrnn.runs.loading import load
from jaxrnn.tasks.forecasting import Forecasting
from jaxrnn.tasks.lorenz import Lorenz
from jaxrnn.tasks.mackey_glass import MackeyGlass
from jaxrnn.tasks.measured_series import BUNDLED, MeasuredSeries, bundled
from jaxrnn.tasks.sine import Sine
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.processes import Processes, is_first

SYNTHETIC: dict[str, Callable[..., Forecasting]] = {
    "sine": Sine,
    "mackey-glass": MackeyGlass,
    "lorenz": Lorenz,
}
NAMES = (*SYNTHETIC, *BUNDLED, "file")


@dataclass(frozen=True)
class Config:
    """Train recurrent networks to forecast a series, and compare them with simple baselines."""

    task: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(NAMES) + "}")] = "mackey-glass"
    """The series; sunspots and laser come with the packages statsmodels and reservoirpy."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """With --task file: a .npy file, or text with a number at the end of each line."""
    sequence_length: int = 100
    """Time steps of a window."""
    horizon: int = 1
    """How many steps ahead to predict."""
    warmup: int = 20
    """The first steps of a window, which are read but not scored."""
    batch_size: int = 32
    """Windows per batch."""
    val_fraction: float | None = None
    """Fraction of a measured series, at its end, to validate on; default: 0.2."""
    lags: int | None = None
    """How many values the linear autoregression reads; by default as many as --warmup."""
    network: Annotated[NetworkOptions, tyro.conf.arg(name="")] = NetworkOptions(hidden_size=64)
    training: Annotated[TrainingOptions, tyro.conf.arg(name="")] = TrainingOptions(
        steps=1000, learning_rate=3e-3, schedule="cosine", validate_every=100
    )
    run: Annotated[RunOptions, tyro.conf.arg(name="")] = RunOptions()
    processes: Annotated[Processes, tyro.conf.arg(name="")] = Processes()

    def __post_init__(self) -> None:
        check_choice("--task", self.task, NAMES)
        if (self.task == "file") != (self.data is not None):
            raise SettingError("--task file and --data FILE need each other")
        if self.task in SYNTHETIC and self.val_fraction is not None:
            raise SettingError("--val-fraction is for measured series; others are generated")
        if self.network.bidirectional:
            raise SettingError("--bidirectional would show the network the values to predict")
        if self.lags is not None and not 1 <= self.lags <= self.warmup + 1:
            raise SettingError(f"--lags must be from 1 to {self.warmup + 1}, --warmup plus 1")


def make_config(config: Config) -> ExperimentConfig:
    """Return the experiment: task, model and training settings.

    Raises:
      RunError, OSError: if the series cannot be read.
      SettingError: if a setting is out of range.
    """
    settings = config.sequence_length, config.horizon, config.warmup, config.batch_size
    if config.task in SYNTHETIC:
        task = SYNTHETIC[config.task](*settings)
    else:
        file = config.data or bundled(config.task)
        given = {} if config.val_fraction is None else {"val_fraction": config.val_fraction}
        task = MeasuredSeries(*settings, file=file, **given)
        task.arrays()  # so that a bad file is found before the run has a directory
    return make_experiment(config, task)


def main(config: Config) -> None:
    """Train, print a summary with the baselines, and plot the curves and a forecast."""
    experiment, run = make_config(config), config.run
    task = experiment.task
    assert isinstance(task, Forecasting)
    result = cli.run_and_report(
        experiment, run_dir=run.run_dir, name="forecast", plots=not run.no_plots, track=run.track
    )
    if not is_first():
        return
    from jaxrnn.analysis import forecasts

    print(forecasts.summarize_baselines(forecasts.baselines(task, config.lags)))
    if not run.no_plots:
        seed = None if experiment.validates else run.seed
        network = load(result.run_dir, model_seed=seed)
        found = forecasts.forecast(task, network.model, network.params)
        title = f"{config.task}: {config.network.cell}, seed {network.seed}"
        forecasts.plot(result.run_dir / "forecast.png", task, found, title)


if __name__ == "__main__":
    cli.run_command(Config, main, make_config=make_config)
