"""The copy memory problem: read some symbols, wait, and output them in the same order."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxrnn import losses
from jaxrnn.checks import check_counts
from jaxrnn.errors import SettingError
from jaxrnn.tasks.base import Task
from jaxrnn.types import Arrays, Batch, Metrics


@dataclass(frozen=True)
class CopyMemory(Task):
    """Remember 10 symbols out of 8 for `delay` steps.

    Inputs, one-hot, F=10: 10 symbols, delay - 1 blanks, a delimiter, 10 blanks. Targets: delay + 10
    blanks, then the 10 symbols. So T = delay + 20, and each symbol is due delay + 10 steps after it
    was read. Every step has weight 1. Classes 0..num_symbols-1 are the symbols, the next one is the
    blank, the last one the delimiter.

    Source: Arjovsky, Shah and Bengio (2016), section 4.1, after Hochreiter and Schmidhuber (1997).
    Their T is `delay` here. As in the authors' code, a batch has 20 rows and the readout 9 classes,
    because the delimiter is never a target.

    Attributes:
      delay: steps from the last symbol to the delimiter, at least 1.
      batch_size: B.
      num_symbols: how many different symbols there are, at least 2.
      num_copied: how many symbols a sequence has, at least 1.

    Raises:
      SettingError: if a number is too small or not an integer.

    >>> task = CopyMemory(delay=3, batch_size=1, num_copied=2)
    >>> batch = task.sample_batch(jax.random.key(0), 0)
    >>> batch.inputs.argmax(-1).tolist(), batch.targets.tolist()
    ([[5, 0, 8, 8, 9, 8, 8]], [[8, 8, 8, 8, 8, 5, 0]])
    """

    delay: int = 100
    batch_size: int = 20
    num_symbols: int = 8
    num_copied: int = 10

    def __post_init__(self) -> None:
        check_counts(self, "delay", "batch_size", "num_symbols", "num_copied")
        if self.num_symbols < 2:
            raise SettingError("num symbols must be at least 2, or there is nothing to remember")

    @property
    def output_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """V, the symbols and the blank."""
        return self.num_symbols + 1

    @property
    def memoryless_loss(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Nats per step of guessing among the symbols at the right time: 10 ln 8 / (delay + 20)."""
        return self.num_copied * math.log(self.num_symbols) / (self.delay + 2 * self.num_copied)

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """Inputs [B, T, F], targets [B, T] and weights [B, T], new for each key."""
        del step, arrays
        shape = (self.batch_size, self.num_copied)
        symbols = jax.random.randint(key, shape, 0, self.num_symbols, jnp.int32)

        def fill(steps: int, number: int) -> jax.Array:
            return jnp.full((self.batch_size, steps), number, jnp.int32)

        blank, delimiter = self.num_symbols, self.num_symbols + 1
        waiting = fill(self.delay - 1, blank)
        read = jnp.concatenate(
            [symbols, waiting, fill(1, delimiter), fill(self.num_copied, blank)], axis=1
        )  # [B, T]
        targets = jnp.concatenate([fill(self.delay + self.num_copied, blank), symbols], axis=1)
        inputs = jax.nn.one_hot(read, self.num_symbols + 2, dtype=jnp.float32)
        return Batch(inputs, targets, jnp.ones(targets.shape, jnp.float32))

    def metrics(self, outputs: jax.Array, batch: Batch) -> Metrics:
        """outputs [B, T, V] -> `accuracy` [], from 0 to 1, over the steps that copy a symbol."""
        copies = slice(-self.num_copied, None)
        right = losses.argmax(outputs[:, copies]) == batch.targets[:, copies]
        weights = batch.weights[:, copies]
        return {"accuracy": losses.weighted_mean(right.astype(outputs.dtype), weights)}
