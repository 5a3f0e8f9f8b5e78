"""Tasks from sequence to sequence, for an `EncoderDecoder`."""

from jaxrnn.tasks.sequence_to_sequence.addition import Addition
from jaxrnn.tasks.sequence_to_sequence.base import SequenceToSequence, make_batch
from jaxrnn.tasks.sequence_to_sequence.dates import Dates
from jaxrnn.tasks.sequence_to_sequence.pronunciation import Pronunciation
from jaxrnn.tasks.sequence_to_sequence.symbols import Reverse, Sort

__all__ = [
    "Addition",
    "Dates",
    "Pronunciation",
    "Reverse",
    "SequenceToSequence",
    "Sort",
    "make_batch",
]
