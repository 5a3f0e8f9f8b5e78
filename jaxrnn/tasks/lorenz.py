"""Forecast one coordinate of the Lorenz system, which is chaotic."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxrnn.checks import check_counts
from jaxrnn.tasks.forecasting import Forecasting

SIGMA, RHO, BETA = 10.0, 28.0, 8 / 3
TIME_STEP = 0.01  # of the integration
TRANSIENT = 1000  # integration steps to discard: 10 units of time
STAGGER = 1000  # and up to 1000 more
STD = 7.92  # of x on the attractor


@dataclass(frozen=True)
class Lorenz(Forecasting):
    """x of the Lorenz system, seen every `spacing` integration steps of 0.01 units of time.

        x' = 10 (y - x),  y' = x (28 - z) - y,  z' = x y - 8/3 z

    Integrated by the classic Runge-Kutta method of order 4. Each row starts at a random point. The
    first 10 units of time are discarded, after which it is on the attractor, and up to 10 more, so
    that rows differ in phase. The system is chaotic: errors grow e-fold in about 1.1 units of time.
    y and z are hidden, so one value of x does not determine the next ones. x is divided by its
    standard deviation, 7.92; its mean is 0, because the system and the starting
    points are symmetric under (x, y) -> (-x, -y).

    Source: Lorenz (1963), Deterministic nonperiodic flow, equations 25 to 27, with the parameters
    of section 7.

    Attributes:
      spacing: integration steps from one value to the next, at least 1.

    >>> import numpy as np
    >>> task = Lorenz(sequence_length=6, warmup=2, batch_size=1)
    >>> batch = task.sample_batch(jax.random.key(0), 0)
    >>> print(np.asarray(batch.inputs[0, :, 0]).round(1))
    [ 1.9  0.8  0.1 -0.1 -0.3 -0.6]
    >>> print(np.asarray(batch.targets[0]).round(1), batch.weights[0])
    [ 0.8  0.1 -0.1 -0.3 -0.6 -1.2] [0. 0. 1. 1. 1. 1.]
    """

    spacing: int = 10

    def __post_init__(self) -> None:
        check_counts(self, "spacing")
        super().__post_init__()

    def series(self, key: jax.Array, length: int) -> jax.Array:
        """x / 7.92, [B, length]."""
        k_point, k_start = jax.random.split(key)
        point = jax.random.uniform(k_point, (3, self.batch_size), jnp.float32, -15.0, 15.0)
        point = point.at[2].add(25.0)
        start = TRANSIENT + jax.random.randint(k_start, (1, self.batch_size), 0, STAGGER)

        def approach(n: jax.Array, point: jax.Array) -> jax.Array:
            return jnp.where(n < start, step(point), point)

        point = jax.lax.fori_loop(0, TRANSIENT + STAGGER, approach, point)

        def observe(point: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            return jax.lax.fori_loop(0, self.spacing, lambda _, p: step(p), point), point[0]

        _, x = jax.lax.scan(observe, point, length=length)  # [length, B]
        return x.T / STD


def step(point: jax.Array) -> jax.Array:
    """One step of the Runge-Kutta method of order 4: [3, ...] -> [3, ...]."""
    half = TIME_STEP / 2
    k1 = derivative(point)
    k2 = derivative(point + half * k1)
    k3 = derivative(point + half * k2)
    k4 = derivative(point + TIME_STEP * k3)
    return point + TIME_STEP / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def derivative(point: jax.Array) -> jax.Array:
    """The right-hand side of the Lorenz equations: [3, ...] -> [3, ...]."""
    x, y, z = point
    return jnp.stack([SIGMA * (y - x), x * (RHO - z) - y, x * y - BETA * z])
