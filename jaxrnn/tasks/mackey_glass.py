"""Forecast the Mackey-Glass equation, whose derivative depends on a value of the past."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxrnn.checks import check_counts
from jaxrnn.tasks.forecasting import Forecasting

DELAY = 17
STEPS_PER_UNIT = 2  # integration steps in one unit of time
LAG = DELAY * STEPS_PER_UNIT  # the delay in integration steps
TRANSIENT = 600  # integration steps to discard: 300 units of time
STAGGER = 200  # rows start up to 200 integration steps later: about two periods
MEAN, STD = 0.930, 0.226  # of x on the attractor


@dataclass(frozen=True)
class MackeyGlass(Forecasting):
    """x of the Mackey-Glass equation with delay 17, seen every `spacing` units of time.

        x'(t) = 0.2 x(t - 17) / (1 + x(t - 17)^10) - 0.1 x(t)

    Integrated by the classic Runge-Kutta method of order 4 with steps of 0.5; x(t - 17) between two
    steps is interpolated by a cubic polynomial. Before t = 0, x is a random constant from 0.5 to
    1.5. The first 300 units of time are discarded, and up to 100 more, so that rows differ in
    phase. x is standardized by its mean and standard deviation, 0.930 and 0.226.

    Source: Mackey and Glass (1977), Oscillation and chaos in physiological control systems. The
    parameters are those of Farmer (1982); values 6 units apart, and x(t + 6) as the target, are the
    usual benchmark since Lapedes and Farber (1987).

    Attributes:
      spacing: units of time from one value to the next, at least 1.

    >>> import numpy as np
    >>> task = MackeyGlass(sequence_length=5, warmup=2, batch_size=1)
    >>> batch = task.sample_batch(jax.random.key(0), 0)
    >>> print(np.asarray(batch.inputs[0, :, 0]).round(2))
    [ 0.73  0.63 -0.26 -0.89 -0.95]
    >>> print(np.asarray(batch.targets[0]).round(2), batch.weights[0])
    [ 0.63 -0.26 -0.89 -0.95 -0.05] [0. 0. 1. 1. 1.]
    """

    spacing: int = 6

    def __post_init__(self) -> None:
        check_counts(self, "spacing")
        super().__post_init__()

    def series(self, key: jax.Array, length: int) -> jax.Array:
        """(x - 0.930) / 0.226, [B, length]."""
        k_level, k_start = jax.random.split(key)
        level = jax.random.uniform(k_level, (1, self.batch_size), jnp.float32, 0.5, 1.5)
        start = TRANSIENT + jax.random.randint(k_start, (self.batch_size,), 0, STAGGER)
        apart = self.spacing * STEPS_PER_UNIT
        history = jnp.broadcast_to(level, (LAG + 2, self.batch_size))
        x = solve(history, TRANSIENT + STAGGER + length * apart)  # [steps, B]
        place = start[:, None] + apart * jnp.arange(length)[None]  # [B, length]
        return (jnp.take_along_axis(x.T, place, axis=1) - MEAN) / STD


def solve(history: jax.Array, steps: int) -> jax.Array:
    """Integrate: history [LAG + 2, B] of values 0.5 apart -> the `steps` values that follow it."""
    dt = 1 / STEPS_PER_UNIT

    def step(past: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        before, first, last, after = past[0], past[1], past[2], past[3]  # x(t - 17) is `first`
        between = (9 * (first + last) - before - after) / 16
        x = past[-1]
        k1 = derivative(x, first)
        k2 = derivative(x + dt / 2 * k1, between)
        k3 = derivative(x + dt / 2 * k2, between)
        k4 = derivative(x + dt * k3, last)
        new = x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return jnp.concatenate([past[1:], new[None]]), new

    return jax.lax.scan(step, history, length=steps)[1]


def derivative(x: jax.Array, delayed: jax.Array) -> jax.Array:
    """The right-hand side of the Mackey-Glass equation."""
    return 0.2 * delayed / (1 + delayed**10) - 0.1 * x
