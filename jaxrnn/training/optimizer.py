"""Learning-rate schedules and optimizers, built from a `TrainConfig`."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import optax

from jaxrnn.errors import SettingError

if TYPE_CHECKING:
    from jaxrnn.training.config import TrainConfig

OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
}
"""Optimizers that `TrainConfig.optimizer` can name."""


def make_schedule(train: "TrainConfig") -> optax.Schedule | float:
    """Return the learning rate: a function of the step, or a number if it is constant."""
    decay_steps = train.steps - train.warmup_steps
    after = {
        "constant": optax.constant_schedule(train.learning_rate),
        "linear": optax.linear_schedule(train.learning_rate, 0.0, decay_steps),
        "cosine": optax.cosine_decay_schedule(train.learning_rate, decay_steps),
    }[train.schedule]
    if train.warmup_steps:
        warmup = optax.linear_schedule(0.0, train.learning_rate, train.warmup_steps)
        return optax.join_schedules([warmup, after], [train.warmup_steps])
    return train.learning_rate if train.schedule == "constant" else after


def make_optimizer(train: "TrainConfig") -> optax.GradientTransformation:
    """Return the optimizer with its schedule, after gradient clipping.

    Raises:
      SettingError: if `train.optimizer` returns something else than an optax optimizer.
      TypeError: if `train.optimizer_kwargs` do not fit it.
    """
    factory = train.optimizer
    if isinstance(factory, str):
        factory = OPTIMIZERS[factory]
    optimizer = factory(make_schedule(train), **train.optimizer_kwargs)
    if not isinstance(optimizer, optax.GradientTransformation):
        raise SettingError(
            "optimizer must be a function of the learning rate that returns an"
            f" optax.GradientTransformation, but it returned a {type(optimizer).__name__}"
        )
    if train.clip_norm is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(train.clip_norm), optimizer)
    return optax.flatten(optimizer) if train.flatten else optimizer
