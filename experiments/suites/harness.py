"""The cost of the harness, and what one process for many seeds saves."""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.cells import LSTMCell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.rng import child_key, root_key
from jaxrnn.runs import checkpoints, runner
from jaxrnn.tasks.adding import Adding
from jaxrnn.training.calls import compile_loop
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.loop import TrainLoop
from jaxrnn.training.optimizer import make_optimizer
from jaxrnn.training.step import TrainState, init_state, make_train_step
from jaxrnn.types import Metrics
from suites.timing import Row, interleave, rows, run_python

SAVE_EVERY = 3.0  # seconds instead of 60, so that the run saves several times

SCRIPT = """
import sys
from pathlib import Path

import jaxrnn as jr

first, seeds, steps = map(int, sys.argv[2:])
model = jr.SequenceModel(jr.Recurrent(jr.LSTMCell(8)), 1)
train = jr.TrainConfig(steps, log_every=50)
config = jr.ExperimentConfig(jr.Adding(20, 20), model, train, first, seeds)
jr.run(config, run_dir=Path(sys.argv[1]))
"""
"""What a user would write to train some seeds."""


def overhead(
    repeats: int, steps: int, hidden: int = 128, length: int = 64
) -> Iterator[list[Row] | str]:
    """Time a run with metrics, TensorBoard events and checkpoints, and its bare loop.

    The run is timed from its compiled program to the return of `jaxrnn.run`. This includes all that
    it writes, and the last measurement, which the bare loop lacks. Both are compiled beforehand.
    """
    task = Adding(length, batch_size=64)
    model = SequenceModel(Recurrent(LSTMCell(hidden)), task.output_size)
    # At a low learning rate rounding differences do not grow, so a larger one is an error.
    train = TrainConfig(steps, learning_rate=1e-4, checkpoint_seconds=SAVE_EVERY)
    experiment = ExperimentConfig(task, model, train)
    bare = jax.jit(partial(bare_loop, experiment)).lower(experiment.seed_numbers[0]).compile()
    compiled = compile_loop(TrainLoop(experiment))
    params: dict[str, Any] = {}
    saves: list[int] = []

    def run_bare() -> float:
        start = time.perf_counter()
        state, _ = jax.block_until_ready(bare(experiment.seed_numbers[0]))
        seconds = time.perf_counter() - start
        params["bare"] = jax.device_get(state.params)
        return seconds

    def run_harness() -> float:
        starts = []

        def hand_over(*_: Any, **__: Any) -> Any:
            starts.append(time.perf_counter())
            return compiled

        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(runner, "compile_loop", hand_over),
            mock.patch.object(checkpoints, "save", wraps=checkpoints.save) as save,
        ):
            result = runner.run(experiment, run_dir=Path(folder))
            seconds = time.perf_counter() - starts[0]
        params["harness"] = jax.tree.map(lambda leaf: leaf[0], result.state.params)
        saves.append(save.call_count)
        return seconds

    systems = {"harness": run_harness, "bare loop": run_bare}
    seconds = interleave(systems, repeats, own_clock=True)
    yield rows("overhead", f"LSTM, H={hidden}, B=64, T={length}", f"{steps} steps", seconds)
    error = difference(params["harness"], params["bare"])
    equal = "bitwise equal" if error == 0 else f"equal to within {error:.1g}"
    yield f"checkpoints per run: {min(saves)} to {max(saves)}; the final parameters are {equal}"


def bare_loop(experiment: ExperimentConfig, seed: jax.Array) -> tuple[TrainState, Metrics]:
    """Train in one scan, without a harness."""
    task, model, optimizer = experiment.task, experiment.model, make_optimizer(experiment.train)
    train_step = make_train_step(task, model, optimizer)
    init, data, dropout = (child_key(root_key(seed), name) for name in ("init", "data", "dropout"))

    def step(state: TrainState, n: jax.Array) -> tuple[TrainState, Metrics]:
        batch = task.sample_batch(jax.random.fold_in(data, n), n)
        return train_step(state, batch, jax.random.fold_in(dropout, n))

    state = init_state(init, task, model, optimizer, experiment.batch_shape)
    return jax.lax.scan(step, state, jnp.arange(experiment.train.steps, dtype=jnp.int32))


def difference(some: Any, others: Any) -> float:
    """Return the largest difference between two trees of arrays."""
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(a - b).max()), some, others)))


def sweep(repeats: int, seeds: int, steps: int) -> Iterator[list[Row]]:
    """Time one process for all seeds, and one process per seed, one after another.

    Only a few of the latter are run, and their times are multiplied.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, numbers = Path(name), itertools.count()

        def process(first: int, seeds: int, cache: Path | None = None) -> None:
            arguments = (f"run-{next(numbers)}", str(first), str(seeds), str(steps))
            run_python("-c", SCRIPT, *arguments, folder=folder, cache=cache)

        warm, each = folder / "warm", f"{seeds} processes"
        systems: dict[str, Callable[[], None]] = {
            "one process, empty cache": lambda: process(0, seeds),
            "one process, filled cache": lambda: process(0, seeds, warm),
            f"{each}, empty cache": lambda: process(next(numbers) % seeds, 1),
            f"{each}, filled cache": lambda: process(next(numbers) % seeds, 1, warm),
        }
        seconds = interleave(systems, repeats)
    for name in seconds:
        seconds[name] *= seeds if name.startswith(each) else 1
    yield rows("sweep", f"LSTM, H=8, B=20, T=20, S={seeds}", "whole processes", seconds)
