"""Japanese Vowels with LSTMs of 100 units, as in MathWorks' tutorial."""

from jaxrnn.cells import LSTMCell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional
from jaxrnn.models import SequenceClassifier
from jaxrnn.tasks import JapaneseVowels
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from studies import PERCENT, Measure, Options, Published, Study, final, highest

BOTH, ONE = "BiLSTM", "LSTM"
LAST, BEST = "final test accuracy, %", "best test accuracy, %"
SOURCE = (
    'MathWorks, "Sequence Classification Using Deep Learning" (2022), as run by HelloWorld-1017,'
    ' "Sequence Classification Using LSTM and 1-D Convolutions in MATLAB" (2022), one network'
)


def experiments(options: Options) -> dict[str, ExperimentConfig]:
    """Batches of 27, so that an epoch is 10 steps; 50 epochs of Adam with a rate of 1e-3."""
    train = TrainConfig(100 if options.small else 500, 1e-3, log_every=10, validate_every=10)
    layers = {
        BOTH: Bidirectional(Recurrent(LSTMCell(100)), Recurrent(LSTMCell(100), reverse=True)),
        ONE: Recurrent(LSTMCell(100)),
    }
    return {
        label: ExperimentConfig(
            JapaneseVowels(batch_size=27),
            SequenceClassifier(layer, 9),
            train,
            seeds=options.seeds,
            vmap_size=1,
        )
        for label, layer in layers.items()
    }


STUDY = Study(
    title="Japanese Vowels",
    question="How well does an LSTM of 100 units name the speaker of two vowels?",
    experiments=experiments,
    measures=(
        Measure(LAST, final("validation_accuracy", 100.0), bounds=PERCENT),
        Measure(BEST, highest("validation_accuracy", 100.0), bounds=PERCENT),
    ),
    published=(Published(BOTH, LAST, "95.4", SOURCE, line=0.954),),
    curve="validation_accuracy",
    small="100 steps",
)
