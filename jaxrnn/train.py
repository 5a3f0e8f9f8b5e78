"""Training: one pure step, and the loop of all steps as one compiled program.

Nothing here knows a task by name, prints, or touches a disk.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxrnn import losses
from jaxrnn.keys import child_key
from jaxrnn.types import Batch, Carry, Metrics, Params


class TrainState(NamedTuple):
    """All that one step hands to the next."""

    step: jax.Array  # [] int32: updates made so far
    params: Params  # the model's parameters
    opt_state: Any  # the optimiser's state, e.g. Adam's moments


TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
SampleBatch = Callable[[jax.Array], Batch]  # a task's `key -> Batch`


def init_state(
    key: jax.Array, model: nn.Module, optimizer: optax.GradientTransformation, inputs: jax.Array
) -> TrainState:
    """The state before the first update.

    Args:
      key: [] PRNG key; it is consumed.
      model: a module `inputs [B, T, F] -> (logits [B, T, V], carry)`, as `SequenceModel`.
      optimizer: whose state is to go with the parameters.
      inputs: [B, T, F], of which only shape and type matter.
    """
    params = model.init(key, inputs)["params"]
    return TrainState(jnp.int32(0), params, optimizer.init(params))


@partial(jax.jit, static_argnums=0)
def measure(model: nn.Module, params: Params, batch: Batch) -> Metrics:
    """The model on one batch: its loss [], in nats, logits [B, T, V] and prediction [B, T].

    Compiled once a model and batch shape; inside a larger program it is traced only once.
    """
    logits, _ = cast(tuple[jax.Array, Carry], model.apply({"params": params}, batch.inputs))
    loss = losses.sequence_cross_entropy(logits, batch.targets, batch.weights)
    return {"loss": loss, "logits": logits, "prediction": logits.argmax(-1)}


def make_train_step(model: nn.Module, optimizer: optax.GradientTransformation) -> TrainStep:
    """A pure `train_step(state, batch) -> (state, metrics)`, not yet compiled.

    The metrics are those of `measure`, taken before the update.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        def loss_and_metrics(params: Params) -> tuple[jax.Array, Metrics]:
            metrics = measure(model, params, batch)
            return metrics["loss"], metrics

        gradients, metrics = jax.grad(loss_and_metrics, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state), metrics

    return train_step


def train_steps(
    state: TrainState,
    data_key: jax.Array,
    train_step: TrainStep,
    sample_batch: SampleBatch,
    steps: int,
) -> tuple[TrainState, Metrics]:
    """Go on training for `steps` updates, as one `lax.scan`.

    The batch of step n is drawn inside the program, from a key folded from n: a loop broken off
    and gone on with sees the batches it would have seen.

    Args:
      state: where to go on from.
      data_key: [] PRNG key of the run's data.
      train_step: from `make_train_step`.
      sample_batch: a task's `key -> Batch`.
      steps: N, 1 or more.

    Returns:
      the state after N more updates, and the metrics of each step, stacked: [N, ...]. Under `jit`
      what the caller drops of them is neither computed nor kept.
    """

    def step(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
        return train_step(state, sample_batch(jax.random.fold_in(data_key, state.step)))

    return jax.lax.scan(step, state, length=steps)


def fit(
    key: jax.Array,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    sample_batch: SampleBatch,
    steps: int,
) -> tuple[TrainState, Metrics]:
    """Initialise and train: a pure function of a key, to be put under `jit`, or `jit` and `vmap`.

    Args:
      key: [] PRNG key of the run, from `keys.root_key`.
      model: a module `inputs [B, T, F] -> (logits [B, T, V], carry)`, as `SequenceModel`.
      optimizer: an optax transformation, such as `optax.adam(0.1)`.
      sample_batch: a task's `key -> Batch`.
      steps: N, 1 or more.

    Returns:
      as `train_steps`.
    """
    data_key = child_key(key, "data")
    shape = jax.eval_shape(sample_batch, data_key).inputs
    inputs = jnp.zeros(shape.shape, shape.dtype)
    state = init_state(child_key(key, "init"), model, optimizer, inputs)
    return train_steps(state, data_key, make_train_step(model, optimizer), sample_batch, steps)
