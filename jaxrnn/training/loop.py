"""One seed's run or a thousand, as one compiled program: pure, no disk, no clock.

The program is called again and again, a stretch of steps each time, and compiled once: where a
stretch starts and stops are numbers it is given, and the first stretch makes the parameters.
How a run is cut into stretches changes no bit of it.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.errors import SettingError
from jaxrnn.rng import child_key, root_key
from jaxrnn.runs import machine
from jaxrnn.runs.progress import Progress
from jaxrnn.training.config import ExperimentConfig, make_optimizer
from jaxrnn.training.history import History, join, last_loss, mask_diverged
from jaxrnn.training.step import TrainState, init_state, make_train_step
from jaxrnn.training.validation import init_best, make_validate, validate_and_track_best
from jaxrnn.types import Arrays, Metrics


class Program(NamedTuple):
    """A study's program, not yet compiled, and what its first call is given."""

    stretch: Callable[[TrainState, Any, Any, Any, Arrays], tuple[TrainState, Metrics]]
    blank: TrainState  # zeros, each leaf [S, ...]
    metrics: dict[str, jax.ShapeDtypeStruct]  # by name, of one seed and step


def make_program(study: ExperimentConfig) -> Program:
    """The program of a study: `stretch(states, seeds, start, stop, data) -> (states, metrics)`.

    It takes the steps from `start` to before `stop`, a chunk of them at most: `train.steps_per_call`. Step n
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
    task, steps, side = study.task, study.train.steps, study.vmap_size or study.seeds
    chunk = min(study.train.steps_per_call, steps + 1)
    optimizer = make_optimizer(study.train)
    train_step = make_train_step(task, study.model, optimizer)
    batch_shape, data_shape = (
        study.batch_shape,
        jax.eval_shape(lambda arrays: arrays, task.arrays()),
    )
    validate = make_validate(task, study.model) if study.validates else None
    if study.train.patience and not validate:
        raise SettingError("patience needs a task that holds something out to validate")

    @jax.jit  # so that the shapes and the program share one trace
    def init(seed: jax.Array) -> TrainState:
        key = child_key(root_key(seed), "init")
        state = init_state(key, task, study.model, optimizer, batch_shape)
        return state._replace(best=init_best(state.params)) if validate else state

    shapes = jax.eval_shape(init, study.seed_numbers[0])
    blank = jax.tree.map(lambda leaf: np.zeros((study.seeds, *leaf.shape), leaf.dtype), shapes)

    @jax.jit  # likewise
    def step(
        state: TrainState, seed: jax.Array, n: jax.Array, arrays: Arrays
    ) -> tuple[TrainState, Metrics]:
        draw, dropout = (
            jax.random.fold_in(child_key(root_key(seed), stream), n)
            for stream in ("data", "dropout")
        )
        held_out: Metrics = {}
        if validate and state.best:
            due, counts = study.is_validated(n), state.step == n
            best, held_out = validate_and_track_best(
                validate, state.best, state.params, arrays, n, due, counts
            )
            state = state._replace(best=best)
        new, metrics = train_step(state, task.sample_batch(draw, n, arrays), dropout)
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
        goes_on = finite & (state.step == n) & (n < steps)
        goes_on &= jnp.logical_not(study.stopped(state))
        state = jax.tree.map(partial(jnp.where, goes_on), new, state)
        return state, metrics | held_out

    _, measured = jax.eval_shape(step, shapes, study.seed_numbers[0], np.int32(0), data_shape)
    side_by_side = jax.vmap if side > 1 else _alone

    def of_group(
        vmap_size: tuple[TrainState, jax.Array], start: jax.Array, stop: jax.Array, arrays: Arrays
    ) -> tuple[TrainState, Metrics]:
        states, seeds = vmap_size
        states = jax.lax.cond(start == 0, lambda: side_by_side(init)(seeds), lambda: states)

        def take(states: TrainState, n: jax.Array) -> tuple[TrainState, Metrics]:
            return side_by_side(lambda state, seed: step(state, seed, n, arrays))(states, seeds)

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
        states: TrainState, seeds: jax.Array, start: jax.Array, stop: jax.Array, arrays: Arrays
    ) -> tuple[TrainState, Metrics]:
        if len(seeds) == side:
            return of_group((states, seeds), start, stop, arrays)

        def cut(values: jax.Array) -> jax.Array:  # [S, ...] -> [groups, group, ...]
            return values.reshape(-1, side, *values.shape[1:])

        results = jax.lax.map(
            lambda vmap_size: of_group(vmap_size, start, stop, arrays),
            jax.tree.map(cut, (states, seeds)),
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
    arrays: Arrays  # on the device
    lanes: int
    seeds: int  # of a lane: whole groups
    at_once: int  # lanes; fewer than all where memory does not hold more

    def __call__(
        self, states: TrainState, seeds: np.ndarray, start: int, stop: int
    ) -> tuple[TrainState, Metrics]:
        """Take the steps from `start` to before `stop`; as `make_program` says."""
        steps = np.int32(start), np.int32(stop), self.arrays
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
    study: ExperimentConfig, program: Program, meanwhile: Callable[[], object] = lambda: None
) -> Compiled:
    """The program, compiled, with the task's data put on the device.

    `meanwhile` is called in another thread while XLA compiles, which leaves Python free.
    """
    side = study.vmap_size or study.seeds
    groups = -(-study.seeds // side)
    turns = -(-groups // min(groups, _most_lanes()))  # of each lane
    lanes = -(-groups // turns)
    cut = partial(_cut, lanes=lanes, each=turns * side)
    first = jax.tree.map(lambda values: cut(values)[0], (program.blank, study.seed_numbers))
    stretch = jax.jit(program.stretch, donate_argnums=0)
    zero, arrays = np.int32(0), jax.tree.map(jnp.asarray, study.task.arrays())
    lowered = stretch.lower(*first, zero, zero, arrays)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(meanwhile)
        executable = lowered.compile()
        done.result()
    return Compiled(executable, arrays, lanes, turns * side, at_once=lanes)


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


SECONDS_A_CALL = 2.0  # how long Ctrl-C waits, and a line of progress stands still


class Stretch(NamedTuple):
    """What one call of the compiled program gave."""

    step: int  # where a run that broke off here goes on
    state: TrainState
    history: History  # of the logged steps
    diverged: dict[int, int]  # so far: by seed, the step whose loss or gradient was not finite
    stopped: dict[int, int]  # so far: by seed, the step at which it stopped early
    ends: bool  # all steps are done, or no seed is left to go on with
    seconds: float


def replay(study: ExperimentConfig, until: int | None = None) -> tuple[TrainState, History]:
    """Train in memory alone, from nothing, to the end or to before the step `until`.

    Returns:
      the state, each leaf [S, ...] a NumPy array, and what was measured.
    """
    program = make_program(study)
    compiled = compile_program(study, program)
    state, histories = program.blank, []
    with Progress(study.train.steps) as progress:
        for stretch in stretches(study, compiled, state, 0, until):
            state = stretch.state
            histories.append(stretch.history)
            progress.update(min(stretch.step, study.train.steps), last_loss(histories))
    return jax.device_get(state), join(histories)


def stretches(
    study: ExperimentConfig, compiled: Any, state: TrainState, step: int, until: int | None = None
) -> Iterator[Stretch]:
    """Call a study's compiled program, some seconds a call, until it is done.

    Args:
      study: what is trained.
      compiled: its program.
      state: from where on; it is donated.
      step: the first step to take.
      until: the step to stop before, if not after the last.

    Yields:
      what each call gave; the first is of one step, to learn how long a step takes.
    """
    last, seeds, pace = study.train.steps, study.seed_numbers, 1
    until = last + 1 if until is None else until
    while step < until:
        began, stop = time.perf_counter(), min(step + pace, until)
        state, values = compiled(state, seeds, step, stop)
        values = jax.device_get(values)
        reached = on_host(state)
        seconds = time.perf_counter() - began
        pace = int(np.clip(SECONDS_A_CALL * (stop - step) / seconds, 1, values["loss"].shape[1]))
        diverged, stopped = seed_status(study, reached, stop, values["loss"][:, stop - step - 1])
        over = len(diverged) + len(stopped) == study.seeds
        updates = np.asarray(reached.step)  # [S]
        shown = updates.max() + 1 if over else stop  # of later steps there is nothing to say
        logged = study.logged(np.arange(step, shown))
        order = ["loss", *sorted(values.keys() - {"loss", "grad_norm"}), "grad_norm"]
        values = {name: values[name][:, logged - step] for name in order}
        history = History(seeds, logged, mask_diverged(values, logged, updates))
        # A step that stopped the last network early is done; one that broke it would be tried anew.
        step = max([*diverged.values(), *(n + 1 for n in stopped.values())]) if over else stop
        yield Stretch(step, state, history, diverged, stopped, over or stop > last, seconds)
        if over:
            return


def on_host(state: TrainState) -> TrainState:
    """What tells how far each network is, as NumPy arrays; nothing is compiled for it."""
    best = None if state.best is None else state.best._replace(params=None)
    return jax.device_get(TrainState(state.step, None, None, None, best))


def seed_status(
    study: ExperimentConfig, state: TrainState, step: int, loss: np.ndarray
) -> tuple[dict[int, int], dict[int, int]]:
    """Which networks broke off before a step, and which stopped early: by seed, the step of it.

    Args:
      study: what is trained.
      state: as `on_host` gives it, when all steps before `step` are done.
      step: the next, at most N+1.
      loss: [S], as it was last measured before that; of step N nothing else tells.
    """
    seeds, updates = study.seed_numbers, np.asarray(state.step)  # [S] each
    short = updates < min(step, study.train.steps)
    early = short & study.stopped(state)
    diverged = (short | ~np.isfinite(loss)) & ~early
    return _by_seed(seeds, updates, diverged), _by_seed(seeds, updates, early)


def _by_seed(seeds: np.ndarray, updates: np.ndarray, which: np.ndarray) -> dict[int, int]:
    """The updates of some seeds, by seed: all [S], `which` of bool."""
    return dict(zip(seeds[which].tolist(), updates[which].tolist(), strict=True))
