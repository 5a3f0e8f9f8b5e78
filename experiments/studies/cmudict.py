"""Grapheme to phoneme on the CMU dictionary, by an encoder and a decoder of LSTMs.

The published results are from older editions of the dictionary, divided in other ways, with larger
networks. Decoding is greedy here.
"""

import numpy as np

from jaxrnn.cells import LSTMCell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional
from jaxrnn.models import EncoderDecoder
from jaxrnn.runs import loading, translation
from jaxrnn.tasks.sequence_to_sequence import Pronunciation
from jaxrnn.text.edit_distance import error_rates
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from studies import PERCENT, Measure, Options, Outcome, Published, Study, Values, final

PLAIN, ATTENTION = "LSTM", "bidirectional LSTM with attention"
WORDS = "test words that are wrong, %"
PAPER = "Arik et al. (2017), arXiv 1702.07825, an encoder-decoder of GRUs"
OTHERS = "Toshniwal and Livescu (2016), an ensemble with attention"


def experiments(options: Options) -> dict[str, ExperimentConfig]:
    """An encoder that reads the word backwards, and one with attention that reads it both ways."""
    size, steps = (64, 1500) if options.small else (256, 20_000)
    task = Pronunciation(options.data)
    train = TrainConfig(
        steps, 4e-3 if options.small else 2e-3, schedule="cosine", log_every=100, validate_every=500
    )
    backwards = Recurrent(LSTMCell(size), reverse=True)
    both = Bidirectional(Recurrent(LSTMCell(size // 2)), backwards.clone(cell=LSTMCell(size // 2)))
    sizes = task.source_length, len(task.source_vocabulary), task.output_size, 64
    models = {
        PLAIN: EncoderDecoder(backwards, Recurrent(LSTMCell(size)), *sizes, bridge="copy"),
        ATTENTION: EncoderDecoder(both, Recurrent(LSTMCell(size)), *sizes, attention_size=size),
    }
    return {
        label: ExperimentConfig(task, model, train, seeds=options.seeds, vmap_size=1)
        for label, model in models.items()
    }


def on_test_words(rate: str) -> Values:
    """An error rate of each seed's best network on the test part, in %, with greedy decoding."""

    def values(outcome: Outcome) -> np.ndarray:
        found = np.full(len(outcome.history.seeds), np.nan)
        for s, seed in enumerate(outcome.history.seeds.tolist()):
            if seed in outcome.diverged:
                continue
            trained = loading.load(outcome.run_dir, model_seed=seed)
            task = translation.task_of(trained)
            assert isinstance(task, Pronunciation)
            words = task.lexicon.test
            ids = translation.decode(trained, [task.encode_source(word) for word in words])
            written = [task.target_text(row).split() for row in ids]
            ways = [[list(way) for way in accepted] for accepted in words.values()]
            found[s] = 100 * getattr(error_rates(written, ways), rate)
        return found

    return values


STUDY = Study(
    title="Pronunciation of English words",
    question="How often does an encoder-decoder pronounce a word of the CMU dictionary wrongly?",
    experiments=experiments,
    measures=(
        Measure(WORDS, on_test_words("words"), False, bounds=PERCENT),
        Measure("wrong phonemes, %", on_test_words("tokens"), False),
        Measure("final validation loss", final("validation_loss"), False),
    ),
    published=(
        Published(PLAIN, WORDS, "28.7", PAPER),
        Published(ATTENTION, WORDS, "20.24", OTHERS),
    ),
    seeds=5,
    curve="validation_exact_match",
    small="64 units, 1500 steps",
    takes_data=True,
)
