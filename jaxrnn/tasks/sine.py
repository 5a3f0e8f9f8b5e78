"""Forecast sine waves whose frequency has to be inferred from what was read."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxrnn.errors import SettingError
from jaxrnn.tasks.forecasting import Forecasting


@dataclass(frozen=True)
class Sine(Forecasting):
    """x(t) = sqrt(2) sin(frequency t + phase), with a random frequency and phase in each row.

    The phase is uniform, and the frequency is uniform between those of the longest and the shortest
    period. For one known frequency w the next value is linear in the last two: x(t + 1) = 2 cos(w)
    x(t) - x(t - 1). Here w is not known, but a linear autoregression on many values comes very
    close: the task checks a set-up rather than a network. The factor sqrt(2) makes the variance 1.

    Attributes:
      shortest_period: in steps, more than 2.
      longest_period: in steps, at least the shortest.

    Raises:
      SettingError: if the periods are out of range.

    >>> import numpy as np
    >>> task = Sine(4, warmup=1, batch_size=1, shortest_period=4, longest_period=4)
    >>> x = task.sample_batch(jax.random.key(0), 0).inputs[0, :, 0]
    >>> bool(np.allclose(x[2:], -x[:2], atol=1e-6))  # half a period later
    True
    """

    shortest_period: float = 5.0
    longest_period: float = 50.0

    def __post_init__(self) -> None:
        if not 2 < self.shortest_period <= self.longest_period < math.inf:
            raise SettingError(
                "the shortest period must be more than 2 steps, and at most the longest period, not"
                f" {self.shortest_period} and {self.longest_period}"
            )
        super().__post_init__()

    def series(self, key: jax.Array, length: int) -> jax.Array:
        """sqrt(2) sin(frequency t + phase), [B, length]."""
        k_frequency, k_phase = jax.random.split(key)
        shape = (self.batch_size, 1)
        low, high = (2 * math.pi / period for period in (self.longest_period, self.shortest_period))
        frequency = jax.random.uniform(k_frequency, shape, jnp.float32, low, high)
        phase = jax.random.uniform(k_phase, shape, jnp.float32, 0.0, 2 * math.pi)
        steps = jnp.arange(length, dtype=jnp.float32)[None]
        return math.sqrt(2) * jnp.sin(frequency * steps + phase)
