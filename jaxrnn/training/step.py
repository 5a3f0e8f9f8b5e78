"""Training: the settings, the state, and one pure step.

Nothing here knows a task by name, prints, or touches a disk.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxrnn.errors import SettingError
from jaxrnn.tasks.base import Task
from jaxrnn.training.validation import PREFIX, Best, fresh_carry
from jaxrnn.types import Batch, Carry, Metrics, Params


class TrainState(NamedTuple):
    """All that one step hands to the next."""

    step: jax.Array  # [] int32: updates made so far
    params: Params  # the model's parameters
    opt_state: Any  # the optimiser's state, e.g. Adam's moments
    carry: Carry = None  # the layers' carry after the last batch, where the task keeps it
    best: Best | None = None  # by validation loss, where the task holds something out


RESERVED = {"step", "seed", "loss", "grad_norm", "clock"}
"""What a line of metrics has beside the task's own."""

TrainStep = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]


def init_state(
    key: jax.Array,
    task: Task,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    batch: Batch,
) -> TrainState:
    """The state before the first update.

    Args:
      key: [] PRNG key; it is consumed.
      task: says whether the carry is kept.
      model: a module with the call of `SequenceModel`, whose variables are all parameters.
      optimizer: whose state is to go with the parameters.
      batch: of which only shapes and types matter.
    """
    inputs = jnp.zeros(batch.inputs.shape, batch.inputs.dtype)
    params = model.init(key, inputs)["params"]
    carry = None
    if task.stateful:
        carry = fresh_carry(model, params, inputs)
    return TrainState(jnp.int32(0), params, optimizer.init(params), carry)


def make_train_step(
    task: Task, model: nn.Module, optimizer: optax.GradientTransformation
) -> TrainStep:
    """A pure `train_step(state, batch, dropout_key) -> (state, metrics)`, not yet compiled.

    The metrics are taken before the update: the loss, `grad_norm`, the global norm of its gradient
    before it is clipped, and the task's own.
    """

    def train_step(
        state: TrainState, batch: Batch, dropout_key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        def loss_of(params: Params) -> tuple[jax.Array, tuple[jax.Array, Carry]]:
            outputs, carry = cast(
                tuple[jax.Array, Carry],
                model.apply(
                    {"params": params},
                    batch.inputs,
                    state.carry,
                    **batch.masks(),
                    deterministic=False,
                    rngs={"dropout": dropout_key},
                ),
            )
            if outputs.shape[-1] != task.output_size:
                raise SettingError(
                    f"the model's outputs are [..., {outputs.shape[-1]}], but the task's"
                    f" output_size is {task.output_size}"
                )
            return task.loss(outputs, batch), (outputs, carry)

        (loss, (outputs, carry)), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            state.params
        )
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        carry = carry if task.stateful else None
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(gradients)}
        own = {name: jnp.asarray(value) for name, value in task.metrics(outputs, batch).items()}
        _check_metrics(own)
        new = TrainState(state.step + 1, params, opt_state, carry, state.best)
        return new, metrics | own

    return train_step


def _check_metrics(own: Metrics) -> None:
    """Refuse metrics of a task that cannot be logged, with a SettingError."""
    if taken := RESERVED & own.keys():
        raise SettingError(f"a task's metrics must not be called {', '.join(sorted(taken))}")
    for name, value in own.items():
        if name.startswith(PREFIX):
            raise SettingError(f"a task's metrics must not begin with {PREFIX}, as {name} does")
        if not value.size or jnp.iscomplexobj(value):
            raise SettingError(f"the metric {name} must hold real numbers, one at least")
