"""The lab of `hihello.py`: its whole process and its training, beside the same in PyTorch."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import hihello
import jax
import numpy as np

from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.loop import TrainLoop, compile_loop
from suites import peers
from suites.timing import Row, interleave, rows, run_python

SCRIPTS = Path(hihello.__file__).parent


def startup(repeats: int) -> Iterator[list[Row]]:
    """Whole processes: with an empty compilation cache, with a filled one, and the peer's.

    And of the first of them what tracing and compiling alone take.
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
    yield rows("startup", "hihello without pictures", "whole process", seconds)
    seconds = interleave({"jaxrnn": fresh}, repeats)
    yield rows("startup", "hihello", "tracing and compiling", seconds)


def fresh() -> None:
    """Trace and compile the program of hihello as if for the first time."""
    jax.clear_caches()
    compiled(hihello_config())


def training(repeats: int) -> Iterator[list[Row]]:
    """Initialisation and all 50 steps, with the prediction after each; compiled beforehand."""
    systems: dict[str, Callable[[], object]] = {"jaxrnn": compiled(hihello_config())}
    if peers.PYTORCH not in peers.missing():
        import hihello_torch

        systems[peers.PYTORCH] = hihello_torch.train
    yield rows("training", "hihello", "50 steps", interleave(systems, repeats, burst=10))


def hihello_config(seeds: int = 1) -> ExperimentConfig:
    """What `hihello.py` trains, with what it logs."""
    return hihello.make_config(hihello.Config(seeds=seeds))


def compiled(study: ExperimentConfig) -> Callable[..., object]:
    """All steps of a study, from nothing, as a call of its compiled program."""
    program = TrainLoop(study)
    stretch = compile_loop(program)
    every = 0, study.train.steps + 1  # the last only looks

    def run(seeds: np.ndarray = study.seed_numbers) -> object:
        return stretch(program.blank, seeds, *every)

    return run
