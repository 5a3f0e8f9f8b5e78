"""Language models of equal size: LSTM, GRU and minGRU on the characters of Tiny Shakespeare."""

from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.cells import make_cell
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Stack
from jaxrnn.models import LanguageModel
from jaxrnn.tasks import Language
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from studies import Measure, Options, Outcome, Study, at_lowest_validation_loss

LABELS = {"LSTM": "lstm", "GRU": "gru", "minGRU": "mingru"}
SIZE = 128  # of the LSTM


def make_model(cell: str, size: int, layers: int, dropout: float, symbols: int) -> LanguageModel:
    """Stacked layers of one cell over one-hot inputs."""
    stack = Stack(tuple(Recurrent(make_cell(cell, size)) for _ in range(layers)), dropout=dropout)
    return LanguageModel(stack, symbols, dropout=dropout)


def num_parameters(model: LanguageModel) -> int:
    """How many parameters a model has."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


@cache
def largest_size(cell: str, layers: int, symbols: int) -> int:
    """How many units give no more parameters than the LSTM has."""

    def parameters(cell: str, size: int) -> int:
        return num_parameters(make_model(cell, size, layers, 0.0, symbols))

    most = parameters("lstm", SIZE)
    low, high = SIZE, 16 * SIZE  # `low` fits, `high` does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if parameters(cell, middle) <= most else (low, middle)
    return low


def equal_models(layers: int, dropout: float, symbols: int) -> dict[str, LanguageModel]:
    """The models, with as many parameters as the LSTM has, or a little fewer."""
    sizes = {
        cell: largest_size(cell, layers, symbols) for cell in LABELS.values() if cell != "lstm"
    }
    sizes["lstm"] = SIZE
    return {
        label: make_model(cell, sizes[cell], layers, dropout, symbols)
        for label, cell in LABELS.items()
    }


def make_experiments(
    options: Options, task: Language, layers: int, dropout: float, epochs: int
) -> dict[str, ExperimentConfig]:
    """One experiment per cell; validated after each epoch."""
    every = task.batches_per_epoch
    train = TrainConfig(epochs * every, 8e-3, schedule="cosine", log_every=50, validate_every=every)
    models = equal_models(layers, dropout, task.output_size)
    return {
        label: ExperimentConfig(task, model, train, seeds=options.seeds, vmap_size=1)
        for label, model in models.items()
    }


def text(options: Options, study: str) -> Path:
    """The file of --data."""
    if options.data is None:
        raise SettingError(f"the study {study} needs --data FILE, the text")
    return options.data


def experiments(options: Options) -> dict[str, ExperimentConfig]:
    """Two layers, windows of 50 characters, 50 rows, as in Karpathy's char-rnn."""
    task = Language.from_file(text(options, "language_models"), batch_size=50, sequence_length=50)
    return make_experiments(
        options, task, 1 if options.small else 2, 0.0, 2 if options.small else 10
    )


def parameters(outcome: Outcome) -> np.ndarray:
    """The number of parameters, the same for every seed."""
    model = outcome.config.model
    assert isinstance(model, LanguageModel)
    return np.full(len(outcome.history.seeds), float(num_parameters(model)))


MEASURES = (
    Measure(
        "best validation loss, nats per character",
        at_lowest_validation_loss("validation_loss"),
        higher_is_better=False,
    ),
    Measure("parameters", parameters, higher_is_better=False),
)

STUDY = Study(
    title="Characters of Tiny Shakespeare",
    question="Which of three cells predicts characters best, with equally many parameters?",
    experiments=experiments,
    measures=MEASURES,
    seeds=5,
    curve="validation_loss",
    small="one layer, 2 epochs",
    takes_data=True,
)
