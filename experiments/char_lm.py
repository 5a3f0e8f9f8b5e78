"""A recurrent language model of any text, character by character.

    python experiments/char_lm.py --text FILE
    jaxrnn sample runs/char_lm/0001 --prompt "ROMEO:" --temperature 0.8
    jaxrnn visualize runs/char_lm/0001 --text "To be, or not to be"

After Karpathy's char-rnn (2015): consecutive windows of a text, with the carry passed from one to
the next, and a validation loss over the whole validation part.
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
from jaxrnn.checks import check_counts, check_rate
from jaxrnn.choices import check_choice
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Stack
from jaxrnn.models import LanguageModel
from jaxrnn.runs import run_metadata
from jaxrnn.runs.run_directory import require_run
from jaxrnn.tasks.language import Language
from jaxrnn.text import corpus
from jaxrnn.text.corpus import check_fractions
from jaxrnn.text.tokenizer import TOKENIZERS, check_tokenizer
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.mesh import MeshShape
from jaxrnn.training.processes import Processes


@dataclass(frozen=True)
class Config:
    """Train a recurrent language model on a text file."""

    text: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """The text: UTF-8, or any file with --tokenizer bytes."""
    tokenizer: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(TOKENIZERS) + "}")] = (
        "characters"
    )
    """What a token is; jamo are the letters that make up Korean syllables."""
    cell: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(CELLS) + "}")] = "lstm"
    """The recurrent cell."""
    layers: int = 2
    """Number of recurrent layers."""
    hidden_size: int = 128
    """Hidden units per layer."""
    projection_size: int | None = None
    """Project the hidden state to this size; for the cells lstm and cifg."""
    embedding_size: int | None = None
    """Size of a learned input embedding; None feeds one-hot vectors."""
    tie_embeddings: bool = False
    """Use the input embedding as the readout matrix; its size must be the hidden size."""
    dropout: float = 0.0
    """Dropout rate between layers and before the readout."""
    batch_size: int = 50
    """Rows that the text is split into; each batch has one window of every row."""
    sequence_length: int = 50
    """Tokens per window: how far back gradients go."""
    reset_probability: float = 0.1
    """Probability that a row starts with a zero carry in a batch, so that the network can start
    anywhere in a text."""
    epochs: int = 10
    """Passes over the training part."""
    steps: int | None = None
    """Training steps, instead of --epochs."""
    optimizer: Literal["adam", "adam-tf1", "adamw", "rmsprop", "sgd"] = "adam"
    """The optimizer."""
    learning_rate: float = 4e-3
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate decays to 0; constant for no decay."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises from 0."""
    clip_norm: float = 1.0
    """Maximum global norm of the gradient."""
    val_fraction: float = 0.1
    """Fraction of the text to validate on, after the training part; 0 for none."""
    test_fraction: float = 0.0
    """Fraction of the text, at its end, to leave out for tests."""
    validate_every: int | None = None
    """Steps between validations; None for once per epoch."""
    patience: int | None = None
    """Stop early after this many validations without a new best."""
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
    init_from: Annotated[Path | None, tyro.conf.arg(metavar="RUN_DIR", help_behavior_hint="")] = (
        None
    )
    """Start from the trained networks of another run."""
    final: bool = False
    """With --init-from: start from its final, not its best, parameters."""
    extend_vocabulary: bool = False
    """With --init-from: also allow new tokens, which get fresh parameters."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Take the options from the config.json of a run, or from another JSON file of options; those
    given here override them, and --no-NAME turns a flag off."""
    run_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """A new or empty directory for the run; by default the next number in runs/char_lm."""
    track: Annotated[str | None, tyro.conf.arg(metavar="{wandb,trackio}")] = None
    """Also log to Weights & Biases or Trackio."""
    no_plots: bool = False
    """Do not plot the curves."""

    def __post_init__(self) -> None:
        check_choice("--cell", self.cell, CELLS)
        check_tokenizer(self.tokenizer)
        check_counts(self, "layers", "hidden_size", "epochs")
        for name in ("steps", "embedding_size"):
            if getattr(self, name) is not None:
                check_counts(self, name)
        check_fractions(self.val_fraction, self.test_fraction)
        MeshShape.parse(self.mesh)  # before the text is read
        check_rate("dropout", self.dropout)
        check_rate("reset probability", self.reset_probability)
        if self.extend_vocabulary and self.init_from is None:
            raise SettingError("--extend-vocabulary needs --init-from")
        if self.patience and not self.val_fraction:
            raise SettingError("--patience needs a --val-fraction above 0")


def make_config(config: Config) -> ExperimentConfig:
    """Return the experiment: task, model and training settings.

    Raises:
      RunError, OSError: if the text cannot be used.
      SettingError: if a setting is out of range.
    """
    task = Language.from_file(
        config.text,
        config.tokenizer,
        vocabulary=vocabulary(config),
        batch_size=config.batch_size,
        sequence_length=config.sequence_length,
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
        reset_probability=config.reset_probability,
    )
    size = config.hidden_size
    cells = [
        make_cell(config.cell, size, projection_size=config.projection_size)
        for _ in range(config.layers)
    ]
    model = LanguageModel(
        Stack(tuple(map(Recurrent, cells)), dropout=config.dropout),
        task.output_size,
        config.embedding_size,
        config.tie_embeddings,
        config.dropout,
    )
    train = TrainConfig(
        config.steps or config.epochs * task.batches_per_epoch,
        config.learning_rate,
        config.optimizer,
        schedule=config.schedule,
        warmup_steps=config.warmup_steps,
        clip_norm=config.clip_norm,
        log_every=config.log_every,
        validate_every=config.validate_every or task.batches_per_epoch,
        patience=config.patience,
    )
    first = cli.init_from(config.init_from, config.final)
    seeds = config.seed, config.seeds, config.vmap_size
    mesh = MeshShape.parse(config.mesh)
    options = cli.options_of(config)
    return ExperimentConfig(task, model, train, *seeds, init_from=first, mesh=mesh, options=options)


def vocabulary(config: Config) -> tuple[str, ...] | None:
    """Return that of the run to start from, perhaps extended by the text's; None without one."""
    if config.init_from is None:
        return None
    require_run(config.init_from)
    task = run_metadata.load_config(config.init_from).task
    if not isinstance(task, Language):
        raise SettingError(f"{config.init_from} is not the run of a language model")
    if task.tokenizer != config.tokenizer:
        raise SettingError(
            f"{config.init_from} has the tokenizer {task.tokenizer}, not {config.tokenizer}"
        )
    if not config.extend_vocabulary:
        return task.vocabulary
    own = corpus.read(config.text, config.tokenizer).vocabulary
    return tuple(sorted({*task.vocabulary, *own}))


def main(config: Config) -> None:
    """Train, print a summary and plot the curves."""
    cli.run_and_report(
        make_config(config),
        run_dir=config.run_dir,
        name="char_lm",
        plots=not config.no_plots,
        track=config.track,
    )


if __name__ == "__main__":
    cli.run_command(Config, main, make_config=make_config)
