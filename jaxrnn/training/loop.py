"""The training loop: all steps of one seed or many as one compiled program, without side effects.

    make_train(config)   a whole run as one pure function of a seed
    TrainLoop(config)    its parts: `init`, `step`, and `run_steps`, the loop over some steps
    compile_loop(loop)   `run_steps` compiled, with the task's arrays on the device
    run_loop(compiled)   an iterator that calls it until training is over

The program is compiled once and called again and again, for a few seconds each time: the steps at
which a call starts and stops are arguments, and the first call also makes the parameters. How a
run is split into calls does not change its bits. Step n draws its batch and its dropout masks from
keys folded from n, so a resumed run sees what it would have seen.
"""

import copy
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrnn.errors import SettingError
from jaxrnn.rng import child_key, root_key
from jaxrnn.tasks.base import Task
from jaxrnn.training import processes
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.history import History, join, mask_diverged
from jaxrnn.training.joint import JointConfig, Networks, networks_of
from jaxrnn.training.mesh import DATA, SEED, put_on_mesh, shard_rows, to_host
from jaxrnn.training.optimizer import make_optimizer
from jaxrnn.training.step import TrainState, TrainStep, init_state, make_train_step
from jaxrnn.training.success import UNSOLVED, is_solved
from jaxrnn.training.validation import (
    Validate,
    init_best,
    make_validate,
    validate_and_track_best,
)
from jaxrnn.types import Arrays, Metrics, Params

SECONDS_PER_CALL = 2.0
"""How long a call of the compiled program should take: Ctrl-C waits for it to return."""

Train = Callable[[Any], tuple[TrainState, Metrics]]


def make_train(config: ExperimentConfig) -> Train:
    """Return a whole run as one pure function, `train(seed) -> (state, metrics)`.

    It takes the same steps as `run`, but touches no disk: jit it, `vmap` it over seeds, or call it
    inside a larger program.

    Args:
      config: what to train; its own seeds and `vmap_size` are not used.

    Returns:
      a function of a seed, [] int, that returns the final `TrainState` and the metrics by name,
      [N+1, ...] each. Row n is measured after n updates; row N measures the trained network.

    Raises:
      SettingError: if the config's parts do not fit each other.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from jaxrnn import Adding, ElmanCell, ExperimentConfig, Recurrent
    >>> from jaxrnn import SequenceModel, TrainConfig, make_train
    >>> model = SequenceModel(Recurrent(ElmanCell(4)), output_size=1)
    >>> config = ExperimentConfig(Adding(5, batch_size=2), model, TrainConfig(steps=10))
    >>> train = make_train(config)
    >>> state, metrics = jax.jit(train)(0)
    >>> int(state.step), metrics["loss"].shape
    (10, (11,))
    >>> states, metrics = jax.jit(jax.vmap(train))(jnp.arange(3))
    >>> metrics["loss"].shape
    (3, 11)
    """
    if config.init_from is not None:
        raise SettingError("make_train reads no files: init_from must be None")
    loop, steps = TrainLoop(config), np.arange(config.train.steps + 1, dtype=np.int32)

    def train(seed: Any) -> tuple[TrainState, Metrics]:
        arrays = config.task.arrays()
        seed = np.uint32(seed) if isinstance(seed, int) else jnp.asarray(seed).astype(jnp.uint32)
        step = lambda state, n: loop.step(state, seed, n, arrays)  # noqa: E731
        return jax.lax.scan(step, loop.init(seed), steps)

    return train


class TrainLoop:
    """The pure functions that an experiment compiles.

    Attributes:
      config: the experiment.
      calls_up_to: the most steps of one call.
      shapes: the shapes and dtypes of one network's state.
      vmap_size: how many seeds are trained in one `vmap`.
      mesh: the devices to use; None for JAX's default device.
      metrics: by name, the shape and dtype of what one step of one seed measures.

    Raises:
      SettingError: if the config's parts do not fit each other.
    """

    def __init__(self, config: ExperimentConfig):
        task, train = config.task, config.train
        self.calls_up_to = min(train.steps_per_call, train.steps + 1)
        self._parts = _Parts.of(config)
        self._set_layout(config)
        if train.patience and not config.validates:
            raise SettingError("patience needs a task with a validation set")
        # Jitted so that the shapes below and the program share one trace.
        self.init = jax.jit(self._init)
        self.step = jax.jit(self._step)

        first = jax.tree.map(lambda leaf: leaf[0], networks_of(config))
        self.shapes: TrainState = jax.eval_shape(self.init, first)
        arrays = jax.eval_shape(lambda arrays: arrays, task.arrays())
        _, self.metrics = jax.eval_shape(self.step, self.shapes, first, np.int32(0), arrays)

    @cached_property
    def blank(self) -> TrainState:
        """Zeros of the states' shapes, each leaf [S, ...]: what the first call is given.

        With `config.init_from`, replace its `params` by those to start from.
        """
        return jax.tree.map(
            lambda leaf: np.zeros((self.config.seeds, *leaf.shape), leaf.dtype), self.shapes
        )

    def _set_layout(self, config: ExperimentConfig) -> None:
        parts = config.mesh.seed if config.mesh else 1
        self.vmap_size = config.vmap_size or -(-config.seeds // parts)
        self.mesh = make_mesh(config, self.vmap_size)
        self.config = config

    def with_layout(self, config: ExperimentConfig) -> "TrainLoop":
        """Return the loop of the same experiment with another `vmap_size` or mesh.

        It shares what has been traced, which takes most of the time that a new loop would.

        Raises:
          SettingError: if the mesh does not fit, or JAX has too few devices.
        """
        other = copy.copy(self)
        other._set_layout(config)
        return other

    def _split(self, network: Networks) -> "tuple[jax.Array, _Parts]":
        """Return the seed of one network, [] uint32, and the parts that it is trained with."""
        if not isinstance(self.config, JointConfig):
            return network, self._parts
        seed, config = self.config.split(network)
        return seed, _Parts.of(config)

    def _init(self, network: Networks, params: Params | None = None) -> TrainState:
        """Return the state of one network, of a seed [] uint32, before its first update."""
        config, (seed, parts) = self.config, self._split(network)
        key = child_key(root_key(seed), "init")
        state = init_state(
            key, config.task, config.model, parts.optimizer, config.batch_shape, params
        )
        if parts.validate:
            state = state._replace(best=init_best(state.params))
        if config.train.stop_when_solved:
            state = state._replace(solved_at=jnp.int32(UNSOLVED))
        return state

    def _step(
        self, state: TrainState, network: Networks, n: jax.Array, arrays: Arrays
    ) -> tuple[TrainState, Metrics]:
        """Take step n of one network.

        Step N, one past the last update, only measures. A seed whose loss or gradient is not
        finite is frozen: its parameters and `step` keep their values. So is one that stops early,
        or has solved its task and stops for that.
        """
        config, (seed, parts) = self.config, self._split(network)
        root = root_key(seed)
        data_key, dropout_key = (
            jax.random.fold_in(child_key(root, stream), n) for stream in ("data", "dropout")
        )
        validation: Metrics = {}
        if parts.validate and state.best:
            due, active = config.is_validated(n), state.step == n
            best, validation = validate_and_track_best(
                parts.validate, state.best, state.params, arrays, n, due, active
            )
            state = state._replace(best=best)
        batch = shard_rows(parts.task.sample_batch(data_key, n, arrays))
        new, metrics = parts.train_step(state, batch, dropout_key)
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
        update = finite & (state.step == n) & (n < config.train.steps)
        update &= jnp.logical_not(config.has_stopped(state))
        solved_at = state.solved_at
        if solved_at is not None:
            solved = is_solved(config.task, metrics | validation) & finite & (state.step == n)
            solved_at = jnp.where(solved, state.step, solved_at)
            update &= jnp.logical_not(solved)
        state = jax.tree.map(partial(jnp.where, update), new, state)
        return state._replace(solved_at=solved_at), metrics | validation

    @property
    def seeds_at_once(self) -> int:
        """How many seeds the devices train at the same time: one group on each part of the mesh."""
        return self.vmap_size * (self.config.mesh.seed if self.config.mesh else 1)

    @property
    def shardings(self) -> TrainState:
        """The shardings of the states on the mesh, [S, ...] over seeds and a carry's rows."""
        mesh = cast(Mesh, self.mesh)
        seeds = None if self.config.seeds % self.seeds_at_once else SEED  # whole, or not at all
        blank = jax.tree.map(lambda _: NamedSharding(mesh, P(seeds)), self.shapes)
        carry = jax.tree.map(lambda _: NamedSharding(mesh, P(seeds, DATA)), self.shapes.carry)
        return blank._replace(carry=carry)

    def run_steps(
        self, states: TrainState, networks: Networks, start: Any, stop: Any, arrays: Arrays
    ) -> tuple[TrainState, Metrics]:
        """Take the steps from `start` to before `stop`, at most `calls_up_to` of them.

        Args:
          states: each leaf [S, ...]. If start is 0 only the shapes matter, and the parameters are
            made here.
          networks: [S] uint32, the seeds; in a joint program also the numbers of each network.
          start: [] int32.
          stop: [] int32.
          arrays: the task's.

        Returns:
          the new states, and metrics by name, [S, calls_up_to, ...], of which the first stop -
          start rows are of these steps.
        """
        run_groups: Any = self._run_groups
        if self.mesh is not None:
            run_groups = jax.shard_map(
                run_groups,
                mesh=self.mesh,
                in_specs=(P(SEED), P(SEED), P(), P(), P()),
                out_specs=P(SEED),
                axis_names={SEED},
                check_vma=False,
            )
        count = len(states.step)
        padding = -count % self.seeds_at_once
        if not padding:
            return run_groups(states, networks, start, stop, arrays)

        def pad(values: Any) -> jax.Array:  # with copies of the last seed
            values = jnp.asarray(values)
            return jnp.concatenate([values, jnp.repeat(values[-1:], padding, axis=0)])

        results = run_groups(*jax.tree.map(pad, (states, networks)), start, stop, arrays)
        return jax.tree.map(lambda values: values[:count], results)

    def _run_groups(
        self, states: TrainState, networks: Networks, start: Any, stop: Any, arrays: Arrays
    ) -> tuple[TrainState, Metrics]:
        """Take some steps of a whole number of groups, one group after the other."""
        size = self.vmap_size
        if len(states.step) == size:
            return self._run_group((states, networks), start, stop, arrays)

        def split(values: jax.Array) -> jax.Array:  # [S, ...] -> [groups, vmap_size, ...]
            return values.reshape(-1, size, *values.shape[1:])

        results = jax.lax.map(
            lambda group: self._run_group(group, start, stop, arrays),
            jax.tree.map(split, (states, networks)),
        )
        return jax.tree.map(lambda values: values.reshape(-1, *values.shape[2:]), results)

    def _run_group(
        self, group: tuple[TrainState, Networks], start: Any, stop: Any, arrays: Arrays
    ) -> tuple[TrainState, Metrics]:
        """Take some steps of one group of seeds, all of it in one `vmap`."""
        states, networks = group
        map_seeds = jax.vmap if len(states.step) > 1 else _map_single
        given = () if self.config.init_from is None else (states.params,)
        states = jax.lax.cond(
            start == 0, lambda: map_seeds(self.init)(networks, *given), lambda: states
        )

        def take_step(states: TrainState, n: jax.Array) -> tuple[TrainState, Metrics]:
            step = lambda state, network: self.step(state, network, n, arrays)  # noqa: E731
            return map_seeds(step)(states, networks)

        def body(n: jax.Array, loop: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
            states, metrics = loop
            states, row = take_step(states, n)
            return states, jax.tree.map(
                lambda rows, new: rows.at[:, n - start].set(new), metrics, row
            )

        # fori_loop, since a scan over `calls_up_to` steps would copy the state of steps not taken.
        _, row = jax.eval_shape(take_step, states, start)
        metrics = jax.tree.map(
            lambda new: jnp.zeros((new.shape[0], self.calls_up_to, *new.shape[1:]), new.dtype), row
        )
        stop = jnp.minimum(stop, start + self.calls_up_to)
        return jax.lax.fori_loop(start, stop, body, (states, metrics))


class _Parts(NamedTuple):
    """What one network is trained with."""

    task: Task
    optimizer: optax.GradientTransformation
    train_step: TrainStep
    validate: Validate | None

    @classmethod
    def of(cls, config: ExperimentConfig) -> "_Parts":
        optimizer = make_optimizer(config.train)
        train_step = make_train_step(config.task, config.model, optimizer)
        validate = make_validate(config.task, config.model) if config.validates else None
        return cls(config.task, optimizer, train_step, validate)


def make_mesh(config: ExperimentConfig, vmap_size: int) -> Mesh | None:
    """Return the mesh of the config's shape; None for one device, and without `jit`.

    Raises:
      SettingError: if the shape does not fit the experiment, or JAX has too few devices.
    """
    shape, settings = config.mesh, cast(Any, jax.config)
    if shape is None or shape.devices == 1 or settings.jax_disable_jit:
        return None
    rows, groups = config.batch_shape.inputs.shape[0], -(-config.seeds // vmap_size)
    if rows % shape.data:
        divisors = ", ".join(str(n) for n in range(1, shape.data) if rows % n == 0)
        raise SettingError(
            f"the mesh {shape} cannot spread {rows} batch rows evenly: data may be {divisors}"
        )
    if shape.seed > groups:
        raise SettingError(
            f"the mesh {shape} spreads groups of seeds over {shape.seed} devices, but the"
            f" run has only {groups} (seeds: {config.seeds}, vmap size: {vmap_size})"
        )
    return shape.make()


def _map_single(function: Callable[..., Any]) -> Callable[..., Any]:
    """Do what `vmap` does on an axis of size 1, without batching anything."""

    def mapped(*args: Any) -> Any:
        result = function(*jax.tree.map(lambda leaf: leaf[0], args))
        return jax.tree.map(lambda leaf: leaf[None], result)

    return mapped


class CompiledLoop(NamedTuple):
    """`run_steps`, compiled. It donates its states: do not use them after a call."""

    config: ExperimentConfig
    executable: Any  # the compiled `run_steps`
    arrays: Arrays  # on the devices
    shardings: Any = None  # of the other arguments on the mesh; None for one device

    def __call__(
        self, states: TrainState, networks: Networks, start: int, stop: int
    ) -> tuple[TrainState, Metrics]:
        """Take the steps from `start` to before `stop`: see `TrainLoop.run_steps`."""
        arguments = states, networks, np.int32(start), np.int32(stop)
        if self.shardings is not None and processes.are_several():
            arguments = put_on_mesh(arguments, self.shardings)
        return self.executable(*arguments, self.arrays)


def compile_loop(loop: TrainLoop, meanwhile: Callable[[], object] = lambda: None) -> CompiledLoop:
    """Compile the loop, and put the task's arrays on the devices.

    With JAX_DISABLE_JIT nothing is compiled, and each operation runs by itself.

    Args:
      loop: the experiment's loop.
      meanwhile: called in another thread while XLA compiles, which leaves Python idle.
    """
    config, arguments, options = loop.config, None, {}
    arrays = config.task.arrays()
    if loop.mesh is None:
        arrays = jax.tree.map(jnp.asarray, arrays)
    else:
        everywhere, states = NamedSharding(loop.mesh, P()), loop.shardings
        arguments = states, states.step, everywhere, everywhere
        arrays = put_on_mesh(arrays, jax.tree.map(lambda _: everywhere, arrays))
        options["in_shardings"] = (*arguments, everywhere)
        options["out_shardings"] = (states, everywhere)
    settings: Any = jax.config
    if settings.jax_disable_jit:
        executable = loop.run_steps  # one operation at a time, for debugging
        meanwhile()
    else:
        donated = () if config.seeds % loop.seeds_at_once else 0  # padded states are copied
        run_steps = jax.jit(loop.run_steps, donate_argnums=donated, **options)
        given = loop.blank, networks_of(config), np.int32(0), np.int32(0)
        shapes = jax.eval_shape(lambda *arguments: arguments, *given)
        lowered = run_steps.lower(*shapes, arrays)
        with ThreadPoolExecutor(1) as pool:
            other_work = pool.submit(meanwhile)
            executable = lowered.compile()
            other_work.result()
    return CompiledLoop(config, executable, arrays, arguments)


@dataclass(frozen=True)
class RunState:
    """A run in progress: everything needed to continue it, and what it measured so far."""

    step: int  # the next step
    state: TrainState  # each leaf [S, ...]; before step 0 only the shapes matter
    seconds: float = 0.0  # of training
    histories: tuple[History, ...] = ()  # logged steps, one history per call
    diverged: dict[int, int] = field(default_factory=dict)  # seed -> step with a non-finite loss
    stopped: dict[int, int] = field(default_factory=dict)  # seed -> step of its early stop
    solved_at: dict[int, int] = field(default_factory=dict)  # seed -> step at which it stopped so
    is_over: bool = False  # all steps are done, or no seed is left to train

    @property
    def history(self) -> History:
        """All logged steps so far."""
        return join(self.histories)


class Call(NamedTuple):
    """What one call of the compiled loop did, to all networks."""

    state: TrainState  # on the devices
    progress: TrainState  # the few numbers that `seed_status` needs
    values: Metrics  # by name, [S, calls_up_to, ...]
    stop: int  # the step after the last one it took
    seconds: float  # it took

    def of(self, rows: slice) -> "Call":
        """The same of some of the networks, without their whole state."""
        progress, values = jax.tree.map(lambda leaf: leaf[rows], self[1:3])
        return Call(progress, progress, values, self.stop, self.seconds)


def run_calls(
    compiled: CompiledLoop, state: TrainState, start: int, until: int | None = None
) -> Iterator[Call]:
    """Call the compiled loop, a few seconds per call, up to the last step.

    Args:
      compiled: the loop.
      state: of all networks before step `start`; its arrays are donated.
      start: the first step.
      until: the step to stop before; None for all steps.

    Yields:
      each call. The first takes one step, to measure how long a step takes.
    """
    networks, steps = networks_of(compiled.config), 1
    until = compiled.config.train.steps + 1 if until is None else until
    while start < until:
        started = time.perf_counter()
        stop = min(start + steps, until)
        state, values = compiled(state, networks, start, stop)
        values, progress = to_host((values, _progress(state)))
        seconds = time.perf_counter() - started
        most = values["loss"].shape[1]
        steps = int(np.clip(SECONDS_PER_CALL * (stop - start) / seconds, 1, most))
        if compiled.shardings is not None:
            steps = int(processes.share([steps])[0, 0])  # the clocks of processes differ
        yield Call(state, progress, values, stop, seconds)
        start = stop


def run_loop(
    compiled: CompiledLoop, run_state: RunState, until: int | None = None
) -> Iterator[RunState]:
    """Call the compiled loop, a few seconds per call, until training is over.

    Args:
      compiled: the loop.
      run_state: where to start; its arrays are donated.
      until: the step to stop before; None trains to the end.

    Yields:
      the run after each call. The first call takes one step, to measure how long a step takes.
    """
    for call in run_calls(compiled, run_state.state, run_state.step, until):
        run_state = after_call(compiled.config, run_state, call)
        yield run_state
        if run_state.is_over:
            return


def train_in_memory(
    config: ExperimentConfig,
    until: int | None = None,
    after_call: Callable[[RunState], object] = lambda run_state: None,
    first: TrainState | None = None,
) -> RunState:
    """Train from step 0 without a run directory.

    Args:
      config: what to train.
      until: the step to stop before; None trains to the end.
      after_call: called after each call of the compiled loop.
      first: what the first call is given; None for the loop's `blank`.

    Returns:
      the run, with its state in host memory.
    """
    loop = TrainLoop(config)
    run_state = RunState(0, loop.blank if first is None else first)
    for run_state in run_loop(compile_loop(loop), run_state, until):  # noqa: B020
        after_call(run_state)
    return replace(run_state, state=to_host(run_state.state))


class SeedStatus(NamedTuple):
    """The seeds that are no longer trained, each with the step at which it ended."""

    diverged: dict[int, int]  # its loss or gradient was not finite
    stopped: dict[int, int]  # out of patience
    solved_at: dict[int, int]  # it solved the task, with `stop_when_solved`

    def is_all(self, config: ExperimentConfig) -> bool:
        """Whether no seed is left to train."""
        return sum(map(len, self)) == config.seeds

    def last_success(self, config: ExperimentConfig) -> int | None:
        """Return the step of the success that ended the run; None if none did."""
        last = max(max(seeds.values(), default=-1) for seeds in self)
        ended = self.is_all(config) and last in self.solved_at.values()
        return last if ended else None

    @property
    def next_step(self) -> int:
        """The step to resume from when no seed is left.

        The step of a stop is complete; the step of a divergence would be tried again.
        """
        complete = [*self.stopped.values(), *self.solved_at.values()]
        return max([*self.diverged.values(), *(n + 1 for n in complete)])


def seed_status(
    config: ExperimentConfig, state: TrainState, step: int, loss: np.ndarray | None = None
) -> SeedStatus:
    """Return which seeds are no longer trained.

    Args:
      config: what is trained.
      state: its `step`, `best` and `solved_at`, leaves [S], when all steps before `step` are done.
      step: the next step, at most N+1.
      loss: [S], the last measured loss; only this tells whether step N diverged.
    """
    seeds, updates = config.seed_numbers, np.asarray(state.step)  # [S] each
    behind = updates < min(step, config.train.steps)
    solved = np.False_ if state.solved_at is None else np.asarray(state.solved_at) != UNSOLVED
    solved = np.broadcast_to(solved, updates.shape)
    early = behind & config.has_stopped(state) & ~solved
    broken = behind if loss is None else behind | ~np.isfinite(loss)

    def by_seed(which: np.ndarray) -> dict[int, int]:
        return dict(zip(seeds[which].tolist(), updates[which].tolist(), strict=True))

    return SeedStatus(by_seed(broken & ~early & ~solved), by_seed(early), by_seed(solved))


def _progress(state: TrainState) -> TrainState:
    """Return the few numbers that `seed_status` needs."""
    best = None if state.best is None else state.best._replace(params=None)
    return TrainState(state.step, None, None, None, best, state.solved_at)


def after_call(config: ExperimentConfig, before: RunState, call: Call) -> RunState:
    """Return the run after a call that took the steps from `before.step` on."""
    start, stop, progress, values = before.step, call.stop, call.progress, call.values
    losses = np.asarray(values["loss"])
    status = seed_status(config, progress, stop, losses[:, stop - start - 1])
    nobody_left = status.is_all(config)
    updates = np.asarray(progress.step)  # [S]
    shown = updates.max() + 1 if nobody_left else stop  # later steps trained nothing
    logged = config.logged(np.arange(start, shown), status.last_success(config))
    order = ["loss", *sorted(values.keys() - {"loss", "grad_norm"}), "grad_norm"]
    rows = {name: np.asarray(values[name])[:, logged - start] for name in order}
    history = History(config.seed_numbers, logged, mask_diverged(rows, logged, updates))
    if nobody_left:
        stop = status.next_step
    return RunState(
        step=stop,
        state=call.state,
        seconds=before.seconds + call.seconds,
        histories=(*before.histories, history),
        diverged=status.diverged,
        stopped=status.stopped,
        solved_at=status.solved_at,
        is_over=nobody_left or stop > config.train.steps,
    )
