"""A training script for tests/runs/test_processes.py: small, but with everything that has rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxrnn import cli
from jaxrnn.cells import LSTMCell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import LanguageModel
from jaxrnn.tasks.language import Language
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.mesh import MeshShape
from jaxrnn.training.processes import Processes


@dataclass(frozen=True)
class Config:
    """Train small language models."""

    text: Path
    run_dir: Path
    mesh: str = "auto"
    seeds: int = 1
    steps: int = 60
    processes: Annotated[Processes, tyro.conf.arg(name="")] = Processes()


def main(config: Config) -> None:
    """Train, saving after each call of three steps."""
    task = Language.from_file(
        config.text, batch_size=8, sequence_length=10, reset_probability=0.2, val_fraction=0.2
    )
    model = LanguageModel(Recurrent(LSTMCell(6)), task.output_size, dropout=0.2)
    train = TrainConfig(
        config.steps, 0.01, validate_every=20, steps_per_call=3, checkpoint_seconds=0
    )
    experiment = ExperimentConfig(
        task, model, train, 5, config.seeds, 1, mesh=MeshShape.parse(config.mesh)
    )
    cli.run_and_report(experiment, run_dir=config.run_dir, plots=False)


if __name__ == "__main__":
    cli.run_command(Config, main)
