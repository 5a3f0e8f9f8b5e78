"""One seed's run or a thousand, as one compiled program: pure, no disk, no clock.

The program is called again and again, a stretch of steps each time, and compiled once: where a
stretch starts and stops are numbers it is given, and the first stretch makes the parameters.
How a run is cut into stretches changes no bit of it.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.errors import SettingError
from jaxrnn.keys import child_key, root_key
from jaxrnn.study import Study
from jaxrnn.surroundings import machine
from jaxrnn.train import TrainState, init_state, make_optimizer, make_train_step
from jaxrnn.types import Data, Metrics
from jaxrnn.validation import look, make_validate, nothing_yet


class Program(NamedTuple):
    """A study's program, not yet compiled, and what its first call is given."""

    stretch: Callable[[TrainState, Any, Any, Any, Data], tuple[TrainState, Metrics]]
    blank: TrainState  # zeros, each leaf [S, ...]
    metrics: dict[str, jax.ShapeDtypeStruct]  # by name, of one seed and step


def make_program(study: Study) -> Program:
    """The program of a study: `stretch(states, seeds, start, stop, data) -> (states, metrics)`.

    It takes the steps from `start` to before `stop`, a chunk of them at most: `train.chunk`. Step n
    draws its batch from a key folded from n, so a run broken off and gone on with sees the batches
    it would have seen. Step N, one past the last update, only looks. A seed whose loss or gradient
    is not finite is frozen there: its parameters and its `step` stay as they were. So is one that
    stops early.

    Its arguments and results, S any number of whole groups:
      states: each leaf [S, ...]; before step 0 of the shapes alone, as `blank`.
      seeds: [S] uint32.
      start: [] int32.
      stop: [] int32.
      data: the task's.
      metrics: by name, [S, chunk, ...], of which the first stop - start are of these steps.

    Raises:
      SettingError: if it is to stop early, but the task holds nothing out.
    """
    task, steps, side = study.task, study.train.steps, study.group or study.seeds
    chunk = min(study.train.chunk, steps + 1)
    optimizer = make_optimizer(study.train)
    train_step = make_train_step(task, study.model, optimizer)
    batch_shape, data_shape = study.batch_shape, jax.eval_shape(lambda data: data, task.data())
    validate = make_validate(task, study.model) if study.validates else None
    if study.train.patience and not validate:
        raise SettingError("patience needs a task that holds something out to validate")

    @jax.jit  # so that the shapes and the program share one trace
    def init(seed: jax.Array) -> TrainState:
        key = child_key(root_key(seed), "init")
        state = init_state(key, task, study.model, optimizer, batch_shape)
        return state._replace(best=nothing_yet(state.params)) if validate else state

    shapes = jax.eval_shape(init, study.seed_numbers[0])
    blank = jax.tree.map(lambda leaf: np.zeros((study.seeds, *leaf.shape), leaf.dtype), shapes)

    @jax.jit  # likewise
    def step(
        state: TrainState, seed: jax.Array, n: jax.Array, data: Data
    ) -> tuple[TrainState, Metrics]:
        draw, dropout = (
            jax.random.fold_in(child_key(root_key(seed), stream), n)
            for stream in ("data", "dropout")
        )
        held_out: Metrics = {}
        if validate and state.best:
            due, counts = study.is_validated(n), state.step == n
            best, held_out = look(validate, state.best, state.params, data, n, due, counts)
            state = state._replace(best=best)
        new, metrics = train_step(state, task.sample_batch(draw, n, data), dropout)
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
        goes_on = finite & (state.step == n) & (n < steps)
        goes_on &= jnp.logical_not(study.stopped(state))
        state = jax.tree.map(partial(jnp.where, goes_on), new, state)
        return state, metrics | held_out

    _, measured = jax.eval_shape(step, shapes, study.seed_numbers[0], np.int32(0), data_shape)
    side_by_side = jax.vmap if side > 1 else _alone

    def of_group(
        group: tuple[TrainState, jax.Array], start: jax.Array, stop: jax.Array, data: Data
    ) -> tuple[TrainState, Metrics]:
        states, seeds = group
        states = jax.lax.cond(start == 0, lambda: side_by_side(init)(seeds), lambda: states)

        def take(states: TrainState, n: jax.Array) -> tuple[TrainState, Metrics]:
            return side_by_side(lambda state, seed: step(state, seed, n, data))(states, seeds)

        def one(n: jax.Array, so_far: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
            states, metrics = so_far
            states, now = take(states, n)
            return states, jax.tree.map(
                lambda row, new: row.at[:, n - start].set(new), metrics, now
            )

        # A scan of all the chunk would also walk through the steps that are not taken.
        _, now = jax.eval_shape(take, states, start)
        metrics = jax.tree.map(
            lambda new: jnp.zeros((new.shape[0], chunk, *new.shape[1:]), new.dtype), now
        )
        return jax.lax.fori_loop(start, jnp.minimum(stop, start + chunk), one, (states, metrics))

    def stretch(
        states: TrainState, seeds: jax.Array, start: jax.Array, stop: jax.Array, data: Data
    ) -> tuple[TrainState, Metrics]:
        if len(seeds) == side:
            return of_group((states, seeds), start, stop, data)

        def cut(values: jax.Array) -> jax.Array:  # [S, ...] -> [groups, group, ...]
            return values.reshape(-1, side, *values.shape[1:])

        results = jax.lax.map(
            lambda group: of_group(group, start, stop, data), jax.tree.map(cut, (states, seeds))
        )
        return jax.tree.map(lambda values: values.reshape(-1, *values.shape[2:]), results)

    return Program(stretch, blank, measured)


class Compiled(NamedTuple):
    """A study's program, compiled. It reuses its states' memory: do not use them after a call.

    Groups take turns in as many lanes as there are processors, each lane a call of its own in a
    thread of its own: one small network keeps one processor busy, not two. A network's bits depend
    on the size of its group alone. With several lanes, or where groups do not fill up, the states
    go by way of the host.
    """

    executable: Any  # of one lane's seeds
    data: Data  # on the device
    lanes: int
    seeds: int  # of a lane: whole groups
    at_once: int  # lanes; fewer than all where memory does not hold more

    def __call__(
        self, states: TrainState, seeds: np.ndarray, start: int, stop: int
    ) -> tuple[TrainState, Metrics]:
        """Take the steps from `start` to before `stop`; as `make_program` says."""
        steps = np.int32(start), np.int32(stop), self.data
        if self.lanes == 1 and self.seeds == len(seeds):
            return self.executable(states, seeds, *steps)
        cut = jax.tree.map(partial(_cut, lanes=self.lanes, each=self.seeds), (states, seeds))

        def take(lane: int) -> tuple[TrainState, Metrics]:
            own = jax.tree.map(lambda values: values[lane], cut)
            return jax.device_get(self.executable(*own, *steps))

        with ThreadPoolExecutor(self.at_once) as pool:
            results = list(pool.map(take, range(self.lanes)))
        return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(seeds)], *results)


def compile_program(
    study: Study, program: Program, meanwhile: Callable[[], object] = lambda: None
) -> Compiled:
    """The program, compiled, with the task's data put on the device.

    `meanwhile` is called in another thread while XLA compiles, which leaves Python free.
    """
    side = study.group or study.seeds
    groups = -(-study.seeds // side)
    turns = -(-groups // min(groups, _most_lanes()))  # of each lane
    lanes = -(-groups // turns)
    cut = partial(_cut, lanes=lanes, each=turns * side)
    first = jax.tree.map(lambda values: cut(values)[0], (program.blank, study.seed_numbers))
    stretch = jax.jit(program.stretch, donate_argnums=0)
    zero, data = np.int32(0), jax.tree.map(jnp.asarray, study.task.data())
    lowered = stretch.lower(*first, zero, zero, data)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(meanwhile)
        executable = lowered.compile()
        done.result()
    return Compiled(executable, data, lanes, turns * side, at_once=lanes)


def _most_lanes() -> int:
    """Processors that can compute groups at the same time; another device is one."""
    return (machine.usable_cpus() or 1) if jax.default_backend() == "cpu" else 1


def _cut(values: Any, lanes: int, each: int) -> np.ndarray:
    """[S, ...] -> [lanes, each, ...], what is missing filled up with the last seed."""
    values = np.asarray(values)
    spare = np.repeat(values[-1:], lanes * each - len(values), axis=0)
    return np.concatenate([values, spare]).reshape(lanes, each, *values.shape[1:])


def _alone(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `vmap`, for an axis of size 1, without batching anything."""

    def of_one(*args: Any) -> Any:
        result = function(*jax.tree.map(lambda leaf: leaf[0], args))
        return jax.tree.map(lambda leaf: leaf[None], result)

    return of_one
