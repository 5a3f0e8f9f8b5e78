"""The training loop: all steps of one seed or many as one compiled program, without side effects.

    make_train(config)   a whole run as one pure function of a seed
    TrainLoop(config)    its parts: `init`, `step`, and `run_steps`, the loop over some steps

Step n draws its batch and its dropout masks from keys folded from n, so a resumed run sees what it
would have seen. `calls` compiles `run_steps` and calls it.
"""

import copy
from collections.abc import Callable
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
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.joint import JointConfig, Networks, networks_of
from jaxrnn.training.mesh import DATA, SEED, shard_rows
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
