"""The adding problem: two numbers of a long sequence are marked; the last output is their sum."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn import losses
from jaxrnn.checks import check_counts
from jaxrnn.choices import check_choice
from jaxrnn.dtypes import promote
from jaxrnn.errors import SettingError
from jaxrnn.rng import validation_key
from jaxrnn.tasks.base import Task
from jaxrnn.types import Arrays, Batch, Metrics

TOLERANCE = 0.04
"""An output closer than this to the target counts as correct."""

VARIANTS = ("sum", "1997")

RECENT = 2000
"""How many sequences in a row had to be correct in 1997; the size of the validation set."""


@dataclass(frozen=True)
class Adding(Task):
    """The inputs are a number and a marker per step, F=2; the target is the sum of two numbers.

    variant="sum", of Arjovsky, Shah and Bengio (2016), section 4.2: the numbers are uniform in
    [0, 1). Two markers are 1 and the others 0: one at a random step of the first half of the
    sequence, one at a random step of the second half, which includes the middle step if T is odd.
    The target is the sum of the two marked numbers, from 0 to 2. Le, Jaitly and Hinton (2015),
    section 4.1, use it without the halves.

    variant="1997", of Hochreiter and Schmidhuber (1997), experiment 4: the numbers are uniform in
    [-1, 1). A row has a random length from T to T + T // 10. The marker of one of the first ten
    steps is 1, and so is that of one of the first T // 2 - 1 steps that are then unmarked. The
    markers of the first and the last step are -1, all others 0. The target is 0.5 + (X1 + X2) / 4,
    from 0 to 1, for the marked numbers X1 and X2. If the first step is drawn to be marked, its
    marker stays -1, and it counts as 0 in the sum.

    Only the last step of a row has weight 1; earlier outputs are ignored.

    Attributes:
      sequence_length: T, at least 2; for "1997" at least 11.
      batch_size: B.
      variant: "sum" or "1997".
      output_size: 1, the sum.

    Raises:
      SettingError: if a number is too small or not an integer, or there is no such variant.

    >>> import numpy as np
    >>> batch = Adding(sequence_length=6, batch_size=1).sample_batch(jax.random.key(0), 0)
    >>> print(np.asarray(batch.inputs[0].T).round(2))
    [[0.84 0.18 0.23 0.12 0.19 0.72]
     [0.   0.   1.   1.   0.   0.  ]]
    >>> print(np.asarray(batch.targets[0]).round(2), batch.weights[0])
    [0.   0.   0.   0.   0.   0.35] [0. 0. 0. 0. 0. 1.]
    """

    output_size = 1

    sequence_length: int = 100
    batch_size: int = 50
    variant: str = "sum"

    def __post_init__(self) -> None:
        check_counts(self, "sequence_length", "batch_size")
        check_choice("variant", self.variant, VARIANTS)
        if self.sequence_length < 2:
            raise SettingError("sequence length must be at least 2: a step to mark in each half")
        if self._is_original and self.sequence_length < 11:
            raise SettingError("sequence length must be at least 11: ten steps to mark and the end")

    @property
    def _is_original(self) -> bool:
        return self.variant == "1997"

    @property
    def memoryless_loss(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The variance of the target: the mean squared error of always predicting its mean.

        No output that ignores the input is better. "sum": 1/6. An output that sees only the last
        input reaches 1/6 - 1/(12 * (T - T // 2)), because a marker may be there. "1997": a number
        has variance 1/3, so it is (P(X1 counts) + P(X2 counts)) / 48, a little less than 1/24.
        """
        if not self._is_original:
            return 1 / 6
        second = 0.9 / (self.sequence_length // 2 - 1)  # X2 is at the first step
        return (0.9 + 1 - second) / 48

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """Inputs [B, T, 2], targets [B, T] and weights [B, T], new for each key.

        In the variant "1997", T is the greatest length, and there are lengths [B].
        """
        del step, arrays
        if self._is_original:
            return self._sample_original(key)
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

    def _sample_original(self, key: jax.Array) -> Batch:
        """A batch of the variant "1997"."""
        k_numbers, k_lengths, k_first, k_second = jax.random.split(key, 4)
        least, column = self.sequence_length, (self.batch_size, 1)
        most = least + least // 10
        lengths = jax.random.randint(k_lengths, column, least, most + 1, jnp.int32)  # [B, 1]
        first = jax.random.randint(k_first, column, 0, 10, jnp.int32)
        second = jax.random.randint(k_second, column, 0, least // 2 - 1, jnp.int32)
        second = jnp.where(second < first, second, second + 1)  # among the unmarked
        steps = jnp.arange(most, dtype=jnp.int32)[None]  # [1, T]
        inside, last = steps < lengths, steps == lengths - 1  # [B, T]
        numbers = jax.random.uniform(
            k_numbers, (self.batch_size, most), jnp.float32, minval=-1.0, maxval=1.0
        )
        numbers = jnp.where(inside, numbers, 0.0)
        marked = ((steps == first) | (steps == second)) & (steps > 0)
        sums = jnp.sum(jnp.where(marked, numbers, 0.0), axis=1, keepdims=True)  # [B, 1]
        markers = marked.astype(jnp.float32) - ((steps == 0) | last).astype(jnp.float32)
        return Batch(
            jnp.stack([numbers, markers], axis=-1),
            jnp.where(last, 0.5 + sums / 4, 0.0),
            last.astype(jnp.float32),
            lengths[:, 0],
        )

    def num_validation_batches(self, arrays: Arrays) -> int:
        """Enough for 2000 sequences in the variant "1997", 0 in the other one."""
        del arrays
        return math.ceil(RECENT / self.batch_size) if self._is_original else 0

    def validation_batch(self, n: jax.Array, arrays: Arrays) -> Batch:
        """Batch n of the validation set, the same for every seed."""
        return self.sample_batch(validation_key(n), 0, arrays)

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """outputs [B, T, 1] -> [], the mean squared error of the last outputs."""
        return losses.sequence_squared_error(outputs, batch.targets, batch.weights)

    def metrics(self, outputs: jax.Array, batch: Batch) -> Metrics:
        """outputs [B, T, 1] -> `within` [], the fraction of last outputs with an error < 0.04."""
        sums, targets = promote(outputs[..., 0], batch.targets)
        close = jnp.abs(sums - targets) < TOLERANCE
        return {"within": losses.weighted_mean(close.astype(outputs.dtype), batch.weights)}

    def solved(self, metrics: dict[str, Any]) -> Any:
        """[S] bool: whether the network meets the criterion.

        Hochreiter and Schmidhuber (1997) stopped once the average training error was below 0.01 and
        the 2000 most recent sequences were correct, to within 0.04. "1997": the mean squared error
        is below 0.01 and all of the 2000 validation sequences are correct. "sum": the mean squared
        error of the last batch is below 0.01. That is stricter than in 1997, because the target is
        four times as large.
        """
        if not self._is_original:
            return metrics["loss"] < 0.01
        return (metrics["validation_loss"] < 0.01) & (metrics["validation_within"] >= 1.0)
