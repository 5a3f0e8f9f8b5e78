"""Name, at the end of a sequence, the symbol that came first.

python my_study.py --cell gru --sequence-length 20,40
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX: it logs errors that are none

import jax
import tyro

from jaxrnn import Batch, Task, cli
from jaxrnn.cli.options import NetworkOptions, RunOptions, TrainingOptions, make_experiment


@dataclass(frozen=True)
class FirstSymbol(Task):
    sequence_length: int
    output_size: int = 4
    memoryless_loss: float | None = 1.386  # ln 4, a guess among four

    def sample_batch(self, key, step, arrays=None):
        ids = jax.random.randint(key, (32, self.sequence_length), 0, 4)  # [B, T]
        weights = jax.numpy.zeros(ids.shape).at[:, -1].set(1.0)  # only the last step counts
        return Batch(jax.nn.one_hot(ids, 4), ids[:, :1].repeat(self.sequence_length, 1), weights)


@dataclass(frozen=True)
class Config:
    """Train recurrent networks to remember the first symbol of a sequence."""

    sequence_length: int = 20
    """Time steps of a sequence."""
    network: Annotated[NetworkOptions, tyro.conf.arg(name="")] = NetworkOptions(hidden_size=32)
    training: Annotated[TrainingOptions, tyro.conf.arg(name="")] = TrainingOptions(steps=1000)
    run: Annotated[RunOptions, tyro.conf.arg(name="")] = RunOptions(seeds=5)


def make_config(config):
    return make_experiment(config, FirstSymbol(config.sequence_length))


def main(config):
    run, options = config.run, {"name": Path(__file__).stem, "plots": not config.run.no_plots}
    cli.run_and_report(make_config(config), run_dir=run.run_dir, track=run.track, **options)


if __name__ == "__main__":
    cli.run_command(Config, main, make_config=make_config)
