"""What decides a run's numbers, in one place."""

from dataclasses import dataclass
from typing import Any, cast

import jax
import numpy as np
from flax import linen as nn

from jaxrnn.checks import check_counts
from jaxrnn.errors import SettingError
from jaxrnn.keys import MAX_SEED, root_key
from jaxrnn.tasks.task import Task
from jaxrnn.train import Train, TrainState
from jaxrnn.types import Batch, Data
from jaxrnn.validation import is_over


@dataclass(frozen=True)
class Study:
    """What is trained, on what, how, and from which seeds: all that decides a run's numbers.

    Attributes:
      task: draws the batches.
      model: a module with the call of `SequenceModel`, whose variables are all parameters.
      train: the settings.
      seed: the first seed.
      seeds: S; the others are seed+1, seed+2, ...
      group: how many seeds are trained side by side (`vmap`); the groups take turns (`map`). It
        is part of the batch shape, and so decides the last bits. None leaves it open: a run
        measures what is fastest (`grouping`), a program by itself takes all at once.

    Raises:
      SettingError: if a number is out of range.
    """

    task: Task
    model: nn.Module
    train: Train
    seed: int = 0
    seeds: int = 1
    group: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, "seeds")
        if self.group is None and self.seeds == 1:  # there is nothing to choose
            object.__setattr__(self, "group", 1)
        if not 0 <= self.seed <= MAX_SEED - self.seeds + 1:
            raise SettingError(f"seed must be from 0, and no seed above {MAX_SEED}")
        if self.group is not None:
            check_counts(self, "group")
            if self.group > self.seeds:
                raise SettingError(f"group must be at most seeds, {self.seeds}")

    @property
    def seed_numbers(self) -> np.ndarray:
        """[S] uint32."""
        return np.arange(self.seed, self.seed + self.seeds, dtype=np.uint32)

    @property
    def validates(self) -> bool:
        """Whether something is held out."""
        return self.task.validation_batches(self.task.data()) > 0

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

        def sample(seed: jax.Array, step: jax.Array, data: Data) -> Batch:
            return self.task.sample_batch(root_key(seed), step, data)

        data = self.task.data()
        return jax.eval_shape(sample, np.uint32(0), np.int32(0), data)  # nothing is compiled for it
