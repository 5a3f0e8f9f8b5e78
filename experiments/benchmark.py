"""Time jaxrnn beside its peers, in one run: whole process, training, many seeds, long sequences.

The peer is PyTorch, where it is installed (`pip install torch`); otherwise jaxrnn stands alone.
Runs are interleaved, A B A B, because shared machines change speed; quote the medians.
"""

import importlib.util
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import hihello
import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import cli, keys
from jaxrnn.benchmark import interleave, run_timed, table
from jaxrnn.cells import LSTMCell, MinGRUCell
from jaxrnn.recurrent import Recurrent

HERE = Path(__file__).parent
PEER = "PyTorch"


@dataclass(frozen=True)
class Config:
    """Time hihello beside the same program in PyTorch, and a layer beside itself."""

    suite: Literal["all", "startup", "training", "seeds", "long"] = "all"
    """startup: the whole process; training: 50 steps; seeds: many networks at once; long: a layer's
    gradient over long sequences."""
    repeats: int = 9
    """Counted calls of each system, after one that is not counted."""
    seeds: int = 1000
    """Networks of the suite `seeds`."""
    longest: int = 4096
    """Time steps of the longest sequence of the suite `long`; the others have a quarter of it and
    a sixteenth."""

    def __post_init__(self) -> None:
        for name, least in (("repeats", 1), ("seeds", 1), ("longest", 16)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be at least {least}")


def main(config: Config) -> None:
    """Print a table for each suite."""
    peer = importlib.util.find_spec("torch") is not None
    if not peer:
        print("PyTorch is not installed, so it is left out.")
    suites = {"startup": startup, "training": training, "seeds": seeds, "long": long}
    for name, suite in suites.items():
        if config.suite in (name, "all"):
            print(suite(config, peer), flush=True)


def startup(config: Config, peer: bool) -> str:
    """Whole processes: with an empty compilation cache, with a filled one, and the peer's."""
    with tempfile.TemporaryDirectory() as folder:
        warm = Path(folder) / "warm"

        def script(name: str, *arguments: str, cache: Path | None = None) -> None:
            settings = {name: value for name, value in os.environ.items() if "CACHE" not in name}
            environment = settings | {"XDG_CACHE_HOME": str(cache or tempfile.mkdtemp(dir=folder))}
            command = [sys.executable, str(HERE / name), *arguments]
            subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)

        systems: dict[str, Callable[[], object]] = {
            "jaxrnn, empty cache": partial(script, "hihello.py", "--no-plots"),
            "jaxrnn, filled cache": partial(script, "hihello.py", "--no-plots", cache=warm),
        }
        if peer:
            systems[PEER] = partial(script, "hihello_torch.py")
        seconds = interleave(systems, config.repeats)
    return table("whole process, hihello without pictures", seconds, against=list(systems)[-1])


def training(config: Config, peer: bool) -> str:
    """Initialisation and all 50 steps, with the prediction after each; compiled beforehand."""
    settings = hihello.Config()
    program = jax.jit(lambda seed: hihello.learn(keys.root_key(seed), settings))
    systems: dict[str, Callable[[], object]] = {"jaxrnn": partial(program, np.uint32(0))}
    if peer:
        import hihello_torch

        systems[PEER] = hihello_torch.train
    seconds = interleave(systems, config.repeats, burst=10)
    return table("training, 50 steps", seconds, against=list(systems)[-1])


def seeds(config: Config, peer: bool) -> str:
    """Many networks in one program, beside one network at a time in the same process."""
    settings = hihello.Config(seeds=config.seeds)
    one = jax.jit(lambda seed: hihello.learn(keys.root_key(seed), settings).curves)
    every = np.arange(config.seeds, dtype=np.uint32)
    together = jax.jit(jax.vmap(one))
    _, clock = run_timed(together, every)
    systems: dict[str, Callable[[], object]] = {
        f"{config.seeds} networks in one program": partial(together, every),
        f"{config.seeds} networks one by one": lambda: [one(seed) for seed in every],
    }
    return (
        table("training, many seeds", interleave(systems, config.repeats), list(systems)[-1])
        + f"\n  (the one program compiles in {clock.compile_seconds:.2f} s)"
    )


def long(config: Config, peer: bool) -> str:
    """The gradient of a layer's last state, B=16, F=8, H=128, and the memory that it takes."""
    del peer
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
            compiled = program.compile()
            memory: Any = compiled.memory_analysis()
            mebibytes = memory.temp_size_in_bytes / 2**20
            systems[f"{name}: {mebibytes:.1f} MiB"] = partial(compiled, variables, inputs)
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
