"""The languages a^n b^n and a^n b^n c^n: count, and predict what may come next."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import losses
from jaxrnn.checks import check_counts
from jaxrnn.errors import SettingError
from jaxrnn.tasks.grammars.next_symbol import NextSymbol, pack, unpack
from jaxrnn.types import Arrays, Batch


@dataclass(frozen=True)
class Counting(NextSymbol):
    """Read S a^n b^n, or S a^n b^n c^n, and predict at every step which symbols may come next.

    After S comes a, because n is at least 1. After each a comes another a or the first b. Then all
    is determined: b, c, and T after the last letter. The inputs are one-hot, in the order S, a, b,
    c, so F = num_letters + 1. The outputs are, for T, a, b and c, whether they may come; each is a
    logistic unit with cross-entropy. An output is right if it is positive for a symbol that may
    come and negative for another one, and a string is accepted if all outputs at all steps are
    right.

    Each training string's n is uniform from 1 to `max_count`. The validation set has one string for
    each n up to `test_max_count`.

    Source: Gers and Schmidhuber (2001), "LSTM recurrent networks learn simple context-free and
    context-sensitive languages": n from 1 to 10 in training for a^n b^n, 1 to 40 for a^n b^n c^n.
    Their outputs are from -1 to 1 with a squared error and a decision boundary at 0.

    Attributes:
      num_letters: 2 for a^n b^n, 3 for a^n b^n c^n; up to 8.
      max_count: the largest n of a training string.
      test_max_count: the largest n of a validation string, at least `max_count`.
      batch_size: B of a training batch.
      output_size: V = num_letters + 1.

    Raises:
      SettingError: if a number is out of range or not an integer.

    >>> task = Counting(max_count=2, batch_size=1)
    >>> batch = task.batch(jnp.array([2]), max_count=2)
    >>> batch.inputs[0].argmax(-1).tolist()  # S a a b b
    [0, 1, 1, 2, 2]
    >>> unpack(batch.targets, 3)[1][0].astype(int).tolist()  # a, a or b, a or b, b, T
    [[0, 1, 0], [0, 1, 1], [0, 1, 1], [0, 0, 1], [1, 0, 0]]
    """

    num_letters: int = 2
    max_count: int = 10
    test_max_count: int = 20
    batch_size: int = 32

    def __post_init__(self) -> None:
        check_counts(self, "num_letters", "max_count", "test_max_count", "batch_size")
        if not 2 <= self.num_letters <= 8:
            raise SettingError("num letters must be from 2 to 8")
        if self.test_max_count < self.max_count:
            raise SettingError(f"test max count must be at least max count, {self.max_count}")

    @property
    def output_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """V, the letters and T."""
        return self.num_letters + 1

    @property
    def length_groups(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The lengths that belong to n = max_count, and to tenths of the larger n."""
        low, high = self.max_count, self.test_max_count
        counts = {low + (high - low) * n // 10 for n in range(11)}
        return tuple(1 + self.num_letters * count for count in sorted(counts))

    @cached_property
    def memoryless_loss(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Nats per output of the best prediction from the current symbol alone.

        It is sure after S and a. After another letter, the next letter (or T) may come in n = 1 to
        N of N(N + 1)/2 cases, p = 2/(N + 1), and the same letter otherwise, so two outputs are
        unsure. The average is over all steps.
        """
        count, letters = self.max_count, self.num_letters
        p = 2 / (count + 1)
        shares = np.array([p, 1 - p])
        entropy = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum()
        letter_steps = count * (count + 1) / 2
        unsure = (letters - 1) * letter_steps / (count + letters * letter_steps)
        return float(unsure * 2 * entropy / self.output_size)

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """Inputs [B, T, F], targets [B, T], weights [B, T] and lengths [B], new for each key."""
        del step, arrays
        counts = jax.random.randint(key, (self.batch_size,), 1, self.max_count + 1, jnp.int32)
        return self.batch(counts, self.max_count)

    def num_validation_batches(self, arrays: Arrays) -> int:
        """One, with every n."""
        del arrays
        return 1

    def validation_batch(self, n: jax.Array, arrays: Arrays) -> Batch:
        """One string for each n from 1 to `test_max_count`."""
        del n, arrays
        counts = jnp.arange(1, self.test_max_count + 1, dtype=jnp.int32)
        return self.batch(counts, self.test_max_count)

    def batch(self, counts: jax.Array, max_count: int) -> Batch:
        """The strings of some n, [B] int32, none above `max_count`; T = 1 + letters * max_count."""
        steps = jnp.arange(1 + self.num_letters * max_count, dtype=jnp.int32)[None]  # [1, T]
        n = counts[:, None]
        symbols = jnp.where(steps == 0, 0, 1 + (steps - 1) // n)  # [B, T], from the end on beyond V
        following = (1 + steps // n) % (self.num_letters + 1)
        allowed = jax.nn.one_hot(following, self.output_size, dtype=jnp.bool_)
        may_repeat = (symbols == 1)[..., None]  # after any a come a and b
        first_two = jnp.arange(self.output_size)[None, None]
        allowed |= may_repeat & ((first_two == 1) | (first_two == 2))
        lengths = 1 + self.num_letters * counts
        inside = steps < lengths[:, None]
        inputs = jax.nn.one_hot(symbols, self.num_letters + 1, dtype=jnp.float32)
        inputs = jnp.where(inside[..., None], inputs, 0.0)
        return Batch(inputs, pack(following, allowed), inside.astype(jnp.float32), lengths)

    def correct(self, outputs: jax.Array, allowed: jax.Array) -> jax.Array:
        """outputs, allowed [B, T, V] -> [B, T] bool, whether all outputs have the right sign."""
        return jnp.all(jnp.where(allowed, outputs > 0, outputs < 0), axis=-1)

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """outputs [B, T, V] -> [], the mean cross-entropy of the logistic units, in nats."""
        _, allowed = unpack(batch.targets, self.output_size)
        signed = jnp.where(allowed, -outputs, outputs)
        return losses.weighted_mean(jnp.mean(jax.nn.softplus(signed), axis=-1), batch.weights)

    def solved(self, metrics: dict[str, Any]) -> Any:
        """[S] bool: whether the strings of all n up to `test_max_count` are accepted."""
        return metrics["validation_correct_strings"] == 1.0
