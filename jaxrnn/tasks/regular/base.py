"""What the regular languages share: lengths, a test set of longer strings, and the score."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import check_counts
from jaxrnn.errors import SettingError
from jaxrnn.losses import entropy
from jaxrnn.rng import validation_key
from jaxrnn.tasks.base import Task
from jaxrnn.types import Arrays, Batch

GROUP = 50
"""The test lengths are grouped by multiples of this."""


@dataclass(frozen=True)
class RegularTask(Task):
    """Read a string of random symbols, and give an answer that a finite automaton could give.

    The inputs are one-hot. The length of each training string is uniform from `min_length` to
    `max_length`. The validation set has `strings_per_length` strings of each longer length, up to
    `test_max_length`, and is the same for all seeds. So the validation accuracy is the mean over
    the test lengths. It is the score of Delétang et al. (2023), whose settings are the defaults:
    lengths 1 to 40, 41 to 500, batches of 128. The state-tracking experiments of Grazzi et al.
    (2025) train on lengths 3 to 40 and test to 256.

    The answer is due at the last symbol, or with `every_step` at every symbol, for the string up to
    there. Delétang et al. read it one step later, after an extra blank, and draw one length per
    batch, where here each row has its own.

    A subclass defines `input_size`, `output_size`, `answers`, and perhaps `symbols`,
    `valid_lengths` and `shares`.

    Attributes:
      min_length: the shortest training string.
      max_length: the longest training string, T of a training batch.
      test_max_length: the longest test string, T of a validation batch.
      strings_per_length: the test strings of each length, one validation batch each.
      batch_size: B of a training batch.
      every_step: give an answer at every step.
      input_size: F, the number of symbols.
      output_size: V, the number of answers. Guessing has accuracy 1/V on long strings.

    Raises:
      SettingError: if a number is out of range or not an integer.
    """

    input_size = 0

    min_length: int = 1
    max_length: int = 40
    test_max_length: int = 500
    strings_per_length: int = 1
    batch_size: int = 128
    every_step: bool = False

    def __post_init__(self) -> None:
        lengths = ("min_length", "max_length", "test_max_length")
        check_counts(self, *lengths, "strings_per_length", "batch_size")
        if self.min_length > self.max_length:
            raise SettingError(f"max length must be at least min length, {self.min_length}")
        if self.test_max_length <= self.max_length:
            raise SettingError(f"test max length must be more than max length, {self.max_length}")

    def symbols(self, key: jax.Array, shape: tuple[int, int]) -> jax.Array:
        """Random symbols, [B, T] int32: by default uniform and independent."""
        return jax.random.randint(key, shape, 0, self.input_size, jnp.int32)

    def answers(self, symbols: jax.Array) -> jax.Array:
        """Symbols [B, T] int32 -> [B, T] int32, the answer for the string up to each step."""
        raise NotImplementedError(f"{type(self).__name__} must define answers(symbols)")

    def valid_lengths(self, lengths: Any) -> Any:
        """Lengths that the language has, int, for lengths that were drawn: by default the same."""
        return lengths

    def shares(self, length: int) -> np.ndarray:
        """How often each answer is right for strings of a length, [V]: by default equally often."""
        del length
        return np.full(self.output_size, 1 / self.output_size)

    @cached_property
    def memoryless_loss(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The entropy of the answers in training, in nats: the loss of the best constant output."""
        total = np.zeros(self.output_size)
        for length in range(self.min_length, self.max_length + 1):
            last = self.valid_lengths(length)
            for step in range(1, last + 1) if self.every_step else [last]:
                total += self.shares(step)
        return entropy(total)

    @property
    def chance_accuracy(self) -> float:
        """The accuracy of guessing on long strings, 1/V."""
        return 1 / self.output_size

    @property
    def length_groups(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Multiples of 50 between the longest training and test strings, and the latter."""
        first = GROUP * (self.max_length // GROUP + 1)
        return (*range(first, self.test_max_length, GROUP), self.test_max_length)

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """Inputs [B, T, F], targets [B, T], weights [B, T] and lengths [B], new for each key."""
        del step, arrays
        k_lengths, k_symbols = jax.random.split(key)
        lengths = jax.random.randint(
            k_lengths, (self.batch_size,), self.min_length, self.max_length + 1, jnp.int32
        )
        return self.batch(k_symbols, lengths, self.max_length)

    def num_validation_batches(self, arrays: Arrays) -> int:
        """One for each test string of a length."""
        del arrays
        return self.strings_per_length

    def validation_batch(self, n: jax.Array, arrays: Arrays) -> Batch:
        """One test string of each length."""
        del arrays
        lengths = jnp.arange(self.max_length + 1, self.test_max_length + 1, dtype=jnp.int32)
        return self.batch(validation_key(n), lengths, self.test_max_length)

    def batch(self, key: jax.Array, lengths: jax.Array, steps: int) -> Batch:
        """Strings of some lengths, [B] int32, in `steps` = T steps."""
        lengths = self.valid_lengths(lengths)
        symbols = self.symbols(key, (len(lengths), steps))  # [B, T]
        step, end = jnp.arange(steps, dtype=jnp.int32)[None], lengths[:, None]
        inputs = jax.nn.one_hot(symbols, self.input_size, dtype=jnp.float32)
        inputs = jnp.where((step < end)[..., None], inputs, 0.0)
        scored = step < end if self.every_step else step == end - 1
        return Batch(inputs, self.answers(symbols), scored.astype(jnp.float32), lengths)

    def solved(self, metrics: dict[str, Any]) -> Any:
        """[S] bool: whether the score is at least 0.9, as in Delétang et al. (2023)."""
        score = metrics["validation_accuracy"]
        return (score >= 0.9) & (score <= 1.0)
