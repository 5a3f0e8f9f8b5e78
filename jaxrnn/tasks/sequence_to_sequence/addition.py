"""Addition of decimal numbers that are written as text."""

from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import check_counts
from jaxrnn.errors import SettingError
from jaxrnn.tasks.sequence_to_sequence.base import END, SequenceToSequence, digits, left_align
from jaxrnn.types import Arrays

DIGITS = tuple("0123456789")
PLUS = 11
"""The id of the plus sign in a source."""


@dataclass(frozen=True)
class Addition(SequenceToSequence):
    """Read two numbers, such as 535+61, and write their sum.

    Each number has a number of digits that is uniform from `min_digits` to `max_digits`, and is
    uniform among the numbers of so many digits, without leading zeros; 0 has one digit.

    Source: Zaremba and Sutskever (2014), "Learning to Execute", section 4, add two numbers of the
    same length (there a language model reads "print(398345+425098)."). With numbers of different
    length, and an encoder and a decoder, it is the Keras example "Sequence to sequence learning for
    performing number addition" (keras.io/examples/nlp/addition_rnn), which reports 99% with one
    layer of 128 LSTM units: for 4 digits after 20 epochs of 400,000 examples. There a number's
    digits are drawn one by one, and leading zeros are dropped.

    Validation examples may be training examples, too. With P pairs of numbers, N training examples
    have seen a share of 1 - exp(-N/P) of the longest ones: 2.5% for 4 digits and N = 2.5 million.

    Attributes:
      min_digits: the fewest digits of a number, at least 1.
      max_digits: the most digits of a number, at most 9.
      batch_size: B.
      validation_size: the rows of the validation set.

    Raises:
      SettingError: if a number is out of range or not an integer.

    >>> task = Addition(batch_size=2)
    >>> batch = task.sample_batch(jax.random.key(0), 0)
    >>> for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
    ...     print(task.source_text(inputs[:9]), "->", task.target_text(targets[9:]))
    5022+62 -> 5084
    7496+85 -> 7581
    """

    min_digits: int = 1
    max_digits: int = 4
    batch_size: int = 128
    validation_size: int = 1000

    source_vocabulary = (END, *DIGITS, "+")
    target_vocabulary = (END, *DIGITS)

    def __post_init__(self) -> None:
        check_counts(self, "min_digits", "max_digits", "batch_size", "validation_size")
        if not self.min_digits <= self.max_digits <= 9:
            raise SettingError("max digits must be from min digits to 9")

    @property
    def source_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """S, two numbers and the plus sign."""
        return 2 * self.max_digits + 1

    @property
    def target_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """L: the sum may have one digit more than a number, and then there is the end."""
        return self.max_digits + 2

    @property
    def length_groups(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Each length of the source by itself."""
        return tuple(range(2 * self.min_digits + 1, self.source_length + 1))

    @cached_property
    def memoryless_loss(self) -> float | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Nats per token of a decoder that does not see the source; None for more than 6 digits.

        That is the entropy of the sum, whose distribution is that of a number convolved with
        itself, over the mean number of its tokens, with the end.
        """
        if self.max_digits > 6:
            return None
        counts = range(self.min_digits, self.max_digits + 1)
        chances = np.zeros(10**self.max_digits)
        for count in counts:
            low, high = _bounds(count)
            chances[low:high] = 1 / len(counts) / (high - low)
        size = 2 * len(chances)
        spectrum = np.fft.rfft(chances, size)
        sums = np.fft.irfft(spectrum**2, size)
        possible = np.flatnonzero(sums > 1e-15)  # smaller ones are rounding errors
        sums = sums[possible]
        tokens = np.char.str_len(possible.astype(str)) + 1
        return float(-(sums @ np.log(sums)) / (sums @ tokens))

    def sample_pairs(
        self, key: jax.Array, rows: int, arrays: Arrays
    ) -> tuple[jax.Array, jax.Array]:
        """Sources [rows, S] and targets [rows, L], new for each key."""
        del arrays
        k_counts, k_numbers = jax.random.split(key)
        most, shape = self.max_digits, (rows, 2)
        bounds = jnp.asarray([_bounds(count) for count in range(1, most + 1)], jnp.int32)
        counts = jax.random.randint(k_counts, shape, self.min_digits, most + 1)
        low, high = jnp.moveaxis(bounds[counts - 1], -1, 0)
        numbers = jax.random.randint(k_numbers, shape, low, high)  # [rows, 2]
        first, second = jnp.moveaxis(digits(numbers, most), 1, 0)
        plus = jnp.full((rows, 1), PLUS, jnp.int32)
        source = jnp.concatenate([first, plus, second], axis=1)
        total = left_align(digits(jnp.sum(numbers, axis=1), most + 1))
        return left_align(source), jnp.pad(total, ((0, 0), (0, 1)))


def _bounds(count: int) -> tuple[int, int]:
    """The smallest number with `count` digits, and the first with more."""
    return (0 if count == 1 else 10 ** (count - 1)), 10**count
