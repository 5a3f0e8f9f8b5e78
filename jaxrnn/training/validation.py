"""Validation: the loss over all that is held out, the best parameters so far, when to give up.

All of it is part of the compiled program, so that each seed of many has a best of its own.
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
"""What the names of metrics begin with that are of what is held out."""

LOSS = PREFIX + "loss"


class Best(NamedTuple):
    """The network with the lowest validation loss so far."""

    step: jax.Array  # [] int32: updates it had been given
    loss: jax.Array  # [] float: its validation loss
    params: Params
    looked: jax.Array  # [] int32: the step of the last validation


Validate = Callable[[Params, Arrays], Metrics]


def init_best(params: Params) -> Best:
    """What is known before the first validation."""
    return Best(jnp.int32(0), jnp.float32(jnp.inf), params, jnp.int32(0))


def fresh_carry(model: nn.Module, params: Params, inputs: jax.Array) -> Carry:
    """The carry that a model starts with: rows of length 0 give back what they were given."""
    nothing = jnp.zeros(inputs.shape[0], jnp.int32)
    return cast(Any, model.apply({"params": params}, inputs, lengths=nothing))[1]


def make_validate(task: Task, model: nn.Module) -> Validate:
    """A pure `validate(params, data) -> metrics`: means over all that a task holds out.

    Without dropout. Each of the loss and the task's own metrics that is one number is averaged over
    the batches by the weights in them; its name gets `PREFIX`.
    """

    def validate(params: Params, arrays: Arrays) -> Metrics:
        def one(carry: Carry, n: jax.Array) -> tuple[Carry, tuple[Metrics, jax.Array]]:
            batch = task.validation_batch(n, arrays)
            outputs, carry_after = cast(
                tuple[jax.Array, Carry],
                model.apply({"params": params}, batch.inputs, carry, **batch.masks()),
            )
            values = {"loss": task.loss(outputs, batch), **task.metrics(outputs, batch)}
            numbers = {PREFIX + name: value for name, value in values.items() if value.ndim == 0}
            return carry_after if task.stateful else carry, (numbers, jnp.sum(batch.weights))

        inputs = jax.eval_shape(task.validation_batch, jnp.int32(0), arrays).inputs
        carry = fresh_carry(model, params, jnp.zeros(inputs.shape, inputs.dtype))
        numbers = jnp.arange(task.num_validation_batches(arrays), dtype=jnp.int32)
        _, (values, weights) = jax.lax.scan(one, carry, numbers)
        total = jnp.sum(weights)
        return {name: jnp.sum(value * weights) / total for name, value in values.items()}

    return validate


def validate_and_track_best(
    validate: Validate,
    best: Best,
    params: Params,
    arrays: Arrays,
    n: jax.Array,
    due: jax.Array,
    counts: jax.Array,
) -> tuple[Best, Metrics]:
    """Validate the network of n updates, if it is `due`, and keep it, if it `counts` and is best.

    Returns:
      the best so far, and the metrics: not-a-number where it is not due.
    """
    shapes = jax.eval_shape(validate, params, arrays)
    nothing = jax.tree.map(lambda shape: jnp.full(shape.shape, jnp.nan, shape.dtype), shapes)
    metrics = jax.lax.cond(due, validate, lambda *_: nothing, params, arrays)
    counts &= due
    better = counts & (metrics[LOSS] < best.loss)
    now, before = (n, metrics[LOSS], params), best[:3]
    kept = jax.tree.map(partial(jnp.where, better), now, before)
    return Best(*kept, looked=jnp.where(counts, n, best.looked)), metrics


def is_over(best: Best, wait: int) -> Any:
    """Whether the last validation came so many steps after the best, or more: bool."""
    return best.looked - best.step >= wait
