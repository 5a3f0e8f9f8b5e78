"""Validation metrics of groups of rows by their length, inside the compiled program."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.dtypes import promote
from jaxrnn.errors import SettingError
from jaxrnn.tasks.base import Task
from jaxrnn.types import Batch, Metrics

BY_LENGTH = "_by_length"
"""Suffix of the names of metrics by length."""


class GroupSums(NamedTuple):
    """Sums over the rows of each of G groups; a sum over batches has the same structure."""

    metrics: Metrics  # by name, [G] each: of weight times metric
    weights: jax.Array  # [G]


def check_groups(task: Task) -> None:
    """Raise SettingError unless the task's length groups are increasing whole numbers."""
    groups: Any = task.length_groups
    fine = isinstance(groups, tuple) and all(
        isinstance(bound, int) and not isinstance(bound, bool) for bound in groups
    )
    if not fine or any(low >= high for low, high in itertools.pairwise((0, *groups, 2**31))):
        raise SettingError(f"length groups must be increasing whole numbers from 1, not {groups!r}")


def scalar_metrics(task: Task, outputs: jax.Array, batch: Batch) -> Metrics:
    """Return the task's loss and those of its metrics that are single numbers, [] each."""
    values = {"loss": task.loss(outputs, batch), **task.metrics(outputs, batch)}
    return {name: value for name, value in values.items() if value.ndim == 0}


def each_row(outputs: jax.Array, batch: Batch) -> tuple[jax.Array, Batch]:
    """Return batches of one row each, with the axes [B, 1, ...], to `vmap` over."""
    return jax.tree.map(lambda array: array[:, None], (outputs, batch))


def sum_groups(task: Task, outputs: jax.Array, batch: Batch) -> GroupSums:
    """Measure each row of a batch alone, and add up the rows of each group.

    A row belongs to the first group whose bound is at least its length. Longer rows, and rows
    without weight, belong to none.

    Args:
      task: with length groups.
      outputs: [B, T, V].
      batch: with lengths, [B].

    Raises:
      SettingError: if the batch has no lengths.
    """
    if batch.lengths is None:
        name = type(task).__name__
        raise SettingError(f"{name} has length groups, so its validation batches need lengths")
    bounds = np.array(task.length_groups, np.int32)
    below = np.array([-1, *bounds[:-1]], np.int32)
    lengths = batch.lengths[:, None].astype(jnp.int32)
    weights = jnp.sum(batch.weights, axis=1)[:, None]  # [B, 1]
    counts = (lengths > below[None]) & (lengths <= bounds[None]) & (weights > 0)  # [B, G]

    def add_up(rows: jax.Array) -> jax.Array:  # [B] -> [G]
        values = jnp.multiply(*promote(rows[:, None], weights))
        return jnp.sum(jnp.where(counts, values, 0.0), axis=0)

    rows = jax.vmap(lambda row: scalar_metrics(task, *row))(each_row(outputs, batch))
    return GroupSums(jax.tree.map(add_up, rows), jnp.sum(jnp.where(counts, weights, 0.0), axis=0))


def group_means(sums: GroupSums, empty: float) -> Metrics:
    """Return the means of each group over all batches, by name, [G] each.

    Args:
      sums: of each batch, leaves [N, G].
      empty: the value of a group without rows.
    """
    total = jnp.sum(sums.weights, axis=0)

    def mean(value: jax.Array) -> jax.Array:
        value, divisor = promote(jnp.sum(value, axis=0), jnp.where(total > 0, total, 1.0))
        return jnp.where(total > 0, value / divisor, empty)

    return {name + BY_LENGTH: mean(value) for name, value in sums.metrics.items()}
