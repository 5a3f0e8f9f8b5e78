"""Regular languages, Delétang et al. (2023): trained on lengths to 40, tested on 41 to 500."""

from jaxrnn.cells import make_cell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.tasks.regular import CycleNavigation, EvenPairs, ModularArithmetic, Parity
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from studies import (
    PERCENT,
    Measure,
    Options,
    Published,
    Study,
    highest,
    solved,
    steps_to_success,
)

TASKS = {
    "even pairs": EvenPairs,
    "parity": Parity,
    "cycle navigation": CycleNavigation,
    "modular arithmetic": ModularArithmetic,
}
LABELS = {"RNN": "rnn", "LSTM": "lstm"}
SOLVED = "solved: 90% right on longer strings"
SOURCE = "Delétang et al. (2023), appendix B.1: all of 10 seeds, best of three learning rates"


def experiments(options: Options) -> dict[str, ExperimentConfig]:
    """The published 256 units and batches of 128; a hundredth of the published 1,000,000 steps."""
    steps, size, batch = (1000, 32, 32) if options.small else (10_000, 256, 128)
    rates = {"rnn": 3e-3, "lstm": 1e-2} if options.small else {"rnn": 1e-3, "lstm": 1e-3}

    def experiment(name: str, cell: str) -> ExperimentConfig:
        train = TrainConfig(
            steps,
            rates[cell],
            log_every=100,
            validate_every=100 if options.small else 250,
            stop_when_solved=True,
            flatten=True,
        )
        task = TASKS[name](batch_size=batch)
        model = SequenceModel(Recurrent(make_cell(cell, size)), task.output_size)
        group = options.half if options.small else 1
        return ExperimentConfig(task, model, train, seeds=options.seeds, vmap_size=group)

    return {
        f"{name}/{label}": experiment(name, cell)
        for name in TASKS
        for label, cell in LABELS.items()
    }


STUDY = Study(
    title="Regular languages",
    question="Do RNNs and LSTMs that are trained on short strings understand longer ones?",
    experiments=experiments,
    measures=(
        Measure(SOLVED, solved),
        Measure("steps until solved", steps_to_success(), False, statistic="median"),
        Measure(
            "highest accuracy until then, %", highest("validation_accuracy", 100.0), bounds=PERCENT
        ),
    ),
    published=tuple(
        Published(f"{name}/{label}", SOLVED, "100%", SOURCE) for name in TASKS for label in LABELS
    ),
    curve="validation_accuracy",
    small="32 units, batches of 32, 1000 steps",
)
