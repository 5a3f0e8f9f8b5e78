"""How long can a recurrent network remember? The adding and the copy memory problem.

    python experiments/memory.py --task adding --length 200 --cell gru

The sources of both tasks, and the score of a predictor without memory, are in `jaxrnn/tasks`.
"""

import os

if __name__ == "__main__":  # before JAX is imported; experiments/hihello.py says why
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxrnn import cli
from jaxrnn.cells import CELLS
from jaxrnn.checks import check_counts
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Stack
from jaxrnn.models import SequenceModel
from jaxrnn.tasks import TASKS
from jaxrnn.training.config import ExperimentConfig, TrainConfig


@dataclass(frozen=True)
class Config:
    """Train recurrent networks on a task with long memory."""

    task: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(TASKS) + "}")] = "adding"
    """adding: the sum of two marked numbers; copy: ten symbols, to be said again at the end."""
    length: int = 100
    """Time steps; of the copy task the blank ones between reading and saying."""
    cell: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(CELLS) + "}")] = "lstm"
    """The recurrent cell."""
    layers: int = 1
    """Recurrent layers, one above the other."""
    hidden_size: int = 128
    """Hidden units of each layer."""
    steps: int = 2000
    """Training steps (Adam updates)."""
    batch_size: int = 50
    """Sequences of one step, drawn anew each time."""
    learning_rate: float = 1e-3
    """Adam's learning rate, at its height."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What becomes of the learning rate: it stays, or goes to 0."""
    clip_norm: float = 1.0
    """The gradient's largest global norm."""
    log_every: int = 10
    """Steps from one line of metrics to the next."""
    seed: int = 0
    """Seed of the (first) network."""
    seeds: int = 1
    """How many networks to train at once, with seeds SEED, SEED+1, ..."""
    vmap_size: int | None = None
    """How many of them side by side; without it, what is fastest here."""
    run_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """Where to keep the run, a new or empty directory. Without it: a new number in runs/memory."""
    no_plots: bool = False
    """Draw no picture."""

    def __post_init__(self) -> None:
        for name, choices in (("task", TASKS), ("cell", CELLS)):
            if getattr(self, name) not in choices:
                said = repr(getattr(self, name))
                raise ValueError(f"--{name} must be one of {', '.join(choices)}, not {said}")
        check_counts(self, "layers", "hidden_size")
        make_config(self)  # raises for what it cannot be made of


def make_config(config: Config) -> ExperimentConfig:
    """What is trained, on what and how."""
    task = TASKS[config.task](length=config.length, batch_size=config.batch_size)
    cells = (CELLS[config.cell](config.hidden_size) for _ in range(config.layers))
    model = SequenceModel(Stack(tuple(map(Recurrent, cells))), task.output_size)
    train = TrainConfig(
        config.steps,
        config.learning_rate,
        schedule=config.schedule,
        clip_norm=config.clip_norm,
        log_every=config.log_every,
    )
    return ExperimentConfig(task, model, train, config.seed, config.seeds, config.vmap_size)


def main(config: Config) -> None:
    """Train, and say what came of it."""
    plots = not config.no_plots
    cli.run_and_report(make_config(config), run_dir=config.run_dir, name="memory", plots=plots)


if __name__ == "__main__":
    cli.run_command(Config, main)
