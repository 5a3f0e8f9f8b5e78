"""When a network has solved its task, inside the compiled program."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn.errors import SettingError
from jaxrnn.tasks.base import Task
from jaxrnn.types import Metrics

UNSOLVED = -1
"""`TrainState.solved_at` of a network that has not solved its task."""


def is_solved(task: Task, metrics: Metrics) -> jax.Array:
    """Return whether the metrics of one network at one step meet the task's criterion: [] bool.

    A metric that is not finite meets no bound, in either direction: NaN because it never does, and
    infinity because it stands for NaN with JAX_DEBUG_NANS, where a step did not validate.

    Args:
      task: with a criterion, `Task.solved`.
      metrics: by name, training and validation metrics without the axis S.

    Raises:
      SettingError: if the task has no criterion, or not one that can be compiled.
    """
    opposite = {name: _negate_infinity(value) for name, value in metrics.items()}
    return _apply(task, metrics) & _apply(task, opposite)


def _apply(task: Task, metrics: Metrics) -> jax.Array:
    name = type(task).__name__
    try:
        solved: Any = task.solved(metrics)
    except jax.errors.JAXTypeError:  # of NumPy functions and `if` on traced values
        raise SettingError(
            f"stop_when_solved compiles {name}.solved: it must work on traced values, as plain"
            " comparisons do, without NumPy functions or `if`"
        ) from None
    if solved is None:
        raise SettingError(f"stop_when_solved needs a task with a criterion; {name} has none")
    solved = jnp.asarray(solved)
    if solved.shape or solved.dtype != bool:
        kind = f"{solved.dtype}{list(solved.shape)}"
        raise SettingError(f"{name}.solved must be one bool for each seed, but it is {kind}")
    return solved


def _negate_infinity(value: jax.Array) -> jax.Array:
    if not jnp.issubdtype(value.dtype, jnp.inexact):
        return value
    return jnp.where(jnp.isfinite(value), value, -value)
