"""The train state and the pure train step.

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
from jaxrnn.training.validation import PREFIX, Best, initial_carry
from jaxrnn.types import Batch, Carry, Metrics, Params

RESERVED = {"step", "seed", "loss", "grad_norm", "clock"}
"""Names in a line of metrics.jsonl that a task's own metrics must not use."""


class TrainState(NamedTuple):
    """Everything one train step hands to the next."""

    step: jax.Array  # [] int32: updates made so far
    params: Params  # the model's parameters
    opt_state: Any  # the optimizer's state, such as Adam's moments
    carry: Carry = None  # the layers' carry after the last batch; None unless the task is stateful
    best: Best | None = None  # by validation loss; None without a validation set
    solved_at: jax.Array | None = None  # [] int32, -1: not yet; None without `stop_when_solved`


TrainStep = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]


def init_state(
    key: jax.Array,
    task: Task,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    batch: Batch,
    params: Params = None,
) -> TrainState:
    """Return the state before the first update.

    Args:
      key: [] PRNG key; consumed.
      task: a stateful task gets a carry.
      model: called as `SequenceModel` is; all its variables are parameters.
      optimizer: its state is initialized for the parameters.
      batch: inputs [B, T, F] or [B, T]; only shapes and dtypes are used.
      params: start from these; None draws new ones.

    >>> import jax, optax
    >>> from jaxrnn import Adding, LSTMCell, Recurrent, SequenceModel, init_state
    >>> task = Adding(10, batch_size=4)
    >>> model = SequenceModel(Recurrent(LSTMCell(8)), task.output_size)
    >>> batch = task.sample_batch(jax.random.key(0), 0)
    >>> int(init_state(jax.random.key(1), task, model, optax.adam(1e-3), batch).step)
    0
    """
    inputs = jnp.zeros(batch.inputs.shape, batch.inputs.dtype)
    if params is None:
        params = model.init(key, inputs)["params"]
    carry = initial_carry(model, params, inputs) if task.stateful else None
    return TrainState(jnp.int32(0), params, optimizer.init(params), carry)


def make_train_step(
    task: Task, model: nn.Module, optimizer: optax.GradientTransformation
) -> TrainStep:
    """Return a pure `train_step(state, batch, dropout_key) -> (state, metrics)`; jit it yourself.

    Metrics are measured before the update: `loss`, `grad_norm` (the global norm of the gradient
    before clipping), and the task's own.

    Args:
      task: gives the loss and the metrics.
      model: called as `SequenceModel` is: inputs [B, T, F] -> outputs [B, T, V] and a carry.
      optimizer: any optax optimizer.

    Raises:
      SettingError: when traced, if the model's output size is not the task's, or a metric of the
        task cannot be logged.

    >>> import jax, optax
    >>> from jaxrnn import Adding, LSTMCell, Recurrent, SequenceModel, init_state, make_train_step
    >>> task = Adding(10, batch_size=4)
    >>> model, optimizer = SequenceModel(Recurrent(LSTMCell(8)), 1), optax.adam(1e-3)
    >>> batch = task.sample_batch(jax.random.key(0), 0)
    >>> state = init_state(jax.random.key(1), task, model, optimizer, batch)
    >>> train_step = jax.jit(make_train_step(task, model, optimizer))
    >>> state, metrics = train_step(state, batch, jax.random.key(2))
    >>> int(state.step), sorted(metrics)
    (1, ['grad_norm', 'loss', 'within'])
    """

    def train_step(
        state: TrainState, batch: Batch, dropout_key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        def loss_fn(params: Params) -> tuple[jax.Array, tuple[jax.Array, Carry]]:
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

        (loss, (outputs, carry)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params
        )
        with jax.numpy_dtype_promotion("standard"):  # optax needs it
            updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        carry = carry if task.stateful else None
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(gradients)}
        own = {name: jnp.asarray(value) for name, value in task.metrics(outputs, batch).items()}
        _check_metrics(own)
        new = TrainState(state.step + 1, params, opt_state, carry, state.best, state.solved_at)
        return new, metrics | own

    return train_step


def _check_metrics(metrics: Metrics) -> None:
    """Raise SettingError if a task's metrics cannot be logged."""
    if reserved := RESERVED & metrics.keys():
        raise SettingError(f"a task's metrics must not be called {', '.join(sorted(reserved))}")
    for name, value in metrics.items():
        if name.startswith(PREFIX):
            raise SettingError(f"a task's metrics must not start with {PREFIX}, as {name} does")
        if not value.size or jnp.iscomplexobj(value):
            raise SettingError(f"the metric {name} must hold real numbers, at least one")
