"""The copy memory problem: read some symbols, wait, and say them again in order."""

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
    """Remember 10 symbols, each one of 8, for a delay of `length` steps.

    Read, one-hot, F=10: the 10 symbols, length - 1 blanks, a delimiter, 10 blanks. To be said:
    length + 10 blanks, then the symbols. So a sequence has T = length + 20 steps, and each symbol
    is said length + 10 steps after it was read. Every step has weight 1. A symbol's number is its
    class, from 0; then comes the blank, and last the delimiter.

    Source: Arjovsky, Shah and Bengio (2016), section 4.1, after Hochreiter and Schmidhuber (1997).
    What they call T is `length` here. As in the authors' own code, batches are of 20 rows, and
    the readout has 9 classes: the delimiter is only ever read.

    Attributes:
      length: the delay, from the last symbol read to the delimiter, 1 step or more.
      batch_size: B.
      symbols: how many there are to draw from, 2 or more.
      copied: how many are drawn, 1 or more.

    Raises:
      ValueError: if one of them is less than that, or no whole number.

    >>> task = CopyMemory(length=3, batch_size=1, copied=2)
    >>> batch = task.sample_batch(jax.random.key(0), jnp.int32(0))
    >>> batch.inputs.argmax(-1).tolist(), batch.targets.tolist()
    ([[5, 0, 8, 8, 9, 8, 8]], [[8, 8, 8, 8, 8, 5, 0]])
    """

    length: int = 100
    batch_size: int = 20
    symbols: int = 8
    copied: int = 10

    def __post_init__(self) -> None:
        check_counts(self, "length", "batch_size", "symbols", "copied")
        if self.symbols < 2:
            raise SettingError("symbols must be at least 2: of one there is nothing to remember")

    @property
    def output_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """V, a score for each symbol and for the blank."""
        return self.symbols + 1

    @property
    def memoryless_loss(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Nats a step of who knows when to say a symbol, but not which: 10 ln 8 / (length + 20)."""
        return self.copied * math.log(self.symbols) / (self.length + 2 * self.copied)

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """New symbols for each key; the rest is not used."""
        del step, arrays
        shape = (self.batch_size, self.copied)
        drawn = jax.random.randint(key, shape, 0, self.symbols, jnp.int32)

        def fill(steps: int, number: int) -> jax.Array:
            return jnp.full((self.batch_size, steps), number, jnp.int32)

        blank, delimiter = self.symbols, self.symbols + 1
        waiting = fill(self.length - 1, blank)
        read = jnp.concatenate(
            [drawn, waiting, fill(1, delimiter), fill(self.copied, blank)], axis=1
        )  # [B, T]
        said = jnp.concatenate([fill(self.length + self.copied, blank), drawn], axis=1)  # [B, T]
        inputs = jax.nn.one_hot(read, self.symbols + 2, dtype=jnp.float32)
        return Batch(inputs, said, jnp.ones(said.shape, jnp.float32))

    def metrics(self, outputs: jax.Array, batch: Batch) -> Metrics:
        """outputs [B, T, V] -> `accuracy` [], from 0 to 1, over the steps that say a symbol."""
        copies = slice(-self.copied, None)
        right = losses.argmax(outputs[:, copies]) == batch.targets[:, copies]
        weights = batch.weights[:, copies]
        return {"accuracy": losses.weighted_mean(right.astype(outputs.dtype), weights)}
