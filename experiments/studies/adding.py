"""The adding problem of 200, 400 and 600 steps, as in Bai, Kolter and Koltun (2018)."""

from jaxrnn.cells import make_cell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.tasks import Adding
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from studies import (
    Measure,
    Options,
    Published,
    Study,
    final,
    solved,
    steps_to_success,
)

LABELS = {
    "LSTM": "lstm",
    "GRU": "gru",
    "RNN": "rnn",
    "IRNN": "irnn",
    "minLSTM": "minlstm",
    "minGRU": "mingru",
}
LOSS = "final squared error"
SOURCE = "Bai, Kolter and Koltun (2018), table 1, networks of 70,000 parameters"


def experiments(options: Options) -> dict[str, ExperimentConfig]:
    """One layer; the learning rate falls to 0. 128 units give an LSTM 67,000 parameters."""
    steps, size, lengths = (1000, 32, (100,)) if options.small else (10_000, 128, (200, 400, 600))

    def experiment(length: int, cell: str) -> ExperimentConfig:
        rate = 1e-3 if cell in ("rnn", "irnn") else 1e-2 if options.small else 2e-3
        train = TrainConfig(steps, rate, schedule="cosine", log_every=50)
        task = Adding(length, 32)
        group = options.half if options.small else 1
        model = SequenceModel(Recurrent(make_cell(cell, size)), task.output_size)
        return ExperimentConfig(task, model, train, seeds=options.seeds, vmap_size=group)

    return {
        f"T={length}/{label}": experiment(length, cell)
        for length in lengths
        for label, cell in LABELS.items()
    }


STUDY = Study(
    title="The adding problem",
    question="Which cells learn to add two numbers of a long sequence?",
    experiments=experiments,
    measures=(
        Measure(LOSS, final("loss"), False, statistic="median"),
        Measure("solved (squared error below 0.01)", solved),
        Measure("steps until solved", steps_to_success(), False, statistic="median"),
    ),
    published=(
        Published("T=600/LSTM", LOSS, "0.164", SOURCE, line=0.164),
        Published("T=600/GRU", LOSS, "5.3e-5", SOURCE),
        Published("T=600/RNN", LOSS, "0.177", SOURCE, line=0.177),
    ),
    seeds=20,
    small="T=100, 32 units, 1000 steps",
)
