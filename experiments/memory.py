"""How long can a recurrent network remember? The adding and copy memory problems.

    python experiments/memory.py --task adding --sequence-length 200 --cell gru
    python experiments/memory.py --task copy --delay 100

Sources and memoryless baselines of both tasks are in `jaxrnn/tasks`.
"""

import os

if __name__ == "__main__":  # before JAX is imported; see experiments/hihello.py
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from dataclasses import dataclass
from typing import Annotated

import tyro

from jaxrnn import cli
from jaxrnn.cli.options import NetworkOptions, RunOptions, TrainingOptions, make_experiment
from jaxrnn.errors import SettingError
from jaxrnn.tasks import TASKS
from jaxrnn.training.config import ExperimentConfig
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
    batch_size: int = 50
    """Sequences per batch."""
    network: Annotated[NetworkOptions, tyro.conf.arg(name="")] = NetworkOptions()
    training: Annotated[TrainingOptions, tyro.conf.arg(name="")] = TrainingOptions()
    run: Annotated[RunOptions, tyro.conf.arg(name="")] = RunOptions()
    processes: Annotated[Processes, tyro.conf.arg(name="")] = Processes()

    def __post_init__(self) -> None:
        if self.task not in LENGTH_OF:
            tasks = ", ".join(LENGTH_OF)
            raise SettingError(f"--task must be one of {tasks}, not {self.task!r}")
        for task, name in LENGTH_OF.items():
            if task != self.task and getattr(self, name) is not None:
                option = name.replace("_", "-")
                wanted = LENGTH_OF[self.task].replace("_", "-")
                raise SettingError(f"--{option} is for --task {task}; {self.task} has --{wanted}")
        make_config(self)  # checks the other settings


def make_config(config: Config) -> ExperimentConfig:
    """Return the experiment: task, model and training settings."""
    name = LENGTH_OF[config.task]
    length = getattr(config, name)
    lengths = {} if length is None else {name: length}
    task = TASKS[config.task](batch_size=config.batch_size, **lengths)
    return make_experiment(task, config.network, config.training, config.run)


def main(config: Config) -> None:
    """Train, print a summary and plot the curves."""
    run = config.run
    cli.run_and_report(
        make_config(config), run_dir=run.run_dir, name="memory", plots=not run.no_plots
    )


if __name__ == "__main__":
    cli.run_command(Config, main)
