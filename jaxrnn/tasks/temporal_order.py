"""Temporal order: classify a long sequence by the order of its few relevant symbols."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn import losses
from jaxrnn.checks import check_counts
from jaxrnn.choices import check_choice
from jaxrnn.errors import SettingError
from jaxrnn.rng import validation_key
from jaxrnn.tasks.adding import RECENT
from jaxrnn.tasks.base import Task
from jaxrnn.types import Arrays, Batch, Metrics

SYMBOLS = "EBabcdXY"
"""The F = 8 symbols, in the order of the inputs: start, trigger, distractors, relevant ones."""

PLACES = {"6a": ((10, 20), (50, 60)), "6b": ((10, 20), (33, 43), (66, 76))}
"""Where the relevant symbols may be, first and last step, in a sequence of 100 steps."""

TOLERANCE = 0.3
"""A sequence is classified correctly if the error of every output is below this."""


@dataclass(frozen=True)
class TemporalOrder(Task):
    """Name, at the end, which relevant symbols came, in their order.

    A sequence starts with E and ends with the trigger B. Between them are random symbols from a, b,
    c and d, except for two (variant "6a") or three ("6b") that are X or Y. They are at random steps
    in the ranges 10 to 20 and 50 to 60 for "6a", and 10 to 20, 33 to 43 and 66 to 76 for "6b",
    counted from 0 at E, both ends included. The length is random from 100 to 110. The 4 or 8
    classes are in the order XX, XY, YX, YY, or XXX, XXY, ..., YYY: a binary number of X=0 and Y=1.
    The inputs are one-hot, F=8, in the order of `SYMBOLS`. Only the last step has weight 1.

    Source: Hochreiter and Schmidhuber (1997), experiment 6. Their outputs are logistic units with a
    squared error; here they are a softmax with cross-entropy.

    Attributes:
      sequence_length: 100 in the paper; other lengths scale the ranges, rounding down.
      batch_size: B.
      variant: "6a" or "6b".

    Raises:
      SettingError: if a number is too small or not an integer, or there is no such variant.

    >>> task = TemporalOrder(sequence_length=10, batch_size=1)
    >>> batch = task.sample_batch(jax.random.key(0), 0)
    >>> length = int(batch.lengths[0])  # 10 or 11
    >>> "".join(SYMBOLS[n] for n in batch.inputs[0, :length].argmax(-1)), int(batch.targets[0, -1])
    ('EcYddYacdaB', 3)
    """

    sequence_length: int = 100
    batch_size: int = 50
    variant: str = "6a"

    def __post_init__(self) -> None:
        check_counts(self, "sequence_length", "batch_size")
        check_choice("variant", self.variant, PLACES)
        if self.sequence_length < 10:
            raise SettingError("sequence length must be at least 10: room for the relevant symbols")

    @property
    def output_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """V, the classes: 4 or 8."""
        return 2 ** len(PLACES[self.variant])

    @property
    def memoryless_loss(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Nats of guessing: the classes are equally likely, so ln V."""
        return math.log(self.output_size)

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """Inputs [B, T, 8], targets [B, T], weights [B, T] and lengths [B], new for each key.

        The target is the class at every step, also where the weight is 0.
        """
        del step, arrays
        k_lengths, k_noise, k_classes, k_places = jax.random.split(key, 4)
        least, column = self.sequence_length, (self.batch_size, 1)
        most = least + least // 10
        lengths = jax.random.randint(k_lengths, column, least, most + 1, jnp.int32)  # [B, 1]
        classes = jax.random.randint(k_classes, column, 0, self.output_size, jnp.int32)
        steps = jnp.arange(most, dtype=jnp.int32)[None]  # [1, T]
        noise = jax.random.randint(k_noise, (self.batch_size, most), 2, 6, jnp.int32)
        symbols = jnp.where(steps == 0, 0, noise)  # [B, T]
        ranges = PLACES[self.variant]
        for n, (first, last) in enumerate(ranges):
            low, high = (edge * least // 100 for edge in (first, last))
            k_place = jax.random.fold_in(k_places, n)
            place = jax.random.randint(k_place, column, low, high + 1, jnp.int32)
            bit = (classes >> (len(ranges) - 1 - n)) & 1  # the first symbol is the highest bit
            symbols = jnp.where(steps == place, 6 + bit, symbols)
        last = steps == lengths - 1
        symbols = jnp.where(last, 1, symbols)
        inputs = jax.nn.one_hot(symbols, len(SYMBOLS), dtype=jnp.float32)
        inputs = jnp.where((steps < lengths)[..., None], inputs, 0.0)
        targets = jnp.broadcast_to(classes, symbols.shape)
        return Batch(inputs, targets, last.astype(jnp.float32), lengths[:, 0])

    def num_validation_batches(self, arrays: Arrays) -> int:
        """Enough for 2000 sequences."""
        del arrays
        return math.ceil(RECENT / self.batch_size)

    def validation_batch(self, n: jax.Array, arrays: Arrays) -> Batch:
        """Batch n of the validation set, the same for every seed."""
        return self.sample_batch(validation_key(n), 0, arrays)

    def metrics(self, outputs: jax.Array, batch: Batch) -> Metrics:
        """outputs [B, T, V] -> `accuracy` [], and `within` [].

        `within` is the fraction of sequences for which every output probability is within 0.3 of
        1 for the right class or 0 for another one, as the paper counts them.
        """
        probabilities = jax.nn.softmax(outputs)
        right = jax.nn.one_hot(batch.targets, self.output_size, dtype=outputs.dtype)
        close = jnp.abs(probabilities - right).max(axis=-1) < TOLERANCE
        within = losses.weighted_mean(close.astype(outputs.dtype), batch.weights)
        return super().metrics(outputs, batch) | {"within": within}

    def solved(self, metrics: dict[str, Any]) -> Any:
        """[S] bool: a validation loss below 0.1, and all 2000 sequences within the tolerance.

        In 1997, training stopped once the average error was below 0.1 and the 2000 most recent
        sequences were classified correctly.
        """
        return (metrics["validation_loss"] < 0.1) & (metrics["validation_within"] >= 1.0)
