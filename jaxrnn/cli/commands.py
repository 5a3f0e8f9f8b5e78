"""Verbs over a run on disk: `python -m jaxrnn resume|verify|plot|info|sample|show`; `doctor`."""

import os

# Before JAX is imported. On some processors jaxlib logs an error for each program that it loads
# from the compilation cache (jax issue 38445), though nothing is wrong.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from jaxrnn.cli import entry


@dataclass(frozen=True)
class OfRun:
    """What most verbs are about."""

    run_dir: Positional[Path]
    """The run's directory."""


@dataclass(frozen=True)
class Resume(OfRun):
    """Go on with a run that broke off, from its last whole checkpoint."""

    def __call__(self) -> None:
        from jaxrnn.analysis import plots, report
        from jaxrnn.runs import runner

        print(report.summarize(runner.resume(self.run_dir)))
        plots.plot_run(self.run_dir)


@dataclass(frozen=True)
class Verify(OfRun):
    """Train a run again, in memory, and say whether it came out the same; if not, exit code 1."""

    def __call__(self) -> None:
        from jaxrnn.runs.verification import verify

        text, holds = verify(self.run_dir)
        print(text)
        if not holds:
            sys.exit(1)


@dataclass(frozen=True)
class Plot(OfRun):
    """Draw a run's picture anew, from its metrics.jsonl."""

    def __call__(self) -> None:
        from jaxrnn.analysis import plots

        print(plots.plot_run(self.run_dir))


@dataclass(frozen=True)
class Info(OfRun):
    """Say what a run is, how far it came, and how to go on."""

    def __call__(self) -> None:
        from jaxrnn.cli import info

        print(info.of_run(self.run_dir))


@dataclass(frozen=True)
class Sample(OfRun):
    """Write new text with a trained language model; the same arguments give the same text."""

    prompt: str | None = None
    """What it goes on from; without it, from a line break."""
    length: int = 500
    """How many characters to write (or bytes, or jamo)."""
    temperature: float = 1.0
    """Below 1 the likely becomes likelier, above 1 less so; 0 always takes the likeliest."""
    top_k: int | None = None
    """Draw among so many of the likeliest only."""
    top_p: float | None = None
    """Draw among the fewest likeliest that have this probability together."""
    seed: int = 0
    """Seed of the drawing."""
    samples: int = 1
    """How many texts."""
    beams: int | None = None
    """Draw nothing: search for the likeliest text, with so many beams."""
    network: int | None = None
    """The seed of the network that writes; without it, the best of the run."""
    last: bool = False
    """Let it write as it was at the end of the training, not when it was best."""

    def __call__(self) -> None:
        from jaxrnn.runs.text_generation import generate_text
        from jaxrnn.text.sampling import Sampling

        pieces = generate_text(
            self.run_dir,
            self.prompt,
            self.length,
            Sampling(self.temperature, self.top_k, self.top_p),
            seed=self.seed,
            samples=self.samples,
            beams=self.beams,
            model_seed=self.network,
            final=self.last,
        )
        for piece in pieces:
            print(piece, end="", flush=True)


@dataclass(frozen=True)
class Show(OfRun):
    """Make a web page of a text as a trained language model reads it: its cells and its guesses."""

    text: str
    """A file, or the text itself."""
    length: int = 2000
    """How many characters of it to show, from its beginning."""
    out: Path | None = None
    """Where to write the page; without it, show.html in the run's directory."""
    network: int | None = None
    """The seed of the network; without it, the best of the run."""
    last: bool = False
    """As it was at the end of the training, not when it was best."""

    def __call__(self) -> None:
        from jaxrnn.analysis.visualize import visualize

        print(visualize(self.run_dir, self.text, self.length, self.out, self.network, self.last))


@dataclass(frozen=True)
class Doctor:
    """Print what a report of a fault needs; exit code 1 if JAX computes wrong here."""

    def __call__(self) -> None:
        from jaxrnn.cli import doctor

        text, healthy = doctor.report()
        print(text)
        if not healthy:
            sys.exit(1)


def main() -> None:
    """The console command `jaxrnn`."""
    verbs = Resume | Verify | Plot | Info | Sample | Show | Doctor
    entry.run_command(verbs, lambda verb: verb(), prog="python -m jaxrnn")
