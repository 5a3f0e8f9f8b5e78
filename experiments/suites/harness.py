"""What the harness costs, and what a study of many seeds saves."""

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
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.loop import TrainLoop, compile_loop
from jaxrnn.training.optimizer import make_optimizer
from jaxrnn.training.step import TrainState, init_state, make_train_step
from jaxrnn.types import Metrics
from suites.timing import Row, interleave, rows, run_python

SAVE_EVERY = 3.0  # seconds; 60 are the default, but the run is to have some saves within it

SCRIPT = """
import sys
from pathlib import Path

from jaxrnn.runs import runner
from jaxrnn.cells import LSTMCell
from jaxrnn.models import SequenceModel
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.tasks.adding import Adding
from jaxrnn.training.config import Train

first, seeds, steps = map(int, sys.argv[2:])
experiment.run(
    Adding(sequence_length=20, batch_size=20),
    model=SequenceModel(Recurrent(LSTMCell(8)), 1),
    train=Train(steps, log_every=50),
    seed=first,
    seeds=seeds,
    run_dir=Path(sys.argv[1]),
    picture=False,
)
"""
"""What a user would write for a study, or for one run of it."""


def overhead(
    repeats: int, steps: int, hidden: int = 128, length: int = 64
) -> Iterator[list[Row] | str]:
    """A run with metrics, TensorBoard's events and checkpoints, beside its bare loop.

    The clock of the run goes from its compiled program to the return of `experiment.run`: it has
    everything that is written between the first step and the last checkpoint, and the last look
    that the bare loop does without. Both programs are compiled beforehand.
    """
    task = Adding(length, batch_size=64)
    model = SequenceModel(Recurrent(LSTMCell(hidden)), task.output_size)
    # Slow learning lets a difference in the last bit grow no further, so a larger one is a mistake.
    train = TrainConfig(steps, learning_rate=1e-4, checkpoint_seconds=SAVE_EVERY)
    study = ExperimentConfig(task, model, train)
    bare = jax.jit(partial(bare_loop, study)).lower(study.seed_numbers[0]).compile()
    compiled = compile_loop(TrainLoop(study))
    params: dict[str, Any] = {}
    saves: list[int] = []

    def run_bare() -> float:
        start = time.perf_counter()
        state, _ = jax.block_until_ready(bare(study.seed_numbers[0]))
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
            result = runner.run(study, run_dir=Path(folder))
            seconds = time.perf_counter() - starts[0]
        params["harness"] = jax.tree.map(lambda leaf: leaf[0], result.state.params)
        saves.append(save.call_count)
        return seconds

    systems = {"in the harness": run_harness, "the bare loop": run_bare}
    seconds = interleave(systems, repeats, own_clock=True)
    yield rows("overhead", f"LSTM, H={hidden}, B=64, T={length}", f"{steps} steps", seconds)
    apart = difference(params["harness"], params["bare"])
    ends = "with the same bits" if apart == 0 else f"within {apart:.1g} of each other"
    yield f"checkpoints a run: {min(saves)} to {max(saves)}; the parameters end {ends}"


def bare_loop(study: ExperimentConfig, seed: jax.Array) -> tuple[TrainState, Metrics]:
    """The same training as one scan, with nothing around it."""
    task, model, optimizer = study.task, study.model, make_optimizer(study.train)
    train_step = make_train_step(task, model, optimizer)
    init, data, dropout = (child_key(root_key(seed), name) for name in ("init", "data", "dropout"))

    def step(state: TrainState, n: jax.Array) -> tuple[TrainState, Metrics]:
        batch = task.sample_batch(jax.random.fold_in(data, n), n)
        return train_step(state, batch, jax.random.fold_in(dropout, n))

    state = init_state(init, task, model, optimizer, study.batch_shape)
    return jax.lax.scan(step, state, jnp.arange(study.train.steps, dtype=jnp.int32))


def difference(some: Any, others: Any) -> float:
    """The largest difference between two trees of arrays."""
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(a - b).max()), some, others)))


def study(repeats: int, seeds: int, steps: int) -> Iterator[list[Row]]:
    """Whole processes: all seeds as one study, beside a process for each, one after the other.

    Of those a few are run, and their times multiplied.
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
    yield rows("study", f"LSTM, H=8, B=20, T=20, S={seeds}", "whole processes", seconds)
