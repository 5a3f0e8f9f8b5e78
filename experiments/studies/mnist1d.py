"""MNIST-1D with a small bidirectional GRU, Greydanus and Kobak (2024): the published set."""

from pathlib import Path

from jaxrnn.cells import GRUCell
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional
from jaxrnn.models import SequenceClassifier
from jaxrnn.tasks import Classification, LabelledFile
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from studies import PERCENT, Measure, Options, Published, Study, final, highest

LABEL = "published set"
LAST, BEST = "final test accuracy, %", "best test accuracy, %"
MEASURES = (
    Measure(LAST, final("validation_accuracy", 100.0), bounds=PERCENT),
    Measure(BEST, highest("validation_accuracy", 100.0), bounds=PERCENT),
)
PAPER = "Greydanus and Kobak (2024), arXiv 2011.14439, table 1"
LOG = "notebooks/mnist1d-classification.ipynb in github.com/greydanus/mnist1d, one seed"


def experiment(task: Classification, options: Options) -> ExperimentConfig:
    """The published network and its training: Adam, no decay, no clipping."""
    both = Bidirectional(Recurrent(GRUCell(6)), Recurrent(GRUCell(6), reverse=True))
    train = TrainConfig(
        1000 if options.small else 6000,
        1e-2,
        clip_norm=None,
        flatten=True,
        log_every=250,
        validate_every=250,
    )
    model = SequenceClassifier(both, 10, "flatten")
    size = max(size for size in range(1, 11) if options.seeds % size == 0)
    return ExperimentConfig(task, model, train, seeds=options.seeds, vmap_size=size)


def experiments(options: Options) -> dict[str, ExperimentConfig]:
    """One experiment; as published, the batches are in the order of the set, without shuffling."""
    if options.data is None:
        raise SettingError("the study mnist1d needs --data FILE.npz, the published set")
    task = LabelledFile(batch_size=100, order="sequential", file=Path(options.data))
    return {LABEL: experiment(task, options)}


STUDY = Study(
    title="MNIST-1D",
    question="How well does a bidirectional GRU of 6 units per direction classify MNIST-1D?",
    experiments=experiments,
    measures=MEASURES,
    published=(
        Published(LABEL, LAST, "89.1", LOG, line=0.891),
        Published(LABEL, BEST, "91; 90.3 in the log", f"{PAPER}; {LOG}"),
    ),
    curve="validation_accuracy",
    small="1000 steps",
    takes_data=True,
)
