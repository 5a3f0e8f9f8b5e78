"""What decides the numbers of a run, in one place."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from jaxrnn.checks import check_counts
from jaxrnn.errors import SettingError
from jaxrnn.rng import MAX_SEED, root_key
from jaxrnn.tasks.base import Task
from jaxrnn.training.step import TrainState
from jaxrnn.training.validation import is_over
from jaxrnn.types import Arrays, Batch

OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
}


OPTIONAL = ("validate_every", "patience")
"""Settings that are a count or None."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train, and how often to look and to save.

    Attributes:
      steps: N, updates.
      learning_rate: at its height.
      optimizer: one of `OPTIMIZERS`.
      optimizer_kwargs: more arguments of the optimiser, such as `{"b2": 0.99}`.
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
      steps_per_call: the most steps of one call of the compiled program.
      checkpoint_seconds: how much work may be lost at most; 0 saves after every call.

    Raises:
      SettingError: if one of them is out of range.
    """

    steps: int
    learning_rate: float = 1e-3
    optimizer: str = "adam"
    optimizer_kwargs: Mapping[str, float] = field(default_factory=dict)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = 0
    clip_norm: float | None = 1.0
    flatten: bool = False
    log_every: int = 1
    validate_every: int | None = None
    patience: int | None = None
    steps_per_call: int = 1000
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        check_counts(self, "steps", "log_every", "steps_per_call")
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
            raise SettingError(f"optimizer_kwargs do not fit {self.optimizer}: {error}") from None


def make_schedule(train: TrainConfig) -> optax.Schedule | float:
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


def make_optimizer(train: TrainConfig) -> optax.GradientTransformation:
    """Clipping, then the optimiser with its schedule."""
    optimizer = OPTIMIZERS[train.optimizer](make_schedule(train), **train.optimizer_kwargs)
    if train.clip_norm is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(train.clip_norm), optimizer)
    return optax.flatten(optimizer) if train.flatten else optimizer


@dataclass(frozen=True)
class ExperimentConfig:
    """What is trained, on what, how, and from which seeds: all that decides a run's numbers.

    Attributes:
      task: draws the batches.
      model: a module with the call of `SequenceModel`, whose variables are all parameters.
      train: the settings.
      seed: the first seed.
      seeds: S; the others are seed+1, seed+2, ...
      vmap_size: how many seeds are trained side by side (`vmap`); the groups take turns (`map`). It
        is part of the batch shape, and so decides the last bits. None leaves it open: a run
        measures what is fastest (`grouping`), a program by itself takes all at once.

    Raises:
      SettingError: if a number is out of range.
    """

    task: Task
    model: nn.Module
    train: TrainConfig
    seed: int = 0
    seeds: int = 1
    vmap_size: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, "seeds")
        if self.vmap_size is None and self.seeds == 1:  # there is nothing to choose
            object.__setattr__(self, "vmap_size", 1)
        if not 0 <= self.seed <= MAX_SEED - self.seeds + 1:
            raise SettingError(f"seed must be from 0, and no seed above {MAX_SEED}")
        if self.vmap_size is not None:
            check_counts(self, "vmap_size")
            if self.vmap_size > self.seeds:
                raise SettingError(f"vmap size must be at most seeds, {self.seeds}")

    @property
    def seed_numbers(self) -> np.ndarray:
        """[S] uint32."""
        return np.arange(self.seed, self.seed + self.seeds, dtype=np.uint32)

    @property
    def validates(self) -> bool:
        """Whether something is held out."""
        return self.task.num_validation_batches(self.task.arrays()) > 0

    def is_validated(self, steps: Any) -> Any:
        """Which of some steps, int, look at what is held out: one in `validate_every`, the last."""
        every = self.train.validate_every or self.train.steps
        return (steps % every == 0) | (steps == self.train.steps)

    def logged(self, steps: np.ndarray) -> np.ndarray:
        """Which of some steps, [R] int, get a line of metrics: one in `log_every`, and the last.

        So do those that look at what is held out.
        """
        due = (steps % self.train.log_every == 0) | (steps == self.train.steps)
        return steps[due | self.is_validated(steps)] if self.validates else steps[due]

    def stopped(self, state: TrainState) -> Any:
        """Which networks have stopped early, bool: as many as the leaves of `state` are of."""
        if state.best is None or self.train.patience is None:
            return np.False_
        return is_over(state.best, self.train.patience * cast(int, self.train.validate_every))

    @property
    def batch_shape(self) -> Batch:
        """The shapes and types of one batch."""

        def sample(seed: jax.Array, step: jax.Array, arrays: Arrays) -> Batch:
            return self.task.sample_batch(root_key(seed), step, arrays)

        arrays = self.task.arrays()
        return jax.eval_shape(
            sample, np.uint32(0), np.int32(0), arrays
        )  # nothing is compiled for it
