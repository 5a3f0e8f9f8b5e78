"""The adding problem: two numbers of a long sequence are marked; the last output is their sum."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import losses
from jaxrnn.checks import check_counts
from jaxrnn.dtypes import promote
from jaxrnn.errors import SettingError
from jaxrnn.tasks.base import Task
from jaxrnn.types import Arrays, Batch, Metrics

TOLERANCE = 0.04
"""An output closer than this to the sum counts as correct."""


@dataclass(frozen=True)
class Adding(Task):
    """The inputs are a number and a marker per step, F=2; the target is the sum of two numbers.

    The numbers are uniform in [0, 1). Two markers are 1 and the others 0: one at a random step of
    the first half of the sequence, one at a random step of the second half, which includes the
    middle step if T is odd. The target is the sum of the two marked numbers, from 0 to 2. Only the
    last step has weight 1; earlier outputs are ignored.

    Source: Hochreiter and Schmidhuber (1997), experiment 4, in the form of Arjovsky, Shah and
    Bengio (2016), section 4.2; Le, Jaitly and Hinton (2015), section 4.1, use it without the
    halves. The thresholds 0.04 and 0.01 below are from 1997. There the target was scaled to the
    range 0 to 1, so the same thresholds are stricter here.

    Attributes:
      sequence_length: T, at least 2.
      batch_size: B.
      output_size: 1, the sum.
      memoryless_loss: 1/6, the mean squared error of always predicting 1, which is the variance of
        the sum. No output that ignores the input is better. An output that sees only the last
        input reaches 1/6 - 1/(12 * (T - T // 2)), because a marker may be there.

    Raises:
      SettingError: if `sequence_length` is less than 2, `batch_size` less than 1, or either is not
        an integer.

    >>> batch = Adding(sequence_length=6, batch_size=1).sample_batch(jax.random.key(0), 0)
    >>> print(np.asarray(batch.inputs[0].T).round(2))
    [[0.84 0.18 0.23 0.12 0.19 0.72]
     [0.   0.   1.   1.   0.   0.  ]]
    >>> print(np.asarray(batch.targets[0]).round(2), batch.weights[0])
    [0.   0.   0.   0.   0.   0.35] [0. 0. 0. 0. 0. 1.]
    """

    output_size = 1
    memoryless_loss = 1 / 6

    sequence_length: int = 100
    batch_size: int = 50

    def __post_init__(self) -> None:
        check_counts(self, "sequence_length", "batch_size")
        if self.sequence_length < 2:
            raise SettingError("sequence length must be at least 2: a step to mark in each half")

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """Inputs [B, T, 2], targets [B, T] and weights [B, T], new for each key."""
        del step, arrays
        k_numbers, k_first, k_second = jax.random.split(key, 3)
        batch_size, length = shape = (self.batch_size, self.sequence_length)
        half = length // 2
        numbers = jax.random.uniform(k_numbers, shape, jnp.float32)  # [B, T]
        first = jax.random.randint(k_first, (batch_size, 1), 0, half)
        second = jax.random.randint(k_second, (batch_size, 1), half, length)
        steps = jnp.arange(length)[None]  # [1, T]
        marked = (steps == first) | (steps == second)  # [B, T]
        sums = jnp.sum(jnp.where(marked, numbers, 0.0), axis=1, keepdims=True)  # [B, 1]
        last = jnp.broadcast_to(steps == length - 1, shape)
        return Batch(
            jnp.stack([numbers, marked.astype(jnp.float32)], axis=-1),
            jnp.where(last, sums, 0.0),
            last.astype(jnp.float32),
        )

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """outputs [B, T, 1] -> [], the mean squared error of the last outputs."""
        return losses.sequence_squared_error(outputs, batch.targets, batch.weights)

    def metrics(self, outputs: jax.Array, batch: Batch) -> Metrics:
        """outputs [B, T, 1] -> `within` [], the fraction of last outputs with an error < 0.04."""
        sums, targets = promote(outputs[..., 0], batch.targets)
        close = jnp.abs(sums - targets) < TOLERANCE
        return {"within": losses.weighted_mean(close.astype(outputs.dtype), batch.weights)}

    def solved(self, metrics: dict[str, Any]) -> np.ndarray:
        """[S] bool: whether the mean squared error of the last batch is below 0.01.

        Hochreiter and Schmidhuber stopped "once the average training error is below 0.01, and the
        2000 most recent sequences were processed correctly"; this checks the first condition.
        """
        return np.asarray(metrics["loss"]) < 0.01
