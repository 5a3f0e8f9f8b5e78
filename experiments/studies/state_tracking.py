"""State tracking: parity, modular arithmetic and permutations, after Grazzi et al. (2025).

There each layer is in a residual block with a norm, and DeltaNet has short convolutions.
"""

import numpy as np
from flax import linen as nn

from jaxrnn.cells import DeltaNetCell, ElmanCell, LSTMCell, SLSTMCell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Stack
from jaxrnn.models import SequenceModel
from jaxrnn.tasks.regular import ModularArithmetic, Parity, Permutations
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from studies import Measure, Options, Outcome, Published, Study, highest, solved, steps_to_success

SCALED = "best scaled accuracy"
SOURCE = "Grazzi et al. (2025), arXiv 2411.12537, table 3, the best of 3 runs"
PUBLISHED = {
    "parity/sLSTM": "1.000",
    "parity/DeltaNet [0, 1]": "0.017",
    "parity/DeltaNet [-1, 1]": "1.000",
    "modular arithmetic/sLSTM": "0.787",
    "modular arithmetic/DeltaNet [0, 1]": "0.314",
    "modular arithmetic/DeltaNet [-1, 1]": "0.971",
}
TASKS = {"parity": Parity, "modular arithmetic": ModularArithmetic, "S5": Permutations}


def cell(name: str, size: int) -> nn.RNNCellBase:
    """One cell; four heads where there are heads."""
    if name.startswith("DeltaNet"):
        return DeltaNetCell(size, num_heads=4, negative_eigenvalues="-1" in name)
    return {"RNN": ElmanCell, "LSTM": LSTMCell, "sLSTM": SLSTMCell}[name](size)


def experiments(options: Options) -> dict[str, ExperimentConfig]:
    """Two layers; lengths 3 to 40 in training, 41 to 256 in the test.

    The smaller version has one layer and lengths from 1, with which LSTM and sLSTM learn parity in
    1000 steps. With two layers two of four LSTMs did, and without the two shortest lengths none.
    """
    if options.small:
        layers, shortest, size, batch = 1, 1, 32, 32
        train = TrainConfig(1000, 1e-2, log_every=100, validate_every=100)
    else:
        layers, shortest, size, batch = 2, 3, 128, 256
        train = TrainConfig(
            20_000, 1e-3, schedule="cosine", warmup_steps=2000, log_every=100, validate_every=250
        )

    def experiment(task_name: str, name: str) -> ExperimentConfig:
        task = TASKS[task_name](min_length=shortest, test_max_length=256, batch_size=batch)
        group = options.half if options.small else 1
        stack = Stack(tuple(Recurrent(cell(name, size)) for _ in range(layers)))
        model = SequenceModel(stack, task.output_size)
        return ExperimentConfig(task, model, train, seeds=options.seeds, vmap_size=group)

    names = ("RNN", "LSTM", "sLSTM", "DeltaNet [0, 1]", "DeltaNet [-1, 1]")
    tasks = ("parity",) if options.small else TASKS
    return {f"{task}/{name}": experiment(task, name) for task in tasks for name in names}


def scaled(outcome: Outcome) -> np.ndarray:
    """The best accuracy on longer strings, scaled so that guessing is 0 and perfect is 1."""
    chance = 1 / outcome.config.task.output_size
    return (highest("validation_accuracy")(outcome) - chance) / (1 - chance)


STUDY = Study(
    title="State tracking",
    question="Which cells keep track of a state on strings longer than those of the training?",
    experiments=experiments,
    measures=(
        Measure(SCALED, scaled, statistic="median"),
        Measure("solved (accuracy 0.9)", solved),
        Measure("steps until solved", steps_to_success(), False, statistic="median"),
    ),
    published=tuple(Published(label, SCALED, value, SOURCE) for label, value in PUBLISHED.items()),
    curve="validation_accuracy",
    small="parity alone, lengths from 1, one layer, 32 units, batches of 32, 1000 steps",
)
