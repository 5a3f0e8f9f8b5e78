"""The settings that determine every number of a run."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from jaxrnn.checks import check_counts
from jaxrnn.choices import check_choice, suggest
from jaxrnn.errors import SettingError
from jaxrnn.rng import MAX_SEED, root_key
from jaxrnn.tasks.base import Task
from jaxrnn.training.mesh import MeshShape
from jaxrnn.training.optimizer import OPTIMIZERS, make_optimizer
from jaxrnn.training.step import TrainState
from jaxrnn.training.validation import is_patience_exhausted
from jaxrnn.types import Arrays, Batch

SCHEDULES = ("constant", "linear", "cosine")


@dataclass(frozen=True)
class TrainConfig:
    """How to train, and how often to log, validate and save.

    Attributes:
      steps: N, the number of updates.
      learning_rate: the peak learning rate.
      optimizer: a name in `OPTIMIZERS`, or any function `(learning_rate, **optimizer_kwargs) ->
        optax.GradientTransformation` that can be imported by name, such as `optax.lion`.
      optimizer_kwargs: more arguments for the optimizer, such as `{"b2": 0.99}`.
      schedule: the learning rate after the warm-up: constant, or decaying to 0 at step N along a
        line or half a cosine.
      warmup_steps: steps in which the learning rate rises linearly from 0.
      clip_norm: clip the gradient to this global norm (Pascanu, Mikolov and Bengio 2013, section
        3.2); None for no clipping.
      flatten: let the optimizer update one flat vector instead of many small arrays; faster for
        small networks.
      log_every: steps between lines of metrics; the first and the last step always have one.
      validate_every: steps between validations, if the task has a validation set; None validates
        after the last update only. The last step always validates, and has a line of metrics.
      patience: stop early after this many validations without a new best; None never stops.
      stop_when_solved: stop each seed at the first step whose metrics, measured before the update,
        satisfy `Task.solved`. The run ends when no seed is left; the last step then has a line.
      steps_per_call: the most steps one call of the compiled program takes.
      checkpoint_seconds: seconds between checkpoints; 0 saves after every call.

    Raises:
      SettingError: if a setting is out of range.

    >>> from jaxrnn import TrainConfig
    >>> import optax
    >>> TrainConfig(1000, 3e-3, schedule="cosine", warmup_steps=100).clip_norm
    1.0
    >>> TrainConfig(1000, 1e-4, optimizer=optax.lion).optimizer.__name__
    'lion'
    """

    steps: int
    learning_rate: float = 1e-3
    optimizer: str | Callable[..., optax.GradientTransformation] = "adam"
    optimizer_kwargs: Mapping[str, Any] = field(default_factory=dict)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = 0
    clip_norm: float | None = 1.0
    flatten: bool = False
    log_every: int = 1
    validate_every: int | None = None
    patience: int | None = None
    stop_when_solved: bool = False
    steps_per_call: int = 1000
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Check every setting."""
        check_counts(self, "steps", "log_every", "steps_per_call")
        optional = ("validate_every", "patience")
        check_counts(self, *(name for name in optional if getattr(self, name) is not None))
        if self.patience and not self.validate_every:
            raise SettingError("patience counts validations: it needs validate_every")
        float32 = jnp.finfo(jnp.float32)
        low, high = float(float32.tiny), float(float32.max)
        if not isinstance(self.learning_rate, int | float) or not low <= self.learning_rate <= high:
            raise SettingError(
                "learning rate must be a positive finite number (in single precision:"
                f" {low:.3g} to {high:.3g})"
            )
        if not callable(self.optimizer) and self.optimizer not in OPTIMIZERS:
            raise SettingError(
                f"optimizer must be one of {', '.join(OPTIMIZERS)} or a function that returns an"
                f" optax.GradientTransformation, not {self.optimizer!r}"
                f"{suggest(self.optimizer, OPTIMIZERS)}"
            )
        check_choice("schedule", self.schedule, SCHEDULES)
        if not isinstance(self.warmup_steps, int) or not 0 <= self.warmup_steps < self.steps:
            raise SettingError("warmup steps must be a whole number from 0 to less than steps")
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise SettingError(
                "clip norm must be a positive finite number, or None for no clipping"
            )
        if not self.checkpoint_seconds >= 0:
            raise SettingError("checkpoint seconds must be 0 or more")
        try:
            make_optimizer(self)
        except TypeError as error:
            name = getattr(self.optimizer, "__name__", self.optimizer)
            raise SettingError(f"optimizer_kwargs do not fit {name}: {error}") from None


@dataclass(frozen=True)
class InitFrom:
    """Another run, whose networks a run starts from.

    Attributes:
      run_dir: its directory, stored as an absolute path.
      final: start from its final parameters, not those with the lowest validation loss.

    >>> from jaxrnn import InitFrom
    >>> InitFrom(Path("runs/char_lm/0001"), final=True).run_dir.name
    '0001'
    """

    run_dir: Path
    final: bool = False

    def __post_init__(self) -> None:
        """Make the path absolute."""
        object.__setattr__(self, "run_dir", Path(self.run_dir).absolute())


@dataclass(frozen=True)
class TF1Weights:
    """A .npz file of TensorFlow 1's initial weights, from which every network of a run starts.

    `jaxrnn.runs.tf1_weights` says which arrays it has.

    Attributes:
      file: the file, stored as an absolute path.

    >>> from jaxrnn import TF1Weights
    >>> TF1Weights(Path("lab.npz")).file.name
    'lab.npz'
    """

    file: Path

    def __post_init__(self) -> None:
        """Make the path absolute."""
        object.__setattr__(self, "file", Path(self.file).absolute())


@dataclass(frozen=True)
class ExperimentConfig:
    """What to train, on what, how, and from which seeds: everything a run's numbers depend on.

    Attributes:
      task: samples the batches.
      model: called as `SequenceModel` is; all its variables are parameters.
      train: how to train.
      seed: the first seed.
      seeds: S; the others are seed + 1, seed + 2, ...
      vmap_size: how many seeds are trained in one `vmap`; groups of this size take turns
        (`lax.map`). It is part of the batch shape, so the last bits depend on it. None: `run`
        measures which size is fastest on this machine, and a bare `TrainLoop` takes all at once.
      init_from: a run whose networks to start from: each seed from the same seed of that run, or
        from its only one. Or a file of weights. None for freshly drawn parameters.
      mesh: the devices to use. None: `run` chooses them, and a bare `TrainLoop` uses one.
      options: the script's options that made the experiment, kept in config.json for `--config`;
        they say nothing that the rest does not, and do not count in comparisons.

    Raises:
      SettingError: if a setting is out of range or of the wrong type.

    >>> from jaxrnn import Adding, ExperimentConfig, GRUCell, Recurrent, SequenceModel, TrainConfig
    >>> model = SequenceModel(Recurrent(GRUCell(32)), output_size=1)
    >>> config = ExperimentConfig(Adding(50), model, TrainConfig(steps=200), seeds=3)
    >>> config.seed_numbers.tolist()
    [0, 1, 2]
    """

    task: Task
    model: nn.Module
    train: TrainConfig
    seed: int = 0
    seeds: int = 1
    vmap_size: int | None = None
    init_from: InitFrom | TF1Weights | None = None
    mesh: MeshShape | None = None
    options: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check every setting; a single seed is trained alone."""
        for name, kind in (("task", Task), ("model", nn.Module), ("train", TrainConfig)):
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise SettingError(f"{name} must be a {kind.__name__}, not {value!r}")
        check_counts(self, "seeds")
        if self.vmap_size is None and self.seeds == 1:
            object.__setattr__(self, "vmap_size", 1)
        if not 0 <= self.seed <= MAX_SEED - self.seeds + 1:
            raise SettingError(f"seed must be at least 0, and no seed above {MAX_SEED}")
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
        """Whether the task has a validation set."""
        return self.task.num_validation_batches(self.task.arrays()) > 0

    def is_validated(self, steps: Any) -> Any:
        """Return the mask of the steps, int, that run validation."""
        every = self.train.validate_every or self.train.steps
        return (steps % every == 0) | (steps == self.train.steps)

    def logged(self, steps: np.ndarray, last: int | None = None) -> np.ndarray:
        """Return those of the steps, [R] int, that are logged: see `TrainConfig.log_every`.

        Args:
          steps: [R] int.
          last: the last step, if the run ended with a success before step N.
        """
        due = (steps % self.train.log_every == 0) | (steps == self.train.steps)
        due |= False if last is None else steps == last
        return steps[due | self.is_validated(steps)] if self.validates else steps[due]

    def has_stopped(self, state: TrainState) -> Any:
        """Return whether each network has stopped early: bool, of the shape of `state.step`."""
        if state.best is None or self.train.patience is None:
            return np.False_
        validate_every = cast(int, self.train.validate_every)
        return is_patience_exhausted(state.best, self.train.patience * validate_every)

    @property
    def batch_shape(self) -> Batch:
        """The shapes and dtypes of one batch; nothing is compiled for it."""

        def sample(seed: jax.Array, step: jax.Array, arrays: Arrays) -> Batch:
            return self.task.sample_batch(root_key(seed), step, arrays)

        return jax.eval_shape(sample, np.uint32(0), np.int32(0), self.task.arrays())
