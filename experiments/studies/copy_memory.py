"""Copy memory, Arjovsky, Shah and Bengio (2016), and the effect of the forget bias."""

from collections.abc import Callable

from flax import linen as nn

from jaxrnn.cells import GRUCell, LSTMCell, make_cell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.tasks import CopyMemory
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from studies import (
    Measure,
    Options,
    Study,
    final,
    solved,
    steps_below_memoryless_loss,
    steps_to_success,
)

CELLS: dict[str, Callable[[int], nn.RNNCellBase]] = {
    "LSTM, forget bias 0": lambda size: LSTMCell(size, forget_bias=0.0),
    "LSTM, forget bias 1": LSTMCell,
    "LSTM, forget bias 5": lambda size: LSTMCell(size, forget_bias=5.0),
    "GRU": GRUCell,
    "RNN": lambda size: make_cell("rnn", size),
    "IRNN": lambda size: make_cell("irnn", size),
    "minLSTM": lambda size: make_cell("minlstm", size),
}


def experiments(options: Options) -> dict[str, ExperimentConfig]:
    """One layer; the same learning rate, which falls to 0, for all cells."""
    steps, size, delays = (1500, 64, (30,)) if options.small else (20_000, 128, (100, 200, 500))
    train = TrainConfig(steps, 3e-3, schedule="cosine", log_every=20)

    def experiment(delay: int, cell: nn.RNNCellBase) -> ExperimentConfig:
        task = CopyMemory(delay=delay, batch_size=32)
        model = SequenceModel(Recurrent(cell), task.output_size)
        return ExperimentConfig(task, model, train, seeds=options.seeds, vmap_size=1)

    return {
        f"T={delay}/{label}": experiment(delay, cell(size))
        for delay in delays
        for label, cell in CELLS.items()
        if not (options.small and label == "minLSTM")
    }


STUDY = Study(
    title="Copy memory",
    question="Which cells copy ten symbols after a delay, and what does the forget bias change?",
    experiments=experiments,
    measures=(
        Measure("accuracy of the copied symbols, %", final("accuracy", 100.0)),
        Measure("final loss", final("loss"), False),
        Measure(
            "steps until 5% below the memoryless loss",
            steps_below_memoryless_loss(0.95),
            False,
            statistic="median",
        ),
        Measure("solved (a tenth of it)", solved),
        Measure("steps until solved", steps_to_success(), False, statistic="median"),
    ),
    seeds=10,
    small="a delay of 30, without minLSTM, 64 units, 1500 steps",
)
