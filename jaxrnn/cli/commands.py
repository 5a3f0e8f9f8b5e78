"""The command `jaxrnn`: what it does with one run, and `doctor`; `project_commands` has others."""

import os

# Before JAX is imported: on some processors jaxlib logs a false alarm for each program that it
# loads from the compilation cache (jax issue 38445).
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from jaxrnn.cli import entry
from jaxrnn.cli.project_commands import Compare, Completion, List, New
from jaxrnn.errors import SettingError
from jaxrnn.text.characters import escape_unprintable
from jaxrnn.training.processes import Processes, is_first


@dataclass(frozen=True)
class OfRun:
    """The argument shared by most commands."""

    run_dir: Positional[Path]
    """The run's directory."""


@dataclass(frozen=True)
class Resume(OfRun):
    """Resume an interrupted run, or a sweep, from its newest intact checkpoint."""

    mesh: str | None = None
    """Devices to use, such as seed=2 or data=2; by default those it used before, if they exist."""
    processes: Annotated[Processes, tyro.conf.arg(name="")] = Processes()

    def __call__(self) -> None:
        from jaxrnn.analysis import plots, report, sweep_table
        from jaxrnn.runs import runner, sweep, sweep_results
        from jaxrnn.training.mesh import MeshShape

        if sweep_results.is_sweep(self.run_dir):
            if self.mesh:
                raise SettingError("--mesh is for a single run; a sweep keeps its own")
            print(sweep_table.summarize(sweep.resume_sweep(self.run_dir)))
            return
        mesh = MeshShape.parse(self.mesh) if self.mesh else None
        result = runner.resume(self.run_dir, mesh=mesh)
        if is_first():
            print(report.summarize(result))
            plots.plot_run(self.run_dir)


@dataclass(frozen=True)
class Verify(OfRun):
    """Train a run, or a sweep, again in memory and compare it; exit code 1 if it differs."""

    def __call__(self) -> None:
        from jaxrnn.runs.verification import verify

        verdict = verify(self.run_dir)
        print(verdict.text)
        if not verdict.holds:
            sys.exit(1)


@dataclass(frozen=True)
class Evaluate(OfRun):
    """Score all networks of a run on its validation or test part, or on another text."""

    split: Literal["val", "test"] = "val"
    """The part of the data."""
    text: Path | None = None
    """Another text for a language model, scored as a whole."""
    final: bool = False
    """Score the final, not the best, parameters."""

    def __call__(self) -> None:
        from jaxrnn.analysis import report
        from jaxrnn.runs.evaluation import evaluate

        result = evaluate(self.run_dir, self.split, self.text, final=self.final)
        print(report.summarize_evaluation(result))


@dataclass(frozen=True)
class Plot(OfRun):
    """Draw curves.png again from metrics.jsonl."""

    def __call__(self) -> None:
        from jaxrnn.analysis import plots

        print(escape_unprintable(str(plots.plot_run(self.run_dir))))


@dataclass(frozen=True)
class Info(OfRun):
    """Describe a run: settings, progress, and how to resume it. Of a sweep, print the table."""

    def __call__(self) -> None:
        from jaxrnn.cli import info
        from jaxrnn.runs import sweep_results

        describe = info.of_sweep if sweep_results.is_sweep(self.run_dir) else info.of_run
        print(describe(self.run_dir))


@dataclass(frozen=True)
class Sample(OfRun):
    """Generate text with a trained language model; the same arguments give the same text."""

    prompt: str | None = None
    """The text to continue; by default a line break."""
    num_tokens: int = 500
    """How many tokens to generate: characters, bytes or jamo."""
    temperature: float = 1.0
    """Divides the logits: below 1 sharpens the distribution, above 1 flattens it, 0 is greedy."""
    top_k: int | None = None
    """Sample from the k most likely tokens."""
    top_p: float | None = None
    """Sample from the smallest set of tokens with this total probability."""
    seed: int = 0
    """Seed of the sampling."""
    samples: int = 1
    """How many texts to generate."""
    beams: int | None = None
    """Search for the most likely text with this many beams, instead of sampling."""
    model_seed: int | None = None
    """Use the network of this seed; by default the one with the lowest validation loss."""
    final: bool = False
    """Use the final, not the best, parameters."""

    def __call__(self) -> None:
        from jaxrnn.runs.text_generation import generate_text
        from jaxrnn.text.sampling import Sampling

        pieces = generate_text(
            self.run_dir,
            self.prompt,
            self.num_tokens,
            Sampling(self.temperature, self.top_k, self.top_p),
            seed=self.seed,
            samples=self.samples,
            beams=self.beams,
            model_seed=self.model_seed,
            final=self.final,
        )
        for piece in pieces:
            print(piece, end="", flush=True)


@dataclass(frozen=True)
class Visualize(OfRun):
    """Make a web page: how the cells of a trained language model read a text, and how it writes."""

    text: str
    """A file, or the text itself."""
    max_tokens: int = 2000
    """Show at most this many tokens from the start of the text."""
    out: Path | None = None
    """Where to write the page; by default visualize.html in the run's directory."""
    model_seed: int | None = None
    """Use the network of this seed; by default the one with the lowest validation loss."""
    final: bool = False
    """Use the final, not the best, parameters."""

    def __call__(self) -> None:
        from jaxrnn.analysis.visualize import visualize

        options = {"model_seed": self.model_seed, "final": self.final}
        page = visualize(self.run_dir, self.text, self.max_tokens, self.out, **options)
        print(escape_unprintable(str(page)))


@dataclass(frozen=True)
class Export(OfRun):
    """Write a trained network as a file for other programs, with a README and its vocabulary."""

    to: Annotated[str, tyro.conf.arg(metavar="{onnx,stablehlo,safetensors,torch}")]
    """The format."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """The file; by default one in RUN_DIR/export."""
    model_seed: int | None = None
    """Use the network of this seed; by default the one with the lowest validation loss."""
    final: bool = False
    """Use the final, not the best, parameters."""

    def __call__(self) -> None:
        from jaxrnn.export.run import export_run

        options: dict[str, Any] = {"model_seed": self.model_seed, "final": self.final}
        for path in export_run(self.run_dir, self.to, self.out, **options):
            print(escape_unprintable(str(path)))


@dataclass(frozen=True)
class Doctor:
    """Print what a bug report needs; exit code 1 if JAX computes wrong numbers here."""

    def __call__(self) -> None:
        from jaxrnn.cli import doctor

        text, healthy = doctor.report()
        print(text)
        if not healthy:
            sys.exit(1)


OF_RUN = Resume | Verify | Evaluate | Plot | Info | Sample | Visualize | Export
COMMANDS = OF_RUN | List | Compare | New | Completion | Doctor


def main() -> None:
    """The console command `jaxrnn`."""
    name = "python -m jaxrnn" if Path(sys.argv[0]).name == "__main__.py" else "jaxrnn"
    entry.run_command(COMMANDS, lambda command: command(), prog=name)
