"""Rewriting a sequence of random symbols: in reverse, or sorted."""

import math
import string
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import check_counts
from jaxrnn.errors import SettingError
from jaxrnn.tasks.sequence_to_sequence.base import END, SequenceToSequence
from jaxrnn.types import Arrays


@dataclass(frozen=True)
class Symbols(SequenceToSequence):
    """Sources of random letters: the base of `Reverse` and `Sort`.

    The length is uniform from `min_length` to `max_length`, each letter uniform among the first
    `num_symbols` of the alphabet.

    Attributes:
      min_length: the fewest symbols of a source, at least 1.
      max_length: the most symbols of a source.
      num_symbols: how many different symbols there are, from 2 to 26.
      batch_size: B.
      validation_size: the rows of the validation set.

    Raises:
      SettingError: if a number is out of range or not an integer.
    """

    min_length: int = 1
    max_length: int = 10
    num_symbols: int = 10
    batch_size: int = 50
    validation_size: int = 1000

    def __post_init__(self) -> None:
        check_counts(self, "min_length", "max_length", "num_symbols")
        check_counts(self, "batch_size", "validation_size")
        if self.max_length < self.min_length:
            raise SettingError("max length must not be less than min length")
        if not 2 <= self.num_symbols <= 26:
            raise SettingError("num symbols must be from 2 to 26, the letters")

    @property
    def source_vocabulary(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The letters."""
        return (END, *string.ascii_lowercase[: self.num_symbols])

    @property
    def target_vocabulary(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The same letters."""
        return self.source_vocabulary

    @property
    def source_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """S, the most symbols."""
        return self.max_length

    @property
    def target_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """L, one more, for the end."""
        return self.max_length + 1

    @property
    def length_groups(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Each length by itself."""
        return tuple(range(self.min_length, self.max_length + 1))

    @property
    def memoryless_loss(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Nats per token of a decoder that does not see the source: the entropy of a target.

        That is ln(number of lengths), and the symbols' given the length, over the mean number of
        tokens, with the end.
        """
        lengths = range(self.min_length, self.max_length + 1)
        nats = math.log(len(lengths)) + float(np.mean([*map(self._entropy, lengths)]))
        return nats / (float(np.mean(lengths)) + 1)

    def sample_pairs(
        self, key: jax.Array, rows: int, arrays: Arrays
    ) -> tuple[jax.Array, jax.Array]:
        """Sources [rows, S] and targets [rows, L], new for each key."""
        del arrays
        k_lengths, k_symbols = jax.random.split(key)
        low, high = self.min_length, self.max_length
        lengths = jax.random.randint(k_lengths, (rows, 1), low, high + 1)
        symbols = jax.random.randint(k_symbols, (rows, high), 1, self.num_symbols + 1)
        source = jnp.where(jnp.arange(high)[None] < lengths, symbols, 0)
        return source, jnp.pad(self._rewrite(source, lengths), ((0, 0), (0, 1)))

    def _rewrite(self, source: jax.Array, lengths: jax.Array) -> jax.Array:
        """Sources [B, S], lengths [B, 1] -> targets [B, S] without the end."""
        raise NotImplementedError(f"{type(self).__name__} must define _rewrite(source, lengths)")

    def _entropy(self, length: int) -> float:
        """Nats of a target's symbols, given their number."""
        raise NotImplementedError(f"{type(self).__name__} must define _entropy(length)")


@dataclass(frozen=True)
class Reverse(Symbols):
    """Write the source backwards.

    A recurrent network has to keep the whole source; it writes the last symbol first, which is the
    easy one. Attention reads it where it stands. Settings are those of `Symbols`.

    Source: a standard test of memory; Grefenstette et al. (2015), "Learning to Transduce with
    Unbounded Memory", section 4.1, has it with 64 to 128 symbols out of 128.

    Its `memoryless_loss`: n symbols have n ln(num_symbols) nats.

    >>> task = Reverse(max_length=4, batch_size=1)
    >>> batch = task.sample_batch(jax.random.key(2), 0)
    >>> task.source_text(batch.inputs[0, :4]), task.target_text(batch.targets[0, 4:])
    ('hjgi', 'igjh')
    """

    def _rewrite(self, source: jax.Array, lengths: jax.Array) -> jax.Array:
        places = lengths - 1 - jnp.arange(self.max_length)[None]
        reverse = jnp.take_along_axis(source, jnp.maximum(places, 0), axis=1)
        return jnp.where(places >= 0, reverse, 0)

    def _entropy(self, length: int) -> float:
        return length * math.log(self.num_symbols)


@dataclass(frozen=True)
class Sort(Symbols):
    """Write the source in alphabetical order, every symbol as often as it occurs.

    Settings are those of `Symbols`.

    Source: Vinyals, Bengio and Kudlur (2016), "Order Matters: Sequence to Sequence for Sets",
    section 4.4, sort numbers; here they are few symbols, which may repeat.

    Its `memoryless_loss`: n symbols out of k have n ln k - ln n! + k E[ln c!] nats, with the count
    c of one symbol binomial: n trials, probability 1/k. It is the entropy of a multinomial.

    >>> task = Sort(max_length=4, batch_size=1)
    >>> batch = task.sample_batch(jax.random.key(2), 0)
    >>> task.source_text(batch.inputs[0, :4]), task.target_text(batch.targets[0, 4:])
    ('hjgi', 'ghij')
    """

    def _rewrite(self, source: jax.Array, lengths: jax.Array) -> jax.Array:
        del lengths
        last = self.num_symbols + 1  # padding is sorted to the end
        return jnp.sort(jnp.where(source == 0, last, source), axis=1) % last

    def _entropy(self, length: int) -> float:
        n, k = length, self.num_symbols
        chances = (math.comb(n, c) * (1 / k) ** c * (1 - 1 / k) ** (n - c) for c in range(n + 1))
        expected = sum(chance * math.lgamma(c + 1) for c, chance in enumerate(chances))
        return n * math.log(k) - math.lgamma(n + 1) + k * expected
