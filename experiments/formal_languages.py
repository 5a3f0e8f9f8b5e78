"""Formal languages, to be tracked, counted or nested by a recurrent network.

    python experiments/formal_languages.py --task parity --cell lstm --steps 10000
    python experiments/formal_languages.py --task modular-arithmetic --test-max-length 256
    python experiments/formal_languages.py --task embedded-reber --validate-every 50
    python experiments/formal_languages.py --task continual-reber --external-resets
    python experiments/formal_languages.py --task counting --num-letters 3 --test-max-count 40
    python experiments/formal_languages.py --task dyck --num-types 8 --max-depth 5

The regular languages are trained on short strings and tested on longer ones. Sources and
memoryless baselines of the tasks are in `jaxrnn/tasks`.
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
from jaxrnn.errors import SettingError
from jaxrnn.tasks.grammars.next_symbol import NextSymbol
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.processes import Processes

NAMES = (
    "parity",
    "even-pairs",
    "cycle-navigation",
    "modular-arithmetic",
    "permutations",
    "embedded-reber",
    "continual-reber",
    "counting",
    "dyck",
)
"""The tasks of this script."""


@dataclass(frozen=True)
class Config:
    """Train recurrent networks on a formal language."""

    task: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(NAMES) + "}")] = "parity"
    """parity: of the ones; even-pairs: of the pairs 01 and 10; cycle-navigation: the end of a walk
    on a circle; modular-arithmetic: the value of an expression; permutations: their product;
    embedded-reber, continual-reber: the next symbol of a small grammar; counting: a^n b^n; dyck:
    nested brackets."""
    min_length: int | None = None
    """The shortest training string; default: 1, for permutations 3."""
    max_length: int | None = None
    """The longest training string; default: 40, for dyck 84."""
    test_max_length: int | None = None
    """The longest test string; default: 500, for permutations 256."""
    strings_per_length: int | None = None
    """Test strings of each length; default: 1."""
    every_step: bool | None = None
    """True for an answer at every step, not only the last; default: False, permutations: True."""
    num_places: int | None = None
    """Places on the circle, for --task cycle-navigation; default: 5."""
    modulus: int | None = None
    """The modulus, for --task modular-arithmetic; default: 5."""
    num_elements: int | None = None
    """How many things are permuted, for --task permutations; default: 5."""
    num_training_strings: int | None = None
    """Training strings, for --task embedded-reber; 0 for new ones in each batch; default: 256."""
    num_test_strings: int | None = None
    """Test strings, for --task embedded-reber; default: 256."""
    string_set: int | None = None
    """Number of the training and test set, for --task embedded-reber; default: 0."""
    sequence_length: int | None = None
    """Time steps of a batch, for --task continual-reber; default: 100."""
    windows_per_stream: int | None = None
    """Batches until a stream starts again, for --task continual-reber; default: 100."""
    num_test_streams: int | None = None
    """Test streams, for --task continual-reber; default: 10."""
    external_resets: bool = False
    """Reset the state at the start of each string, for --task continual-reber."""
    num_letters: int | None = None
    """2 for a^n b^n, 3 for a^n b^n c^n, for --task counting; default: 2."""
    max_count: int | None = None
    """The largest n in training, for --task counting; default: 10."""
    test_max_count: int | None = None
    """The largest n in testing, for --task counting; default: 20."""
    num_types: int | None = None
    """Types of brackets, for --task dyck; default: 2."""
    max_depth: int | None = None
    """How deep brackets are nested, for --task dyck; default: 3."""
    batch_size: int | None = None
    """Strings per batch; default: 128; 32 for counting and dyck, 16 for the Reber grammars."""
    network: Annotated[NetworkOptions, tyro.conf.arg(name="")] = NetworkOptions()
    training: Annotated[TrainingOptions, tyro.conf.arg(name="")] = TrainingOptions(steps=10_000)
    run: Annotated[RunOptions, tyro.conf.arg(name="")] = RunOptions()
    processes: Annotated[Processes, tyro.conf.arg(name="")] = Processes()

    def __post_init__(self) -> None:
        task = make_config(self).task  # checks the settings
        if self.network.bidirectional and isinstance(task, NextSymbol):
            raise SettingError("--bidirectional would show the network the symbols to predict")


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
        name="formal_languages",
        plots=not run.no_plots,
        track=run.track,
    )


if __name__ == "__main__":
    cli.run_command(Config, main, make_config=make_config)
