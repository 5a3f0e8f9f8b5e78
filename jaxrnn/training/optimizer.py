"""Learning-rate schedules and optimizers, built from a `TrainConfig`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from jaxrnn.errors import SettingError

if TYPE_CHECKING:
    from jaxrnn.training.config import TrainConfig


def adam_tf1(
    learning_rate: optax.ScalarOrSchedule, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Adam as in TensorFlow 1 and Keras: epsilon is added to the uncorrected root.

        update = -learning_rate * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)

    Kingma and Ba (2015) call it "epsilon hat", at the end of section 2; `optax.adam` follows their
    Algorithm 1, which adds epsilon to the corrected root.

    >>> import jax.numpy as jnp
    >>> optimizer = adam_tf1(0.1)
    >>> updates, _ = optimizer.update(jnp.ones(1), optimizer.init(jnp.ones(1)))
    >>> round(float(updates[0]), 4)
    -0.1
    """

    def init(params: optax.Params) -> optax.ScaleByAdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.ScaleByAdamState(jnp.int32(0), zeros, zeros)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.ScaleByAdamState]:
        del params
        step = state.count + 1
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment(updates, state.nu, b2, 2)
        correction = jnp.sqrt(1 - b2**step) / (1 - b1**step)
        updates = jax.tree.map(
            lambda m, v: (correction * m / (jnp.sqrt(v) + eps)).astype(m.dtype), mu, nu
        )
        return updates, optax.ScaleByAdamState(step, mu, nu)

    scale = optax.GradientTransformation(init, update)
    return optax.chain(scale, optax.scale_by_learning_rate(learning_rate))


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": optax.adam,
    "adam-tf1": adam_tf1,
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
