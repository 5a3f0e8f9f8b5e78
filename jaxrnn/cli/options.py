"""The options that experiments share: groups of fields for their config dataclasses.

    @dataclass(frozen=True)
    class Config:
        network: Annotated[NetworkOptions, tyro.conf.arg(name="")] = NetworkOptions()
        training: Annotated[TrainingOptions, tyro.conf.arg(name="")] = TrainingOptions(steps=500)
        run: Annotated[RunOptions, tyro.conf.arg(name="")] = RunOptions()

The empty names keep the groups out of the options' names: `--cell`, not `--network.cell`.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from flax import linen as nn

from jaxrnn.cells import CELLS, make_cell
from jaxrnn.checks import check_counts, check_rate
from jaxrnn.choices import check_choice
from jaxrnn.cli import reporting
from jaxrnn.cli.config_file import options_of
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional, Stack
from jaxrnn.models import SequenceModel
from jaxrnn.tasks import TASKS
from jaxrnn.tasks.base import Task
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.mesh import MeshShape


@dataclass(frozen=True)
class NetworkOptions:
    """Recurrent layers."""

    cell: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(CELLS) + "}")] = "lstm"
    """The recurrent cell."""
    layers: int = 1
    """Number of recurrent layers."""
    hidden_size: int = 128
    """Hidden units per layer."""
    projection_size: int | None = None
    """Project the hidden state to this size; for the cells lstm and cifg."""
    bidirectional: bool = False
    """Read the sequence in both directions."""
    dropout: float = 0.0
    """Dropout rate between layers."""

    def __post_init__(self) -> None:
        """Check the settings."""
        check_choice("--cell", self.cell, CELLS)
        check_counts(self, "layers", "hidden_size")
        check_rate("dropout", self.dropout)
        self.stack()

    def stack(self) -> Stack:
        """Return the layers.

        Raises:
          SettingError: if the cell lacks an option that is set.
        """

        def layer(reverse: bool = False) -> Recurrent:
            cell = make_cell(self.cell, self.hidden_size, projection_size=self.projection_size)
            return Recurrent(cell, reverse=reverse)

        layers = (
            Bidirectional(layer(), layer(reverse=True)) if self.bidirectional else layer()
            for _ in range(self.layers)
        )
        return Stack(tuple(layers), dropout=self.dropout)


@dataclass(frozen=True)
class TrainingOptions:
    """How to train."""

    steps: int = 2000
    """Training steps (Adam updates)."""
    learning_rate: float = 1e-3
    """Adam's peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate decays to 0; constant for no decay."""
    clip_norm: float = 1.0
    """Maximum global norm of the gradient."""
    log_every: int = 10
    """Steps between lines of metrics."""
    validate_every: int | None = None
    """Steps between validations; None validates once, after training."""
    stop_when_solved: bool = False
    """Stop each network at the step at which it has solved the task."""

    def __post_init__(self) -> None:
        """Check the settings."""
        self.config()

    def config(self) -> TrainConfig:
        """Return these settings."""
        return TrainConfig(
            self.steps,
            self.learning_rate,
            schedule=self.schedule,
            clip_norm=self.clip_norm,
            log_every=self.log_every,
            validate_every=self.validate_every,
            stop_when_solved=self.stop_when_solved,
        )


@dataclass(frozen=True)
class RunOptions:
    """Seeds, devices and files."""

    seed: int = 0
    """Seed of the (first) network."""
    seeds: int = 1
    """Number of networks to train at once, with seeds SEED, SEED+1, ..."""
    vmap_size: int | None = None
    """How many networks to vmap over; by default the fastest number, which is measured."""
    mesh: Annotated[str, tyro.conf.arg(metavar="auto|seed=N|data=N|seed=N,data=N")] = "auto"
    """Devices to spread the seeds and the batch rows over; auto takes what is fastest here."""
    init_from: Annotated[
        Path | None, tyro.conf.arg(metavar="RUN_DIR|FILE.npz", help_behavior_hint="")
    ] = None
    """Start from the trained networks of another run, or from TensorFlow 1's weights."""
    final: bool = False
    """With --init-from: start from its final, not its best, parameters."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Take the options from the config.json of a run, or from another JSON file of options; those
    given here override them, and --no-NAME turns a flag off."""
    run_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """A new or empty directory for the run; by default the next number in runs/SCRIPT."""
    track: Annotated[str | None, tyro.conf.arg(metavar="{wandb,trackio}")] = None
    """Also log to Weights & Biases or Trackio."""
    no_plots: bool = False
    """Do not plot the curves."""


def task_options(config: Any) -> dict[str, Any]:
    """Return the fields of a script's config that are settings of tasks: all but `task` and groups.

    A flag that is not set is None, as any option that was not given.
    """
    given = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name != "task" and not dataclasses.is_dataclass(value):
            is_unset_flag = value is False and field.default is False
            given[field.name] = None if is_unset_flag else value
    return given


def make_task(name: str, names: tuple[str, ...], options: Mapping[str, Any]) -> Task:
    """Return a task of `TASKS` with the options that the user gave.

    Args:
      name: the value of `--task`.
      names: the tasks of the script.
      options: the tasks' settings by name; None for an option that was not given.

    Raises:
      SettingError: if the script has no such task, the task has no such setting, or a value is out
        of range.

    >>> make_task("copy", ("adding", "copy"), {"delay": 9, "sequence_length": None}).delay
    9
    >>> make_task("adding", ("adding", "copy"), {"delay": 9, "sequence_length": None})
    Traceback (most recent call last):
    jaxrnn.errors.SettingError: --delay is for --task copy; adding has --sequence-length
    """
    check_choice("--task", name, names)

    def has(task: str, option: str) -> bool:
        fields = dataclasses.fields(TASKS[task])  # pyright: ignore[reportArgumentType]
        return option in {field.name for field in fields}

    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if not has(name, option):
            flag, *others = (
                "--" + each.replace("_", "-")
                for each in (option, *(own for own in options if has(name, own)))
            )
            owners = ", ".join(task for task in names if has(task, option))
            raise SettingError(f"{flag} is for --task {owners}; {name} has {', '.join(others)}")
    return TASKS[name](**given)


def make_experiment(config: Any, task: Task, model: nn.Module | None = None) -> ExperimentConfig:
    """Return an experiment on a task.

    Args:
      config: a script's config with the groups `network`, `training` and `run`.
      task: the task.
      model: None for a `SequenceModel`.

    Raises:
      SettingError: if a setting is out of range.
      OSError: if there is no run to start from.
    """
    run: RunOptions = config.run
    return ExperimentConfig(
        task,
        model or SequenceModel(config.network.stack(), task.output_size),
        config.training.config(),
        run.seed,
        run.seeds,
        run.vmap_size,
        init_from=reporting.init_from(run.init_from, run.final),
        mesh=MeshShape.parse(run.mesh),
        options=options_of(config),
    )
