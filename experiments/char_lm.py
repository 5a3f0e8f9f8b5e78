"""A recurrent language model of any text, character by character.

    python experiments/char_lm.py --text FILE
    python -m jaxrnn sample runs/char_lm/0001 --prime "ROMEO:" --temperature 0.8
    python -m jaxrnn show runs/char_lm/0001 --text "To be, or not to be"

After Karpathy's char-rnn (2015): windows of a text in order, the carry handed on from one to the
next, and the loss over all that is held out.
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
from jaxrnn.checks import check_counts, check_rate
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Stack
from jaxrnn.models import LanguageModel
from jaxrnn.tasks.language import Language
from jaxrnn.text.tokenizer import TOKENIZERS
from jaxrnn.training.config import ExperimentConfig, TrainConfig


@dataclass(frozen=True)
class Config:
    """Train a recurrent language model on a text file."""

    text: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """The text, UTF-8; with --units bytes any file."""
    units: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(TOKENIZERS) + "}")] = "characters"
    """What is read and said one at a time; jamo are the letters that make up Korean syllables."""
    cell: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(CELLS) + "}")] = "lstm"
    """The recurrent cell."""
    layers: int = 2
    """Recurrent layers, one above the other."""
    hidden_size: int = 128
    """Hidden units of each layer."""
    embedding_size: int | None = None
    """Learned numbers that a character becomes at the input; without it, its one-hot vector."""
    tied: bool = False
    """Read out with the embedding's own vectors; its size must be the hidden size."""
    dropout: float = 0.0
    """The share of each layer's outputs that is dropped on the way up."""
    batch_size: int = 50
    """Rows: places of the text that are read at once."""
    length: int = 50
    """The window: steps through which gradients go back."""
    passes: int = 10
    """How often to read the training part, if --steps does not say for how long."""
    steps: int | None = None
    """Training steps (updates), a batch of windows each; instead of --passes."""
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    """The optimiser."""
    learning_rate: float = 4e-3
    """Its learning rate, at its height."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """What becomes of the learning rate: it stays, or goes to 0."""
    warmup_steps: int = 0
    """Steps in which the learning rate rises from 0."""
    clip_norm: float = 1.0
    """The gradient's largest global norm."""
    validation: float = 0.1
    """The share of the text, after the training part, that is held out to validate; 0 for none."""
    test: float = 0.0
    """The share of the text, at its end, that is kept for tests: only the vocabulary knows it."""
    validate_every: int | None = None
    """Steps from one validation to the next; without it, one pass."""
    patience: int | None = None
    """Stop after so many validations that were not the best so far."""
    log_every: int = 10
    """Steps from one line of metrics to the next."""
    seed: int = 0
    """Seed of the (first) network."""
    seeds: int = 1
    """How many networks to train at once, with seeds SEED, SEED+1, ..."""
    vmap_size: int | None = None
    """How many of them side by side; without it, what is fastest here."""
    run_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """Where to keep the run, a new or empty directory. Without it: a new number in runs/char_lm."""
    no_plots: bool = False
    """Draw no picture."""

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise ValueError(f"--cell must be one of {', '.join(CELLS)}, not {self.cell!r}")
        check_counts(self, "layers", "hidden_size", "batch_size", "length", "passes", "log_every")
        for name in ("steps", "embedding_size", "validate_every", "patience"):
            if getattr(self, name) is not None:
                check_counts(self, name)
        if not 0 <= self.validation + self.test < 1 or min(self.validation, self.test) < 0:
            raise ValueError("--validation and --test must be shares that leave some text to train")
        check_rate("dropout", self.dropout)
        if self.patience and not self.validation:
            raise ValueError("--patience needs a share for --validation")


def make_config(config: Config) -> ExperimentConfig:
    """What is trained, on what and how.

    Raises:
      RunError, OSError: if the text cannot be learned from.
      SettingError: if a setting is out of range.
    """
    task = Language.from_file(
        config.text,
        config.units,
        batch_size=config.batch_size,
        length=config.length,
        splits=(1 - config.validation - config.test, config.validation),
    )
    cells = (CELLS[config.cell](config.hidden_size) for _ in range(config.layers))
    model = LanguageModel(
        Stack(tuple(map(Recurrent, cells)), dropout=config.dropout),
        task.output_size,
        config.embedding_size,
        config.tied,
        config.dropout,
    )
    train = TrainConfig(
        config.steps or config.passes * task.windows,
        config.learning_rate,
        config.optimizer,
        schedule=config.schedule,
        warmup_steps=config.warmup_steps,
        clip_norm=config.clip_norm,
        log_every=config.log_every,
        validate_every=config.validate_every or task.windows,
        patience=config.patience,
    )
    return ExperimentConfig(task, model, train, config.seed, config.seeds, config.vmap_size)


def main(config: Config) -> None:
    """Train, and say what came of it."""
    plots = not config.no_plots
    cli.run_and_report(make_config(config), run_dir=config.run_dir, name="char_lm", plots=plots)


if __name__ == "__main__":
    cli.run_command(Config, main)
