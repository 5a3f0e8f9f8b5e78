"""One seed's run or a thousand, as one compiled program: pure, no disk, no clock.

The program is called again and again, a stretch of steps each time, and compiled once: where a
stretch starts and stops are numbers it is given, and the first stretch makes the parameters.
How a run is cut into stretches changes no bit of it.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxrnn.checks import check_counts
from jaxrnn.errors import SettingError
from jaxrnn.keys import MAX_SEED, child_key, root_key
from jaxrnn.tasks.task import Task
from jaxrnn.train import Train, TrainState, init_state, make_optimizer, make_train_step
from jaxrnn.types import Batch, Metrics


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

    def logged(self, steps: np.ndarray) -> np.ndarray:
        """Which of some steps, [R] int, get a line of metrics: one in `log_every`, and the last."""
        return steps[(steps % self.train.log_every == 0) | (steps == self.train.steps)]

    @property
    def batch_shape(self) -> Batch:
        """The shapes and types of one batch."""

        def sample(seed: jax.Array, step: jax.Array) -> Batch:
            return self.task.sample_batch(root_key(seed), step)

        return jax.eval_shape(sample, np.uint32(0), np.int32(0))  # nothing is compiled for it


class Program(NamedTuple):
    """A study's program, not yet compiled, and what its first call is given."""

    stretch: Callable[[TrainState, Any, Any, Any], tuple[TrainState, Metrics]]
    blank: TrainState  # zeros, each leaf [S, ...]
    metrics: dict[str, jax.ShapeDtypeStruct]  # by name, of one seed and step


def make_program(study: Study) -> Program:
    """The program of a study: `stretch(states, seeds, start, stop) -> (states, metrics)`.

    It takes the steps from `start` to before `stop`, a chunk of them at most: `train.chunk`. Step n
    draws its batch from a key folded from n, so a run broken off and gone on with sees the batches
    it would have seen. Step N, one past the last update, only looks. A seed whose loss or gradient
    is not finite is frozen there: its parameters and its `step` stay as they were.

    Its arguments and results, S = `study.seeds`:
      states: each leaf [S, ...]; before step 0 of the shapes alone, as `blank`.
      seeds: [S] uint32.
      start: [] int32.
      stop: [] int32.
      metrics: by name, [S, chunk, ...], of which the first stop - start are of these steps.
    """
    task, steps, side = study.task, study.train.steps, study.group or study.seeds
    chunk = min(study.train.chunk, steps + 1)
    optimizer = make_optimizer(study.train)
    train_step = make_train_step(task, study.model, optimizer)
    batch_shape = study.batch_shape

    @jax.jit  # so that the shapes and the program share one trace
    def init(seed: jax.Array) -> TrainState:
        key = child_key(root_key(seed), "init")
        return init_state(key, task, study.model, optimizer, batch_shape)

    shapes = jax.eval_shape(init, study.seed_numbers[0])
    blank = jax.tree.map(lambda leaf: np.zeros((study.seeds, *leaf.shape), leaf.dtype), shapes)

    @jax.jit  # likewise
    def step(state: TrainState, seed: jax.Array, n: jax.Array) -> tuple[TrainState, Metrics]:
        data, dropout = (
            jax.random.fold_in(child_key(root_key(seed), stream), n)
            for stream in ("data", "dropout")
        )
        new, metrics = train_step(state, task.sample_batch(data, n), dropout)
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
        goes_on = finite & (state.step == n) & (n < steps)
        return jax.tree.map(partial(jnp.where, goes_on), new, state), metrics

    _, measured = jax.eval_shape(step, shapes, study.seed_numbers[0], np.int32(0))
    side_by_side = jax.vmap if side > 1 else _alone

    def of_group(group: tuple[TrainState, jax.Array], start: jax.Array, stop: jax.Array):
        states, seeds = group
        states = jax.lax.cond(start == 0, lambda: side_by_side(init)(seeds), lambda: states)

        def take(states: TrainState, n: jax.Array) -> tuple[TrainState, Metrics]:
            return side_by_side(lambda state, seed: step(state, seed, n))(states, seeds)

        _, shapes = jax.eval_shape(take, states, start)
        nothing = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)

        def one(states: TrainState, n: jax.Array) -> tuple[TrainState, Metrics]:
            return jax.lax.cond(n < stop, take, lambda states, _: (states, nothing), states, n)

        states, metrics = jax.lax.scan(one, states, start + jnp.arange(chunk, dtype=jnp.int32))
        return states, jax.tree.map(lambda values: jnp.moveaxis(values, 0, 1), metrics)

    def stretch(states: TrainState, seeds: jax.Array, start: jax.Array, stop: jax.Array):
        if side == study.seeds:
            return of_group((states, seeds), start, stop)
        groups = -(-study.seeds // side)

        def cut(values: jax.Array) -> jax.Array:  # [S, ...] -> [groups, group, ...], the last
            spare = groups * side - study.seeds  # one filled up with its last seed
            values = jnp.concatenate([values, jnp.repeat(values[-1:], spare, axis=0)])
            return values.reshape(groups, side, *values.shape[1:])

        def join(values: jax.Array) -> jax.Array:
            return values.reshape(-1, *values.shape[2:])[: study.seeds]

        results = jax.lax.map(
            lambda group: of_group(group, start, stop), jax.tree.map(cut, (states, seeds))
        )
        return jax.tree.map(join, results)

    return Program(stretch, blank, measured)


def compile_program(
    study: Study, program: Program, meanwhile: Callable[[], object] = lambda: None
) -> Any:
    """The program, compiled. It reuses its states' memory: do not use them after a call.

    `meanwhile` is called in another thread while XLA compiles, which leaves Python free.
    """
    stretch = jax.jit(program.stretch, donate_argnums=0)
    zero = np.int32(0)
    lowered = stretch.lower(program.blank, study.seed_numbers, zero, zero)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(meanwhile)
        compiled = lowered.compile()
        done.result()
    return compiled


def _alone(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `vmap`, for an axis of size 1, without batching anything."""

    def of_one(*args: Any) -> Any:
        result = function(*jax.tree.map(lambda leaf: leaf[0], args))
        return jax.tree.map(lambda leaf: leaf[None], result)

    return of_one
