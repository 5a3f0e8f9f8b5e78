"""How long can a recurrent network remember? The adding and copy memory problems.

    python experiments/memory.py --task adding --sequence-length 200 --cell gru
    python experiments/memory.py --task copy --delay 100

Sources and memoryless baselines of both tasks are in `jaxrnn/tasks`.
"""

import os

if __name__ == "__main__":  # before JAX is imported; see experiments/hihello.py
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxrnn import cli
from jaxrnn.cells import CELLS, make_cell
from jaxrnn.checks import check_counts
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Stack
from jaxrnn.models import SequenceModel
from jaxrnn.tasks import TASKS
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.mesh import MeshShape
from jaxrnn.training.processes import Processes

LENGTH_OF = {"adding": "sequence_length", "copy": "delay"}
"""The option that sets how long each task has to remember."""


@dataclass(frozen=True)
class Config:
    """Train recurrent networks on a task that needs a long memory."""

    task: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(LENGTH_OF) + "}")] = "adding"
    """adding: the sum of two marked numbers; copy: repeat ten symbols after a delay."""
    sequence_length: int | None = None
    """Time steps of a sequence, only for --task adding; default: 100."""
    delay: int | None = None
    """Steps between reading and repeating, only for --task copy; default: 100."""
    cell: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(CELLS) + "}")] = "lstm"
    """The recurrent cell."""
    layers: int = 1
    """Number of recurrent layers."""
    hidden_size: int = 128
    """Hidden units per layer."""
    projection_size: int | None = None
    """Project the hidden state to this size; for the cells lstm and cifg."""
    steps: int = 2000
    """Training steps (Adam updates)."""
    batch_size: int = 50
    """Sequences per batch."""
    learning_rate: float = 1e-3
    """Adam's peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate decays to 0; constant for no decay."""
    clip_norm: float = 1.0
    """Maximum global norm of the gradient."""
    log_every: int = 10
    """Steps between lines of metrics."""
    seed: int = 0
    """Seed of the (first) network."""
    seeds: int = 1
    """Number of networks to train at once, with seeds SEED, SEED+1, ..."""
    vmap_size: int | None = None
    """How many networks to vmap over; by default the fastest number, which is measured."""
    mesh: Annotated[str, tyro.conf.arg(metavar="auto|seed=N|data=N|seed=N,data=N")] = "auto"
    """Devices to spread the seeds and the batch rows over; auto takes what is fastest here."""
    processes: Annotated[Processes, tyro.conf.arg(name="")] = Processes()
    init_from: Annotated[
        Path | None, tyro.conf.arg(metavar="RUN_DIR|FILE.npz", help_behavior_hint="")
    ] = None
    """Start from the trained networks of another run, or from TensorFlow 1's weights."""
    final: bool = False
    """With --init-from: start from its final, not its best, parameters."""
    run_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """A new or empty directory for the run; by default the next number in runs/memory."""
    no_plots: bool = False
    """Do not plot the curves."""

    def __post_init__(self) -> None:
        for name, choices in (("task", LENGTH_OF), ("cell", CELLS)):
            if (value := getattr(self, name)) not in choices:
                raise SettingError(f"--{name} must be one of {', '.join(choices)}, not {value!r}")
        for task, name in LENGTH_OF.items():
            if task != self.task and getattr(self, name) is not None:
                option = name.replace("_", "-")
                wanted = LENGTH_OF[self.task].replace("_", "-")
                raise SettingError(f"--{option} is for --task {task}; {self.task} has --{wanted}")
        check_counts(self, "layers", "hidden_size")
        make_config(self)  # checks the other settings


def make_config(config: Config) -> ExperimentConfig:
    """Return the experiment: task, model and training settings."""
    name = LENGTH_OF[config.task]
    length = getattr(config, name)
    lengths = {} if length is None else {name: length}
    task = TASKS[config.task](batch_size=config.batch_size, **lengths)
    size = config.hidden_size
    cells = [
        make_cell(config.cell, size, projection_size=config.projection_size)
        for _ in range(config.layers)
    ]
    model = SequenceModel(Stack(tuple(map(Recurrent, cells))), task.output_size)
    train = TrainConfig(
        config.steps,
        config.learning_rate,
        schedule=config.schedule,
        clip_norm=config.clip_norm,
        log_every=config.log_every,
    )
    first = cli.init_from(config.init_from, config.final)
    seeds = config.seed, config.seeds, config.vmap_size
    mesh = MeshShape.parse(config.mesh)
    return ExperimentConfig(task, model, train, *seeds, init_from=first, mesh=mesh)


def main(config: Config) -> None:
    """Train, print a summary and plot the curves."""
    cli.run_and_report(
        make_config(config), run_dir=config.run_dir, name="memory", plots=not config.no_plots
    )


if __name__ == "__main__":
    cli.run_command(Config, main)
