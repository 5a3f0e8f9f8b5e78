"""The study mnist1d on a set that is generated as the published one was."""

from jaxrnn.tasks import MNIST1D
from jaxrnn.training.config import ExperimentConfig
from studies import Options, Study
from studies.mnist1d import MEASURES, experiment


def experiments(options: Options) -> dict[str, ExperimentConfig]:
    """A set of 4000 for training and 1000 for testing, the same for all seeds."""
    return {"generated set": experiment(MNIST1D(order="sequential"), options)}


STUDY = Study(
    title="MNIST-1D, generated",
    question="Does the GRU do as well on a set that is generated in the same way?",
    experiments=experiments,
    measures=MEASURES,
    curve="validation_accuracy",
    small="1000 steps",
)
