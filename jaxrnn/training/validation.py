"""Validation, the best parameters so far, and early stopping, all inside the compiled program.

Because they are traced with the train step, each of many seeds keeps its own best parameters.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.tasks.base import Task
from jaxrnn.types import Arrays, Carry, Metrics, Params

PREFIX = "validation_"
"""Prefix of the names of validation metrics."""

LOSS = PREFIX + "loss"

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


def make_validate(task: Task, model: nn.Module) -> Validate:
    """Return a pure `validate(params, arrays) -> metrics` over a task's whole validation set.

    Dropout is off. The loss and each scalar metric of the task are averaged over the batches, in
    proportion to the batches' weights; `PREFIX` is added to their names.
    """

    def validate(params: Params, arrays: Arrays) -> Metrics:
        def validate_batch(carry: Carry, n: jax.Array) -> tuple[Carry, tuple[Metrics, jax.Array]]:
            batch = task.validation_batch(n, arrays)
            outputs, carry_after = cast(
                tuple[jax.Array, Carry],
                model.apply({"params": params}, batch.inputs, carry, **batch.masks()),
            )
            values = {"loss": task.loss(outputs, batch), **task.metrics(outputs, batch)}
            scalars = {PREFIX + name: value for name, value in values.items() if value.ndim == 0}
            return carry_after if task.stateful else carry, (scalars, jnp.sum(batch.weights))

        inputs = jax.eval_shape(task.validation_batch, jnp.int32(0), arrays).inputs
        carry = initial_carry(model, params, jnp.zeros(inputs.shape, inputs.dtype))
        batches = jnp.arange(task.num_validation_batches(arrays), dtype=jnp.int32)
        _, (values, weights) = jax.lax.scan(validate_batch, carry, batches)
        total = jnp.sum(weights)
        return {name: jnp.sum(value * weights) / total for name, value in values.items()}

    return validate


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
    settings: Any = jax.config
    filler = jnp.inf if settings.jax_debug_nans else jnp.nan  # a NaN would end the run
    skipped = jax.tree.map(lambda shape: jnp.full(shape.shape, filler, shape.dtype), shapes)
    metrics = jax.lax.cond(due, validate, lambda *_: skipped, params, arrays)
    active &= due
    improved = active & (metrics[LOSS] < best.loss)
    current, previous = (step, metrics[LOSS], params), best[:3]
    kept = jax.tree.map(partial(jnp.where, improved), current, previous)
    return Best(*kept, last_validated=jnp.where(active, step, best.last_validated)), metrics


def is_patience_exhausted(best: Best, patience_steps: int) -> Any:
    """Return whether the last validation came `patience_steps` or more after the best one."""
    return best.last_validated - best.step >= patience_steps
