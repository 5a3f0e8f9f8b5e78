"""Time jaxrnn beside its peers, in one run: layers, train steps, many seeds, whole processes.

The peers are what `pip install -e '.[bench]'` brings; one that is not installed is named and left
out. Runs are interleaved, A B A B, because shared machines change speed. A ratio is what a system
took as a multiple of what the first took in the same turn: its median and quartiles over the turns.
"""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from suites import harness, lab, language, layer, peers, picture, scaling, seeds
from suites.timing import Row, table

from jaxrnn import cli
from jaxrnn.checks import check_counts
from jaxrnn.errors import SettingError
from jaxrnn.runs.files import write_json
from jaxrnn.text.characters import escape_unprintable

Suite = Literal["layer", "train", "training", "seeds", "startup", "scaling", "overhead", "study"]

PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Config:
    """Time jaxrnn beside its peers and beside itself."""

    suite: Literal["all"] | Suite = "all"
    """layer: one layer, forward and backward; train: a step of a language model; training: the 50
    steps of hihello; seeds: many networks at once; startup: the whole process of hihello; scaling:
    time, memory and compilation against the sizes, and long sequences in chunks; overhead: a run
    with all that it writes, beside its bare loop; study: many seeds as one process, beside one a
    seed."""
    repeats: int = 9
    """Counted turns of each system, after a call that is not counted."""
    json: Path | None = None
    """A file for the rows: suite, case, measure, system, seconds and ratios."""
    plot: Path | None = None
    """A file for a picture of the ratios: PNG, SVG or PDF."""
    seeds: int = 1000
    """Networks of hihello in the suite `seeds`."""
    models: int = 64
    """Language models in the suite `seeds`."""
    longest: int = 4096
    """Time steps of the longest sequence of the suite `scaling`."""
    steps: int = 1000
    """Training steps of the suite `overhead`."""
    study_seeds: int = 256
    """Networks of the suite `study`."""
    study_steps: int = 500
    """Training steps of the suite `study`."""

    def __post_init__(self) -> None:
        counts = "repeats", "seeds", "models", "longest", "steps", "study_seeds", "study_steps"
        check_counts(self, *counts)
        if self.longest < 16:
            raise ValueError("longest must be at least 16")
        if self.plot is not None and self.plot.suffix not in PICTURES:
            raise ValueError(f"plot must end in one of {', '.join(PICTURES)}")


def main(config: Config) -> None:
    """Print a table for each measurement as it is made, then write what was asked for."""
    for path in (config.json, config.plot):
        if path is not None and not path.parent.is_dir():  # said now, not after the work
            raise SettingError(
                f"there is no folder {escape_unprintable(str(path.parent))}: make it first"
            )
        if path is not None and (path.is_dir() or not os.access(path.parent, os.W_OK)):
            raise SettingError(
                f"{escape_unprintable(str(path))} cannot be written: name another file"
            )
    absent = peers.missing()
    if absent:
        print(f"not installed, so left out: {', '.join(absent)} (pip install -e '.[bench]')")
    measured: list[Row] = []
    suites = {
        "layer": layer.layer,
        "train": language.train,
        "training": lab.training,
        "seeds": partial(seeds.seeds, networks=config.seeds, models=config.models),
        "startup": lab.startup,
        "scaling": partial(scaling.scaling, longest=config.longest),
        "overhead": partial(harness.overhead, steps=config.steps),
        "study": partial(harness.study, seeds=config.study_seeds, steps=config.study_steps),
    }
    for name in suites if config.suite == "all" else [config.suite]:
        made: Iterable[list[Row] | str] = suites[name](config.repeats)
        for part in made:
            if isinstance(part, str):
                print(f"  ({part})", flush=True)
            else:
                print(table(part), flush=True)
                measured += part
            if config.json is not None:  # after each, so that a run cut short leaves what it has
                write_json(config.json, [asdict(row) for row in measured])
    if config.plot is not None:
        picture.ratios(config.plot, measured)


if __name__ == "__main__":
    cli.run_command(Config, main)
