"""The training loop, compiled and called until training is over.

    compile_loop(loop)   `TrainLoop.run_steps` compiled, with the task's arrays on the device
    run_loop(compiled)   an iterator that calls it until training is over

The program is compiled once and called again and again, for a few seconds each time: the steps at
which a call starts and stops are arguments, and the first call also makes the parameters. How a
run is split into calls does not change its bits.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrnn.training import processes
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.joint import Networks, networks_of
from jaxrnn.training.loop import TrainLoop
from jaxrnn.training.mesh import put_on_mesh, to_host
from jaxrnn.training.run_state import Call, RunState, after_call, progress_of
from jaxrnn.training.step import TrainState
from jaxrnn.types import Arrays, Metrics

SECONDS_PER_CALL = 2.0
"""How long a call of the compiled program should take: Ctrl-C waits for it to return."""


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
        values, progress = to_host((values, progress_of(state)))
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
