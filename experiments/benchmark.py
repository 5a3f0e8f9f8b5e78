"""Time jaxrnn beside its peers, in one run: whole processes, training, many seeds, the harness.

The peer is PyTorch, where it is installed (`pip install torch`); otherwise jaxrnn stands alone.
Runs are interleaved, A B A B, because shared machines change speed; quote the medians.
"""

import importlib.util
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import benchmark_harness
import benchmark_language
import hihello
import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import cli
from jaxrnn.benchmark import interleave, run_python, table, timed
from jaxrnn.cells import LSTMCell, MinGRUCell
from jaxrnn.checks import check_counts
from jaxrnn.program import compile_program, make_program
from jaxrnn.recurrent import Recurrent
from jaxrnn.study import Study

HERE = Path(__file__).parent
PEER = "PyTorch"


@dataclass(frozen=True)
class Config:
    """Time hihello beside the same program in PyTorch, a layer beside itself, and the harness."""

    suite: Literal["all", "startup", "training", "train", "seeds", "long", "overhead", "study"] = (
        "all"
    )
    """startup: the whole process; training: 50 steps; train: a step of a language model; seeds:
    many networks at once; long: a layer's gradient over long sequences; overhead: a run with all
    that it writes, beside its bare loop; study: many seeds as one process, beside one a seed."""
    repeats: int = 9
    """Counted calls of each system, after one that is not counted."""
    seeds: int = 1000
    """Networks of the suite `seeds`."""
    longest: int = 4096
    """Time steps of the longest sequence of the suite `long`; the others have a quarter of it and
    a sixteenth."""
    steps: int = 1000
    """Training steps of the suite `overhead`."""
    study_seeds: int = 256
    """Networks of the suite `study`."""
    study_steps: int = 500
    """Training steps of the suite `study`."""

    def __post_init__(self) -> None:
        check_counts(self, "repeats", "seeds", "longest", "steps", "study_seeds", "study_steps")
        if self.longest < 16:
            raise ValueError("longest must be at least 16")


def main(config: Config) -> None:
    """Print a table for each suite."""
    peer = importlib.util.find_spec("torch") is not None
    many = config.study_seeds, config.study_steps
    suites: dict[str, Callable[[], str]] = {
        "startup": lambda: startup(config, peer),
        "training": lambda: training(config, peer),
        "train": lambda: benchmark_language.train(config.repeats, 10, peer),
        "seeds": lambda: seeds(config),
        "long": lambda: long(config),
        "overhead": lambda: benchmark_harness.overhead(config.steps, config.repeats),
        "study": lambda: benchmark_harness.study(*many, min(config.repeats, 4)),
    }
    chosen = suites if config.suite == "all" else [config.suite]
    if not peer and {"startup", "training", "train"} & set(chosen):
        print("PyTorch is not installed, so it is left out.")
    for name in chosen:
        print(suites[name](), flush=True)


def startup(config: Config, peer: bool) -> str:
    """Whole processes: with an empty compilation cache, with a filled one, and the peer's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = partial(run_python, str(HERE / "hihello.py"), "--no-plots", folder=folder)
        systems: dict[str, Callable[[], object]] = {
            "jaxrnn, empty cache": process,
            "jaxrnn, filled cache": partial(process, cache=folder / "warm"),
        }
        if peer:
            systems[PEER] = partial(run_python, str(HERE / "hihello_torch.py"), folder=folder)
        seconds = interleave(systems, config.repeats)
    return table("whole process, hihello without pictures", seconds, against=list(systems)[-1])


def training(config: Config, peer: bool) -> str:
    """Initialisation and all 50 steps, with the prediction after each; compiled beforehand."""
    systems: dict[str, Callable[[], object]] = {"jaxrnn": compiled(hihello_study())}
    if peer:
        import hihello_torch

        systems[PEER] = hihello_torch.train
    seconds = interleave(systems, config.repeats, burst=10)
    return table("training, 50 steps", seconds, against=list(systems)[-1])


def seeds(config: Config) -> str:
    """Many networks in one program, beside one network at a time in the same process."""
    one = compiled(hihello_study())
    many = hihello_study(config.seeds)
    together, seconds = timed(compiled, replace(many, group=config.seeds))
    systems: dict[str, Callable[[], object]] = {
        f"{config.seeds} networks side by side": together,
        f"{config.seeds} networks in turn": compiled(replace(many, group=1)),
        f"{config.seeds} networks, a call each": lambda: [
            one(seeds=many.seed_numbers[s : s + 1]) for s in range(config.seeds)
        ],
    }
    figures = interleave(systems, config.repeats)
    return (
        table("training, many seeds", figures, against=list(systems)[-1])
        + f"\n  (the first program compiles in {seconds:.2f} s)"
    )


def hihello_study(seeds: int = 1) -> Study:
    """What `hihello.py` trains, with what it logs."""
    return hihello.make_study(hihello.Config(seeds=seeds))


def compiled(study: Study) -> Callable[..., object]:
    """All steps of a study, from nothing, as a call of its compiled program."""
    program = make_program(study)
    stretch = compile_program(study, program)
    every = 0, study.train.steps + 1  # the last only looks

    def run(seeds: np.ndarray = study.seed_numbers) -> object:
        return stretch(program.blank, seeds, *every)

    return run


def long(config: Config) -> str:
    """The gradient of a layer's last state, B=16, F=8, H=128, and the memory that it takes."""
    tables = []
    for steps in (config.longest // 16, config.longest // 4, config.longest):
        chunk = math.isqrt(steps)
        layers = {
            "LSTM": Recurrent(LSTMCell(128)),
            f"LSTM, chunks of {chunk}": Recurrent(LSTMCell(128), chunk=chunk),
            "minGRU, scan": Recurrent(MinGRUCell(128), implementation="scan"),
            "minGRU, associative scan": Recurrent(
                MinGRUCell(128), implementation="associative_scan"
            ),
        }
        inputs = jax.random.normal(jax.random.key(0), (16, steps, 8))
        systems: dict[str, Callable[[], object]] = {}
        for name, layer in layers.items():
            variables = layer.init(jax.random.key(1), inputs[:, :1])
            program = jax.jit(jax.grad(partial(last_state, layer))).lower(variables, inputs)
            executable = program.compile()
            memory: Any = executable.memory_analysis()
            mebibytes = memory.temp_size_in_bytes / 2**20
            systems[f"{name}: {mebibytes:.1f} MiB"] = partial(executable, variables, inputs)
        seconds = interleave(systems, config.repeats)
        tables.append(
            table(f"gradient of the last state, T = {steps}", seconds, next(iter(systems)))
        )
    return "\n".join(tables)


def last_state(layer: Recurrent, variables: Any, inputs: jax.Array) -> jax.Array:
    """The sum of the hidden state after the last step; nothing else of the layer is used."""
    _, carry = layer.apply(variables, inputs)
    return jnp.sum(jax.tree.leaves(carry)[-1])


if __name__ == "__main__":
    cli.run(Config, main)
