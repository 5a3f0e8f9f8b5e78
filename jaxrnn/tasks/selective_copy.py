"""Selective copy: pick the symbols out of a sequence of blanks, and output them in order."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxrnn.checks import check_counts
from jaxrnn.errors import SettingError
from jaxrnn.tasks.base import Task
from jaxrnn.types import Arrays, Batch


@dataclass(frozen=True)
class SelectiveCopy(Task):
    """Remember symbols at random positions, and output them in the order they came in.

    Inputs, one-hot, F = num_symbols + 2: `sequence_length` steps, of which a random choice of
    `num_copied` hold symbols and the others blanks; a delimiter; and num_copied - 1 blanks. So
    T = sequence_length + num_copied. The first symbol is due at the delimiter. Only these last
    num_copied steps have weight 1.

    Unlike in the copy memory problem, the time between reading and writing varies, so a network
    must decide by content what to keep.

    Source: the denoise task of Jing et al. (2019), "Gated Orthogonal Recurrent Units", whose sizes
    are the defaults, and the selective copying task of Gu and Dao (2023), "Mamba", section 4.1.1,
    with sequence_length=4096, num_symbols=16 and num_copied=16. Those who report it differ in the
    number of symbols, and in whether blanks are also scored.

    Attributes:
      sequence_length: the number of steps that are read, at least `num_copied`.
      batch_size: B.
      num_symbols: V, how many different symbols there are, at least 2.
      num_copied: how many symbols a sequence has, at least 1.

    Raises:
      SettingError: if a number is too small or not an integer.

    >>> task = SelectiveCopy(sequence_length=5, batch_size=1, num_copied=2)
    >>> batch = task.sample_batch(jax.random.key(2), 0)
    >>> batch.inputs.argmax(-1).tolist(), batch.targets.tolist()
    ([[8, 8, 3, 8, 4, 9, 8]], [[0, 0, 0, 0, 0, 3, 4]])
    """

    sequence_length: int = 100
    batch_size: int = 50
    num_symbols: int = 8
    num_copied: int = 10

    def __post_init__(self) -> None:
        check_counts(self, "sequence_length", "batch_size", "num_symbols", "num_copied")
        if self.num_symbols < 2:
            raise SettingError("num symbols must be at least 2, or there is nothing to remember")
        if self.sequence_length < self.num_copied:
            raise SettingError(f"sequence length must be at least num copied, {self.num_copied}")

    @property
    def output_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """V, the symbols."""
        return self.num_symbols

    @property
    def memoryless_loss(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Nats per symbol of guessing: the symbols are uniform and independent, so ln V."""
        return math.log(self.num_symbols)

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """Inputs [B, T, F], targets [B, T] and weights [B, T], new for each key."""
        del step, arrays
        k_symbols, k_places = jax.random.split(key)
        rows, length, copied = self.batch_size, self.sequence_length, self.num_copied
        symbols = jax.random.randint(k_symbols, (rows, copied), 0, self.num_symbols, jnp.int32)
        # The places of the smallest of some random numbers are a random choice.
        order = jnp.argsort(jax.random.uniform(k_places, (rows, length), jnp.float32), axis=1)
        places = jnp.sort(order[:, :copied], axis=1)
        blank, delimiter = self.num_symbols, self.num_symbols + 1
        read = jnp.full((rows, length + copied), blank, jnp.int32).at[:, length].set(delimiter)
        read = read.at[jnp.arange(rows)[:, None], places].set(symbols)
        targets = jnp.zeros_like(read).at[:, length:].set(symbols)
        weights = jnp.zeros(read.shape, jnp.float32).at[:, length:].set(1.0)
        inputs = jax.nn.one_hot(read, self.num_symbols + 2, dtype=jnp.float32)
        return Batch(inputs, targets, weights)
