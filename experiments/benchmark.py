"""Time jaxrnn and its peers in one run: layers, train steps, many seeds, whole processes.

`pip install -e '.[bench]'` installs the peers; those that are missing are named and left out. The
systems take turns, A B A B, because shared machines change speed. A ratio is a system's time
relative to the first system in the same turn; the table has its median and quartiles over turns.
"""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
from suites import (
    gpu,
    harness,
    lab,
    language,
    layer,
    mesh,
    peers,
    picture,
    products,
    ragged,
    scaling,
    seeds,
)
from suites.timing import Row, table

from jaxrnn import cli
from jaxrnn.checks import check_counts
from jaxrnn.errors import SettingError
from jaxrnn.runs.files import write_json
from jaxrnn.text.characters import escape_unprintable

Suite = Literal[
    "products",
    "layer",
    "ragged",
    "resets",
    "train",
    "mesh",
    "training",
    "seeds",
    "startup",
    "scaling",
    "overhead",
    "sweep",
    "gpu",
]

PLOTS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Config:
    """Time jaxrnn and its peers."""

    suite: Literal["all"] | Suite = "all"
    """products: matrix products by shape; layer: one layer, forward and backward; ragged: the same
    with rows of random lengths; resets: with several episodes in a row; train: a train step of a
    language model; mesh: the same on several devices, and as a cost model predicts it; training:
    the 50 steps of hihello; seeds: many networks at once; startup: the whole process of hihello;
    scaling: time, memory and compilation over sizes, and long sequences; overhead: a run with
    metrics and checkpoints against its bare loop; sweep: one process for many seeds against one
    process per seed; gpu, which `all` leaves out: layers, train steps and many seeds of sizes for a
    GPU."""
    repeats: int = 9
    """Timed turns of each system."""
    json: Path | None = None
    """Write the measurements to this JSON file."""
    plot: Path | None = None
    """Write a plot of the ratios to this PNG, SVG or PDF file."""
    seeds: int = 1000
    """Networks of hihello in the seeds suite."""
    models: int = 64
    """Language models in the seeds suite."""
    longest: int = 4096
    """Time steps of the longest sequence in the scaling suite."""
    steps: int = 1000
    """Training steps of the overhead suite."""
    sweep_seeds: int = 256
    """Networks of the sweep suite."""
    sweep_steps: int = 500
    """Training steps of the sweep suite."""

    def __post_init__(self) -> None:
        counts = "repeats", "seeds", "models", "longest", "steps", "sweep_seeds", "sweep_steps"
        check_counts(self, *counts)
        if self.longest < 16:
            raise ValueError("longest must be at least 16")
        if self.plot is not None and self.plot.suffix not in PLOTS:
            raise ValueError(f"plot must end in one of {', '.join(PLOTS)}")


def main(config: Config) -> None:
    """Print a table after each measurement, and write the files that were asked for."""
    for path in (config.json, config.plot):
        if path is not None and not path.parent.is_dir():  # fail before the measurements
            raise SettingError(
                f"there is no folder {escape_unprintable(str(path.parent))}: create it first"
            )
        if path is not None and (path.is_dir() or not os.access(path.parent, os.W_OK)):
            raise SettingError(
                f"{escape_unprintable(str(path))} cannot be written: name another file"
            )
    settings: Any = jax.config
    if settings.jax_disable_jit:
        raise SettingError("JAX_DISABLE_JIT is set: benchmarks time compiled programs, so unset it")
    if config.suite == "gpu":
        gpu.require_device()
    absent = peers.missing()
    if absent:
        print(f"left out, not installed: {', '.join(absent)} (pip install -e '.[bench]')")
    measured: list[Row] = []
    suites = {
        "products": products.products,
        "layer": layer.layer,
        "ragged": ragged.ragged,
        "resets": ragged.resets,
        "train": language.train,
        "mesh": mesh.mesh,
        "training": lab.training,
        "seeds": partial(seeds.seeds, networks=config.seeds, models=config.models),
        "startup": lab.startup,
        "scaling": partial(scaling.scaling, longest=config.longest),
        "overhead": partial(harness.overhead, steps=config.steps),
        "sweep": partial(harness.sweep, seeds=config.sweep_seeds, steps=config.sweep_steps),
    }
    on_gpu = {"gpu": gpu.gpu}
    for name in suites if config.suite == "all" else [config.suite]:
        parts: Iterable[list[Row] | str] = (suites | on_gpu)[name](config.repeats)
        for part in parts:
            if isinstance(part, str):
                print(f"  ({part})", flush=True)
            else:
                print(table(part), flush=True)
                measured += part
            if config.json is not None:  # after each part, in case the run is interrupted
                write_json(config.json, [asdict(row) for row in measured])
    if config.plot is not None:
        picture.ratios(config.plot, measured)


if __name__ == "__main__":
    cli.run_command(Config, main)
