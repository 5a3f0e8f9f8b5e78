"""Temporal order, Hochreiter and Schmidhuber (1997), experiments 6a and 6b.

Gers, Schmidhuber and Cummins (2000) trained an LSTM with forget gates on 6b; its biases began at 5.
"""

from typing import Any

from jaxrnn.cells import LSTMCell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.tasks import TemporalOrder
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from studies import (
    NO_FORGET_GATE,
    Measure,
    Options,
    Published,
    Study,
    solved,
    steps_to_success,
)

BATCH = 10
SOLVED, SEQUENCES = "solved", "sequences until solved"
OLD = "LSTM without forget gates"
SOURCE = "Hochreiter and Schmidhuber (1997), table 9; means of 20 (6a) and 10 (6b) trials"


def experiments(options: Options) -> dict[str, ExperimentConfig]:
    """Four cells for 6a and six for 6b, as published; the forget bias is that of Gers et al.

    The published networks' input gates started with negative biases, another one in each block.
    """
    train = TrainConfig(
        4000 if options.small else 20_000,
        1e-2,
        log_every=500,
        validate_every=100,
        stop_when_solved=True,
        flatten=True,
    )
    biases: dict[str, dict[str, Any]] = {
        OLD: {"forget_bias": NO_FORGET_GATE, "input_bias": -3.0},
        "without them, input bias 0": {"forget_bias": NO_FORGET_GATE},
        "LSTM, forget bias 5": {"forget_bias": 5.0},
    }

    def experiment(variant: str, bias: dict[str, Any]) -> ExperimentConfig:
        task = TemporalOrder(batch_size=BATCH, variant=variant)
        cell = LSTMCell({"6a": 4, "6b": 6}[variant], **bias)
        model = SequenceModel(Recurrent(cell), task.output_size)
        return ExperimentConfig(task, model, train, seeds=options.seeds, vmap_size=options.half)

    return {
        f"{variant}/{name}": experiment(variant, bias)
        for variant in (("6a",) if options.small else ("6a", "6b"))
        for name, bias in biases.items()
    }


STUDY = Study(
    title="Temporal order",
    question="How many sequences does an LSTM need to tell the order of two or three symbols?",
    experiments=experiments,
    measures=(
        Measure(SOLVED, solved),
        Measure(SEQUENCES, steps_to_success(BATCH), False, statistic="median"),
    ),
    published=(
        Published(f"6a/{OLD}", SEQUENCES, "31,390", SOURCE),
        Published(f"6b/{OLD}", SEQUENCES, "571,100", SOURCE),
    ),
    curve="validation_loss",
    small="6a alone, 40,000 sequences",
)
