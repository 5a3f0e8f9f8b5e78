"""Verbs over a run on disk: `python -m jaxrnn resume|verify|plot|info RUN_DIR`, and `doctor`."""

import os

# Before JAX is imported. On some processors jaxlib logs an error for each program that it loads
# from the compilation cache (jax issue 38445), though nothing is wrong.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from jaxrnn import cli


@dataclass(frozen=True)
class OfRun:
    """What most verbs are about."""

    run_dir: Positional[Path]
    """The run's directory."""


@dataclass(frozen=True)
class Resume(OfRun):
    """Go on with a run that broke off, from its last whole checkpoint."""

    def __call__(self) -> None:
        from jaxrnn import experiment

        print(experiment.resume(self.run_dir))


@dataclass(frozen=True)
class Verify(OfRun):
    """Train a run again, in memory, and say whether it came out the same; if not, exit code 1."""

    def __call__(self) -> None:
        from jaxrnn.verify import verify

        text, holds = verify(self.run_dir)
        print(text)
        if not holds:
            sys.exit(1)


@dataclass(frozen=True)
class Plot(OfRun):
    """Draw a run's picture anew, from its metrics.jsonl."""

    def __call__(self) -> None:
        from jaxrnn import experiment

        print(experiment.draw(self.run_dir))


@dataclass(frozen=True)
class Info(OfRun):
    """Say what a run is, how far it came, and how to go on."""

    def __call__(self) -> None:
        from jaxrnn.show import info

        print(info.of_run(self.run_dir))


@dataclass(frozen=True)
class Doctor:
    """Print what a report of a fault needs; exit code 1 if JAX computes wrong here."""

    def __call__(self) -> None:
        from jaxrnn.surroundings import doctor

        text, healthy = doctor.report()
        print(text)
        if not healthy:
            sys.exit(1)


if __name__ == "__main__":
    verbs = Resume | Verify | Plot | Info | Doctor
    cli.run(verbs, lambda verb: verb(), prog="python -m jaxrnn")
