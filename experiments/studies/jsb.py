"""Bach chorales, two layers of 200 units, as the LSTM of Bai, Kolter and Koltun (2018) has."""

from jaxrnn.cells import make_cell
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Stack
from jaxrnn.models import SequenceModel
from jaxrnn.tasks import Music
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from studies import Measure, Options, Published, Study, at_lowest_validation_loss, on_test_part

TEST = "test loss, nats per frame"
SOURCE = "Bai, Kolter and Koltun (2018), table 1, networks of 300,000 parameters"
LABELS = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn"}


def experiments(options: Options) -> dict[str, ExperimentConfig]:
    """One experiment per cell."""
    if options.data is None:
        raise SettingError("the study jsb needs --data FILE, JSB_Chorales.mat")
    task = Music(options.data)
    train = TrainConfig(
        600 if options.small else 2000,
        4e-3,
        schedule="cosine",
        log_every=50,
        validate_every=50,
    )

    def experiment(cell: str) -> ExperimentConfig:
        layers = tuple(Recurrent(make_cell(cell, 200)) for _ in range(2))
        model = SequenceModel(Stack(layers, dropout=0.2), task.output_size)
        return ExperimentConfig(task, model, train, seeds=options.seeds, vmap_size=1)

    return {label: experiment(cell) for label, cell in LABELS.items()}


STUDY = Study(
    title="Bach chorales",
    question="How well do an LSTM, a GRU and an RNN predict the next frame of a chorale of Bach?",
    experiments=experiments,
    measures=(
        Measure(TEST, on_test_part("loss"), higher_is_better=False),
        Measure(
            "validation loss, nats per frame",
            at_lowest_validation_loss("validation_loss"),
            higher_is_better=False,
        ),
    ),
    published=(
        Published("LSTM", TEST, "8.45", SOURCE),
        Published("GRU", TEST, "8.43", SOURCE),
        Published("RNN", TEST, "8.91", SOURCE),
    ),
    seeds=10,
    curve="validation_loss",
    small="600 steps",
    takes_data=True,
)
