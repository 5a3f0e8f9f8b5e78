"""How long can a recurrent network remember? Tasks that need a long memory.

    python experiments/memory.py --task adding --sequence-length 200 --cell gru
    python experiments/memory.py --task adding --variant 1997
    python experiments/memory.py --task copy --delay 100
    python experiments/memory.py --task selective-copy --num-symbols 16 --num-copied 16
    python experiments/memory.py --task temporal-order --variant 6b

Sources and memoryless baselines of the tasks are in `jaxrnn/tasks`.
"""

import os

if __name__ == "__main__":  # before JAX is imported; see experiments/hihello.py
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from dataclasses import dataclass
from typing import Annotated

import tyro

from jaxrnn import cli
from jaxrnn.cli.options import (
    NetworkOptions,
    RunOptions,
    TrainingOptions,
    make_experiment,
    make_task,
    task_options,
)
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.processes import Processes

NAMES = ("adding", "copy", "selective-copy", "temporal-order")
"""The tasks of this script."""


@dataclass(frozen=True)
class Config:
    """Train recurrent networks on a task that needs a long memory."""

    task: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(NAMES) + "}")] = "adding"
    """adding: the sum of two marked numbers; copy: repeat ten symbols after a delay;
    selective-copy: repeat ten symbols that come at random steps; temporal-order: the order of two
    or three symbols."""
    sequence_length: int | None = None
    """Time steps of a sequence, not for --task copy; default: 100."""
    delay: int | None = None
    """Steps between reading and repeating, only for --task copy; default: 100."""
    num_symbols: int | None = None
    """How many different symbols there are, for the two copy tasks; default: 8."""
    num_copied: int | None = None
    """How many symbols to repeat, for the two copy tasks; default: 10."""
    variant: str | None = None
    """sum or 1997 for --task adding (default: sum), 6a or 6b for temporal-order (default: 6a)."""
    batch_size: int = 50
    """Sequences per batch."""
    network: Annotated[NetworkOptions, tyro.conf.arg(name="")] = NetworkOptions()
    training: Annotated[TrainingOptions, tyro.conf.arg(name="")] = TrainingOptions()
    run: Annotated[RunOptions, tyro.conf.arg(name="")] = RunOptions()
    processes: Annotated[Processes, tyro.conf.arg(name="")] = Processes()

    def __post_init__(self) -> None:
        make_config(self)  # checks the settings


def make_config(config: Config) -> ExperimentConfig:
    """Return the experiment: task, model and training settings."""
    task = make_task(config.task, NAMES, task_options(config))
    return make_experiment(config, task)


def main(config: Config) -> None:
    """Train, print a summary and plot the curves."""
    run = config.run
    cli.run_and_report(
        make_config(config),
        run_dir=run.run_dir,
        name="memory",
        plots=not run.no_plots,
        track=run.track,
    )


if __name__ == "__main__":
    cli.run_command(Config, main, make_config=make_config)
