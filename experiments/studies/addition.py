"""Addition of decimal numbers as text, by an encoder and a decoder.

The published accuracy counts characters, with the padding, not whole sums. There the decoder reads
a copy of the encoder's last state at each step, not the characters written so far.
"""

from jaxrnn.cells import LSTMCell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import EncoderDecoder
from jaxrnn.tasks.sequence_to_sequence import Addition
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from studies import PERCENT, Measure, Options, Published, Study, final, solved, steps_to_success

SOURCE = "keras.io/examples/nlp/addition_rnn, 2 digits (55 epochs of 5000) and 4 (20 of 400,000)"
TOKENS = "right tokens, %"


def experiments(options: Options) -> dict[str, ExperimentConfig]:
    """One layer of 128 LSTM units that reads the source backwards, and one that writes the sum."""
    digits, size, steps = (2, 64, 2000) if options.small else (4, 128, 20_000)
    task = Addition(max_digits=digits)

    def experiment(attention_size: int | None = None) -> ExperimentConfig:
        layers = Recurrent(LSTMCell(size), reverse=True), Recurrent(LSTMCell(size))
        sizes = task.source_length, len(task.source_vocabulary), task.output_size
        model = EncoderDecoder(*layers, *sizes, bridge="copy", attention_size=attention_size)
        train = TrainConfig(
            steps, 3e-3, schedule="cosine", log_every=100, validate_every=max(steps // 20, 1)
        )
        return ExperimentConfig(task, model, train, seeds=options.seeds)

    return {"LSTM": experiment(), "LSTM with attention": experiment(size)}


STUDY = Study(
    title="Addition of decimal numbers",
    question="How often does an encoder-decoder write the exact sum of two numbers?",
    experiments=experiments,
    measures=(
        Measure(TOKENS, final("validation_accuracy", 100), bounds=PERCENT),
        Measure("exact sums, %", final("validation_exact_match", 100), bounds=PERCENT),
        Measure("more than 99% exact", solved),
        Measure("steps to that", steps_to_success(), False, statistic="median"),
    ),
    published=(Published("LSTM", TOKENS, "99", SOURCE, line=0.99),),
    seeds=20,
    curve="validation_accuracy",
    small="2 digits, 64 units, 2,000 steps",
)
