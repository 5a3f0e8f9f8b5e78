"""Copy memory, Arjovsky, Shah and Bengio (2016), and the effect of the forget bias."""

import math
from collections.abc import Callable

from flax import linen as nn

from jaxrnn.cells import GRUCell, LSTMCell, make_cell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.tasks import CopyMemory
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from studies import (
    PERCENT,
    Measure,
    Options,
    Published,
    Study,
    final,
    solved,
    steps_below_memoryless_loss,
    steps_to_success,
)

LOSS = "final loss"
SOURCE = "Arjovsky, Shah and Bengio (2016), section 4.1: 10 ln 8 / (T + 20)"

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
    steps, size = (1500, 64) if options.small else (20_000, 128)
    train = TrainConfig(steps, 3e-3, schedule="cosine", log_every=20)

    def experiment(delay: int, cell: str) -> ExperimentConfig:
        task = CopyMemory(delay=delay, batch_size=32)
        model = SequenceModel(Recurrent(CELLS[cell](size)), task.output_size)
        return ExperimentConfig(task, model, train, seeds=options.seeds, vmap_size=1)

    return {label: experiment(*each) for label, each in delays_and_cells(options.small).items()}


def delays_and_cells(small: bool) -> dict[str, tuple[int, str]]:
    """The delay T and the cell of each experiment, by its label."""
    delays = (30,) if small else (100, 200, 500)
    cells = [cell for cell in CELLS if not (small and cell == "minLSTM")]
    return {f"T={delay}/{cell}": (delay, cell) for delay in delays for cell in cells}


def published(label: str, delay: int) -> Published:
    """The loss of the best network without memory, the same for every cell."""
    floor = 10 * math.log(8) / (delay + 20)
    return Published(label, LOSS, f"{floor:.3f} without memory", SOURCE, line=floor)


STUDY = Study(
    title="Copy memory",
    question="Which cells copy ten symbols after a delay, and what does the forget bias change?",
    experiments=experiments,
    measures=(
        Measure("accuracy of the copied symbols, %", final("accuracy", 100.0), bounds=PERCENT),
        Measure(LOSS, final("loss"), False),
        Measure(
            "steps until 5% below the memoryless loss",
            steps_below_memoryless_loss(0.95),
            False,
            statistic="median",
        ),
        Measure("solved (a tenth of it)", solved),
        Measure("steps until solved", steps_to_success(), False, statistic="median"),
    ),
    published=tuple(
        published(label, delay)
        for small in (True, False)
        for label, (delay, _) in delays_and_cells(small).items()
    ),
    seeds=10,
    small="a delay of 30, without minLSTM, 64 units, 1500 steps",
)
