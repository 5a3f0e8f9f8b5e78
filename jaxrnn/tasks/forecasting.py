"""Forecasting: from the values so far, predict the value some steps ahead, at every step."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn import losses
from jaxrnn.checks import check_counts
from jaxrnn.errors import SettingError
from jaxrnn.tasks.base import Task
from jaxrnn.types import Arrays, Batch, Metrics


@dataclass(frozen=True)
class Forecasting(Task):
    """Predict x(t + horizon) from x(0), ..., x(t), at every step t; F=1.

    The series are standardized: their mean is 0 and their standard deviation 1. So the root mean
    squared error (RMSE) is in standard deviations, which is also called NRMSE. The first `warmup`
    steps are only read, because there is too little to predict from; they have weight 0.

    A subclass defines `series`, new for each key, and may override the rest.

    Attributes:
      sequence_length: T, more than `warmup`.
      horizon: how many steps ahead to predict, at least 1.
      warmup: how many steps are not scored.
      batch_size: B.
      output_size: 1, the value.
      memoryless_loss: 1, the mean squared error of always predicting the mean, which is the
        variance. No output that ignores the input is better.

    Raises:
      SettingError: if a setting is out of range.
    """

    output_size = 1
    memoryless_loss = 1.0

    sequence_length: int = 100
    horizon: int = 1
    warmup: int = 20
    batch_size: int = 32

    def __post_init__(self) -> None:
        check_counts(self, "sequence_length", "horizon", "warmup", "batch_size")
        if self.sequence_length <= self.warmup:
            raise SettingError(
                f"sequence length must be more than the warmup of {self.warmup} steps, which are"
                " not scored"
            )

    def series(self, key: jax.Array, length: int) -> jax.Array:
        """Standardized series of a length, [B, length] float32: a pure function of the key."""
        raise NotImplementedError(f"{type(self).__name__} must define series(key, length)")

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """Inputs [B, T, 1], targets [B, T] and weights [B, T], new for each key."""
        del step, arrays
        return self.windows(self.series(key, self.sequence_length + self.horizon))

    def windows(self, series: jax.Array) -> Batch:
        """Inputs, targets and weights for series [B, T + horizon]."""
        targets = series[:, self.horizon :]  # [B, T]
        scored = jnp.arange(targets.shape[1]) >= self.warmup
        weights = jnp.broadcast_to(scored[None], targets.shape).astype(jnp.float32)
        return Batch(series[:, : targets.shape[1], None], targets, weights)

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """outputs [B, T, 1] -> [], the mean squared error of the scored steps."""
        return losses.sequence_squared_error(outputs, batch.targets, batch.weights)

    def metrics(self, outputs: jax.Array, batch: Batch) -> Metrics:
        """outputs [B, T, 1] -> `rmse` [], the root of the loss, in standard deviations."""
        return {"rmse": jnp.sqrt(self.loss(outputs, batch))}

    def solved(self, metrics: dict[str, Any]) -> Any:
        """[S] bool: whether the RMSE is below 0.1 standard deviations.

        For the Mackey-Glass equation and the Lorenz system a linear autoregression does not get
        there at the default settings: docs/experiments.md has its figures.
        """
        return metrics["loss"] < 0.01

    def format_loss(self, validation_loss: float) -> str:
        """The RMSE, in standard deviations."""
        return f" (RMSE {math.sqrt(validation_loss):.4g} standard deviations)"
