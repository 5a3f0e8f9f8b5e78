"""The embedded Reber grammar, Hochreiter and Schmidhuber (1997), experiment 1.

As in 1997, each update is of one string, and training ends at the first success on all 512 strings.
There the gates of a block's two cells were shared, and the optimizer was gradient descent.
"""

from jaxrnn.cells import LSTMCell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.tasks.grammars import EmbeddedReber
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

OLD, SOLVED, STRINGS = "LSTM without forget gates", "solved", "strings until solved"
SOURCE = "Hochreiter and Schmidhuber (1997), table 1, five LSTMs, means of 30 trials"


def experiments(options: Options) -> dict[str, ExperimentConfig]:
    """Six cells, as in the larger of the published networks."""
    steps = 4000 if options.small else 20_000
    train = TrainConfig(
        steps, 1e-2, log_every=1000, validate_every=100, stop_when_solved=True, flatten=True
    )
    cells = {OLD: LSTMCell(6, forget_bias=NO_FORGET_GATE), "LSTM": LSTMCell(6)}
    task = EmbeddedReber(batch_size=1)
    return {
        label: ExperimentConfig(
            task,
            SequenceModel(Recurrent(cell), task.output_size),
            train,
            seeds=options.seeds,
            vmap_size=options.half,
        )
        for label, cell in cells.items()
    }


STUDY = Study(
    title="Embedded Reber grammar",
    question="How many strings does a small network need to learn the embedded Reber grammar?",
    experiments=experiments,
    measures=(
        Measure(SOLVED, solved),
        Measure(STRINGS, steps_to_success(), False, statistic="median"),
    ),
    published=(
        Published(OLD, SOLVED, "97 to 100%", SOURCE),
        Published(OLD, STRINGS, "8,440 to 39,740", SOURCE),
    ),
    curve="validation_correct_strings",
    small="4000 strings",
)
