"""The study language_models on the characters of the Constitution of the Republic of Korea."""

from jaxrnn.tasks import Language
from jaxrnn.training.config import ExperimentConfig
from studies import Options, Study
from studies.language_models import MEASURES, make_experiments, text


def experiments(options: Options) -> dict[str, ExperimentConfig]:
    """One layer with dropout 0.3, windows of 50 characters, 10 rows: the text is short."""
    file = text(options, "language_models_korean")
    task = Language.from_file(file, batch_size=10, sequence_length=50)
    return make_experiments(options, task, 1, 0.3, 10 if options.small else 40)


STUDY = Study(
    title="Characters of the Korean constitution",
    question="Which of three cells predicts Korean characters best, with equally many parameters?",
    experiments=experiments,
    measures=MEASURES,
    seeds=5,
    curve="validation_loss",
    small="10 epochs",
    takes_data=True,
)
