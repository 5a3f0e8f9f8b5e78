"""Training: the settings, the state, and one pure step.

Nothing here knows a task by name, prints, or touches a disk.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxrnn.checks import check_counts
from jaxrnn.errors import SettingError
from jaxrnn.tasks.task import Task
from jaxrnn.types import Batch, Carry, Metrics, Params
from jaxrnn.validation import PREFIX, Best, fresh_carry

OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
}

OPTIONAL = ("validate_every", "patience")
"""Settings that are a count or None."""


@dataclass(frozen=True)
class Train:
    """How to train, and how often to look and to save.

    Attributes:
      steps: N, updates.
      learning_rate: at its height.
      optimizer: one of `OPTIMIZERS`.
      options: more arguments of the optimiser, such as `{"b2": 0.99}`.
      schedule: what becomes of the learning rate after the warm-up: it stays, or goes to 0 at
        step N in a line or in half a cosine.
      warmup_steps: steps in which the learning rate rises from 0, in a line.
      clip_norm: the gradient's largest global norm (Pascanu, Mikolov and Bengio 2013, section
        3.2); None for no clipping.
      flatten: update one vector, not many small arrays; quicker for small networks.
      log_every: steps from one line of metrics to the next; the first and last step have one.
      validate_every: steps from one validation to the next, where the task holds something out;
        None for one after the last update only. The last step has one, and a line of metrics.
      patience: stop early after so many validations without a new best; None for never.
      chunk: the most steps of one call of the compiled program.
      checkpoint_seconds: how much work may be lost at most; 0 saves after every call.

    Raises:
      SettingError: if one of them is out of range.
    """

    steps: int
    learning_rate: float = 1e-3
    optimizer: str = "adam"
    options: Mapping[str, float] = field(default_factory=dict)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = 0
    clip_norm: float | None = 1.0
    flatten: bool = False
    log_every: int = 1
    validate_every: int | None = None
    patience: int | None = None
    chunk: int = 1000
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        check_counts(self, "steps", "log_every", "chunk")
        check_counts(self, *(name for name in OPTIONAL if getattr(self, name) is not None))
        if self.patience and not self.validate_every:
            raise SettingError("patience counts validations: it needs validate_every")
        single = jnp.finfo(jnp.float32)
        low, high = float(single.tiny), float(single.max)
        if not isinstance(self.learning_rate, int | float) or not low <= self.learning_rate <= high:
            raise SettingError(
                "learning rate must be a positive finite number (in single precision:"
                f" {low:.3g} to {high:.3g})"
            )
        if self.optimizer not in OPTIMIZERS:
            raise SettingError(
                f"optimizer must be one of {', '.join(OPTIMIZERS)}, not {self.optimizer!r}"
            )
        if self.schedule not in ("constant", "linear", "cosine"):
            raise SettingError(f"schedule must be constant, linear or cosine, not {self.schedule}")
        if not isinstance(self.warmup_steps, int) or not 0 <= self.warmup_steps < self.steps:
            raise SettingError("warmup steps must be a whole number, from 0 to less than steps")
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise SettingError("clip norm must be a positive finite number; None clips nothing")
        if not self.checkpoint_seconds >= 0:
            raise SettingError("checkpoint seconds must be 0 or more")
        try:
            make_optimizer(self)
        except TypeError as error:
            raise SettingError(f"options do not fit {self.optimizer}: {error}") from None


def make_schedule(train: Train) -> optax.Schedule | float:
    """The learning rate: a function of the step's number, or one number."""
    decay_steps = train.steps - train.warmup_steps
    after = {
        "constant": optax.constant_schedule(train.learning_rate),
        "linear": optax.linear_schedule(train.learning_rate, 0.0, decay_steps),
        "cosine": optax.cosine_decay_schedule(train.learning_rate, decay_steps),
    }[train.schedule]
    if train.warmup_steps:
        rise = optax.linear_schedule(0.0, train.learning_rate, train.warmup_steps)
        return optax.join_schedules([rise, after], [train.warmup_steps])
    return train.learning_rate if train.schedule == "constant" else after


def make_optimizer(train: Train) -> optax.GradientTransformation:
    """Clipping, then the optimiser with its schedule."""
    optimizer = OPTIMIZERS[train.optimizer](make_schedule(train), **train.options)
    if train.clip_norm is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(train.clip_norm), optimizer)
    return optax.flatten(optimizer) if train.flatten else optimizer


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
    if task.keeps_carry:
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
        carry = carry if task.keeps_carry else None
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
