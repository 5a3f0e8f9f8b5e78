"""The continual embedded Reber grammar, Gers, Schmidhuber and Cummins (2000), table 2."""

import numpy as np

from jaxrnn.cells import LSTMCell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.tasks.grammars import ContinualReber
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from studies import (
    NO_FORGET_GATE,
    Measure,
    Options,
    Outcome,
    Published,
    Study,
    highest,
    solved,
    steps_to_success,
)

WRONG = "wrong symbols of 100,000, at best"
OLD, RESET, NEW = "standard LSTM", "standard LSTM, external resets", "LSTM with forget gates"
SOLVED, SYMBOLS = "perfect on the test streams", "symbols until perfect"
BATCH, WINDOW = 16, 100
SOURCE = "Gers, Schmidhuber and Cummins (2000), table 2, of 100 networks"


def experiments(options: Options) -> dict[str, ExperimentConfig]:
    """Eight cells; a test of 10 streams, of 100,000 or 10,000 symbols each."""
    train = TrainConfig(
        1500 if options.small else 5000,
        1e-2,
        log_every=100,
        validate_every=100,
        stop_when_solved=True,
        flatten=True,
    )

    def experiment(bias: float, resets: bool) -> ExperimentConfig:
        windows = 100 if options.small else 1000
        task = ContinualReber(WINDOW, BATCH, windows, external_resets=resets)
        model = SequenceModel(Recurrent(LSTMCell(8, forget_bias=bias)), task.output_size)
        return ExperimentConfig(task, model, train, seeds=options.seeds, vmap_size=options.half)

    return {
        OLD: experiment(NO_FORGET_GATE, False),
        RESET: experiment(NO_FORGET_GATE, True),
        NEW: experiment(1.0, False),
    }


def wrong_symbols(outcome: Outcome) -> np.ndarray:
    """[S], of 100,000 symbols of the test streams, at each seed's best validation."""
    wrong = 100_000 * (1 - highest("validation_correct")(outcome))
    return np.round(wrong, 1)  # the share is a float32


STUDY = Study(
    title="Continual embedded Reber grammar",
    question="Which LSTMs predict an endless stream of Reber strings without a mistake?",
    experiments=experiments,
    measures=(
        Measure(SOLVED, solved),
        Measure(WRONG, wrong_symbols, False, statistic="median"),
        Measure(SYMBOLS, steps_to_success(BATCH * WINDOW), False, statistic="median"),
    ),
    published=(
        Published(OLD, SOLVED, "0%", SOURCE),
        Published(RESET, SOLVED, "74%", SOURCE),
        Published(NEW, SOLVED, "18%", SOURCE),
    ),
    curve="validation_correct",
    small="1500 updates, test streams of 10,000 symbols",
)
