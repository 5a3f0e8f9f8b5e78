"""The adding problem: two numbers of a long sequence are marked; say their sum at its end."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import losses
from jaxrnn.checks import check_counts
from jaxrnn.errors import SettingError
from jaxrnn.tasks.base import Task
from jaxrnn.types import Arrays, Batch, Metrics

CLOSE = 0.04
"""An output that is less than this away from the sum is right."""


@dataclass(frozen=True)
class Adding(Task):
    """At each step a number and a marker come in, F=2; the last output is to be the sum.

    The numbers are uniform in [0, 1). Two markers are 1, all others 0: one at a place drawn from
    the first half of the sequence, one at a place drawn from the second half, which has the middle
    step where T is odd. The target is the sum of the two marked numbers, from 0 to 2. Only the
    last step has a weight, 1; the outputs before it are free.

    Source: Hochreiter and Schmidhuber (1997), experiment 4, in the form of Arjovsky, Shah and
    Bengio (2016), section 4.2; Le, Jaitly and Hinton (2015), section 4.1, have the same without the
    halves. The thresholds 0.04 and 0.01 below are those of 1997. There the target went from 0 to 1,
    so that here they ask for more.

    Attributes:
      length: T, 2 steps or more.
      batch_size: B.
      output_size: 1, the sum.
      baseline: 1/6, the mean squared error of always saying 1: the variance of the sum. Of the
        outputs that do not depend on the input it is the best. One that may look at the last
        input, and at no other, gets to 1/6 - 1/(12 * (T - T // 2)), as a marker may stand there.

    Raises:
      ValueError: if `length` is less than 2 or `batch_size` less than 1, or no whole number.

    >>> batch = Adding(length=6, batch_size=1).sample_batch(jax.random.key(0), jnp.int32(0))
    >>> print(np.asarray(batch.inputs[0].T).round(2))
    [[0.84 0.18 0.23 0.12 0.19 0.72]
     [0.   0.   1.   1.   0.   0.  ]]
    >>> print(np.asarray(batch.targets[0]).round(2), batch.weights[0])
    [0.   0.   0.   0.   0.   0.35] [0. 0. 0. 0. 0. 1.]
    """

    output_size = 1
    memoryless_loss = 1 / 6

    length: int = 100
    batch_size: int = 50

    def __post_init__(self) -> None:
        if isinstance(self.length, int) and self.length < 2:
            raise SettingError("length must be at least 2: a step to mark in each half")
        check_counts(self, "length", "batch_size")

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """New numbers and new markers for each key; the rest is not used."""
        del step, arrays
        k_numbers, k_first, k_second = jax.random.split(key, 3)
        shape, half = (self.batch_size, self.length), self.length // 2
        numbers = jax.random.uniform(k_numbers, shape, jnp.float32)  # [B, T]
        first = jax.random.randint(k_first, (self.batch_size, 1), 0, half)
        second = jax.random.randint(k_second, (self.batch_size, 1), half, self.length)
        steps = jnp.arange(self.length)[None]  # [1, T]
        marked = (steps == first) | (steps == second)  # [B, T]
        sums = jnp.sum(jnp.where(marked, numbers, 0.0), axis=1, keepdims=True)  # [B, 1]
        last = jnp.broadcast_to(steps == self.length - 1, shape)
        return Batch(
            jnp.stack([numbers, marked.astype(jnp.float32)], axis=-1),
            jnp.where(last, sums, 0.0),
            last.astype(jnp.float32),
        )

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """outputs [B, T, 1] -> [], the mean squared error of the last outputs."""
        return losses.sequence_squared_error(outputs, batch.targets, batch.weights)

    def metrics(self, outputs: jax.Array, batch: Batch) -> Metrics:
        """outputs [B, T, 1] -> `within` [], the share of rows that end less than 0.04 off."""
        close = jnp.abs(outputs[..., 0] - batch.targets) < CLOSE
        return {"within": losses.weighted_mean(close.astype(outputs.dtype), batch.weights)}

    def solved(self, metrics: dict[str, Any]) -> np.ndarray:
        """[S] bool: whether the mean squared error of the last batch is below 0.01.

        Hochreiter and Schmidhuber stopped "once the average training error is below 0.01, and the
        2000 most recent sequences were processed correctly"; of the two this is the first.
        """
        return np.asarray(metrics["loss"]) < 0.01
