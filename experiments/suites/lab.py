"""The lab of `hihello.py`: the whole process and the training alone, in jaxrnn and PyTorch."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import hihello
import jax
import numpy as np

from jaxrnn.training.calls import compile_loop
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.loop import TrainLoop
from suites import peers
from suites.timing import Row, interleave, rows, run_python

SCRIPTS = Path(hihello.__file__).parent


def startup(repeats: int) -> Iterator[list[Row]]:
    """Time whole processes with an empty and a filled compilation cache, and PyTorch's.

    Also time tracing and compiling alone.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = partial(run_python, str(SCRIPTS / "hihello.py"), "--no-plots", folder=folder)
        systems: dict[str, Callable[[], object]] = {
            "jaxrnn, empty cache": process,
            "jaxrnn, filled cache": partial(process, cache=folder / "warm"),
        }
        if peers.PYTORCH not in peers.missing():
            script = str(SCRIPTS / "hihello_torch.py")
            systems[peers.PYTORCH] = partial(run_python, script, folder=folder)
        seconds = interleave(systems, repeats)
    yield rows("startup", "hihello without plots", "whole process", seconds)
    seconds = interleave({"jaxrnn": fresh}, repeats)
    yield rows("startup", "hihello", "tracing and compiling", seconds)


def fresh() -> None:
    """Trace and compile hihello without caches."""
    jax.clear_caches()
    compiled(hihello_config())


def training(repeats: int) -> Iterator[list[Row]]:
    """Time initialization and 50 steps with a prediction after each; compiled beforehand."""
    systems: dict[str, Callable[[], object]] = {"jaxrnn": compiled(hihello_config())}
    if peers.PYTORCH not in peers.missing():
        import hihello_torch

        systems[peers.PYTORCH] = hihello_torch.train
    yield rows("training", "hihello", "50 steps", interleave(systems, repeats, burst=10))


def hihello_config(seeds: int = 1) -> ExperimentConfig:
    """Return the experiment of `hihello.py`."""
    return hihello.make_config(hihello.Config(seeds=seeds))


def compiled(experiment: ExperimentConfig) -> Callable[..., object]:
    """Compile an experiment; return a function that initializes and trains all its seeds."""
    loop = TrainLoop(experiment)
    program = compile_loop(loop)
    all_steps = 0, experiment.train.steps + 1  # the last one only measures

    def run(seeds: np.ndarray = experiment.seed_numbers) -> object:
        return program(loop.blank, seeds, *all_steps)

    return run
