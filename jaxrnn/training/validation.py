"""Validation, the best parameters so far, and early stopping, all inside the compiled program.

Because they are traced with the train step, each of many seeds keeps its own best parameters.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.dtypes import promote
from jaxrnn.errors import SettingError
from jaxrnn.tasks.base import Task
from jaxrnn.training.by_length import (
    check_groups,
    each_row,
    group_means,
    scalar_metrics,
    sum_groups,
)
from jaxrnn.training.mesh import shard_rows
from jaxrnn.types import Arrays, Batch, Carry, Metrics, Params

PREFIX = "validation_"
"""Prefix of the names of validation metrics."""

LOSS = PREFIX + "loss"
STUCK_ROWS = PREFIX + "stuck_rows"
WORST_ROW = PREFIX + "worst_row"
WORST_ROW_LOSS = PREFIX + "worst_row_loss"
ROW_LOSSES = PREFIX + "row_losses"

Validate = Callable[[Params, Arrays], Metrics]


class Best(NamedTuple):
    """The parameters with the lowest validation loss so far."""

    step: jax.Array  # [] int32: updates made when they were validated
    loss: jax.Array  # [] float: their validation loss
    params: Params
    last_validated: jax.Array  # [] int32: step of the last validation


def init_best(params: Params) -> Best:
    """Return the `Best` before the first validation: an infinite loss."""
    return Best(jnp.int32(0), jnp.float32(jnp.inf), params, jnp.int32(0))


def initial_carry(model: nn.Module, params: Params, inputs: jax.Array) -> Carry:
    """Return the carry a model starts from: rows of length 0 return their initial carry."""
    lengths = jnp.zeros(inputs.shape[0], jnp.int32)
    return cast(Any, model.apply({"params": params}, inputs, lengths=lengths))[1]


def make_validate(task: Task, model: nn.Module, *, row_losses: bool = False) -> Validate:
    """Return a pure `validate(params, arrays) -> metrics` over a task's whole validation set.

    Dropout is off. The loss and each scalar metric of the task are averaged over the batches, in
    proportion to the batches' weights; `PREFIX` is added to their names.

    In a stateful task with a `memoryless_loss`, `stuck_rows` counts the rows whose own loss is
    above it, and `worst_row` and `worst_row_loss` describe the highest one. If the network has
    learned something, it is stuck there: in a state in which it predicts worse than without memory.
    With `row_losses` the loss of each row, [B], is returned, too; training leaves it out.

    A task with `length_groups` gets each mean by length, too, [G], as `<name>_by_length`: over the
    group's rows in all batches, each row measured alone, in proportion to the rows' weights. A
    group without rows has NaN (infinite with JAX_DEBUG_NANS).

    Raises:
      SettingError: if the length groups are not increasing; when traced, if a batch then lacks
        lengths, or two metrics would have the same name.
    """
    check_groups(task)
    limit = task.memoryless_loss if task.stateful else None

    def validate(params: Params, arrays: Arrays) -> Metrics:
        def validate_batch(carry: Carry, n: jax.Array) -> tuple[Carry, Any]:
            batch = shard_rows(task.validation_batch(n, arrays))
            outputs, carry_after = cast(
                tuple[jax.Array, Carry],
                model.apply({"params": params}, batch.inputs, carry, **batch.masks()),
            )
            scalars = scalar_metrics(task, outputs, batch)
            rows = None if limit is None else _row_losses(task, outputs, batch)
            groups = sum_groups(task, outputs, batch) if task.length_groups else None
            weights = jnp.sum(batch.weights, axis=1)  # [B]
            carry_after = carry_after if task.stateful else carry
            return carry_after, (scalars, jnp.sum(batch.weights), rows, weights, groups)

        inputs = jax.eval_shape(task.validation_batch, jnp.int32(0), arrays).inputs
        carry = initial_carry(model, params, jnp.zeros(inputs.shape, inputs.dtype))
        batches = jnp.arange(task.num_validation_batches(arrays), dtype=jnp.int32)
        _, measured = jax.lax.scan(validate_batch, carry, batches)
        values, weights, rows, row_weights, groups = measured
        total = jnp.sum(weights)
        means = {
            name: jnp.sum(jnp.multiply(*promote(value, weights))) / total
            for name, value in values.items()
        }
        if groups is not None:
            by_length = group_means(groups, _missing())
            if clash := means.keys() & by_length.keys():
                raise SettingError(f"a task's metrics must not be called {', '.join(clash)}")
            means |= by_length
        means = {PREFIX + name: value for name, value in means.items()}
        if limit is None:
            return means
        row_weight = jnp.sum(row_weights, axis=0)  # [B]; the last row may have no tokens
        losses = jnp.sum(rows * row_weights, axis=0) / jnp.where(row_weight > 0, row_weight, 1.0)
        worst = jnp.argmax(losses)
        every_row = {ROW_LOSSES: losses} if row_losses else {}
        return means | {
            **every_row,
            STUCK_ROWS: jnp.sum(losses > limit).astype(losses.dtype),
            WORST_ROW: worst.astype(losses.dtype),
            WORST_ROW_LOSS: losses[worst],
        }

    return validate


def _row_losses(task: Task, outputs: jax.Array, batch: Batch) -> jax.Array:
    """Return the task's loss of each row alone, [B]."""
    return jax.vmap(task.loss)(*each_row(outputs, batch))


def _missing() -> float:
    """Return what stands for what was not measured: infinity if a NaN would end the run."""
    settings: Any = jax.config
    return jnp.inf if settings.jax_debug_nans else jnp.nan


def validate_and_track_best(
    validate: Validate,
    best: Best,
    params: Params,
    arrays: Arrays,
    step: jax.Array,
    due: jax.Array,
    active: jax.Array,
) -> tuple[Best, Metrics]:
    """Validate the parameters if `due`; keep them if they are the best of an `active` seed.

    Args:
      validate: from `make_validate`.
      best: the best so far.
      params: the parameters after `step` updates.
      arrays: the task's arrays.
      step: [] int32.
      due: [] bool, whether this step validates.
      active: [] bool, False for a seed that diverged or stopped early.

    Returns:
      the best so far, and the validation metrics: NaN if not due (infinite with JAX_DEBUG_NANS).
    """
    shapes = jax.eval_shape(validate, params, arrays)
    skipped = jax.tree.map(lambda shape: jnp.full(shape.shape, _missing(), shape.dtype), shapes)
    metrics = jax.lax.cond(due, validate, lambda *_: skipped, params, arrays)
    active &= due
    improved = active & (metrics[LOSS] < best.loss)
    current, previous = (step, metrics[LOSS], params), best[:3]
    kept = jax.tree.map(partial(jnp.where, improved), current, previous)
    return Best(*kept, last_validated=jnp.where(active, step, best.last_validated)), metrics


def is_patience_exhausted(best: Best, patience_steps: int) -> Any:
    """Return whether the last validation came `patience_steps` or more after the best one."""
    return best.last_validated - best.step >= patience_steps
