"""Commands for several runs, for new scripts and for the shell: list, compare, new, completion."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from jaxrnn.choices import check_choice
from jaxrnn.cli import parsing
from jaxrnn.cli.parsing import SHELLS
from jaxrnn.text.characters import escape_unprintable

PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class List:
    """List the runs below a folder: task, cell, seeds, status, lowest loss."""

    folder: Positional[Path] = Path("runs")
    """The folder."""

    def __call__(self) -> None:
        from jaxrnn.cli import listing

        print(listing.list_runs(self.folder))


@dataclass(frozen=True)
class Compare:
    """Compare runs: a table of what differs and what became of it, and a picture of the curves."""

    run_dirs: Positional[tuple[Path, ...]]
    """The directories of two runs or more; that of a sweep stands for all of its runs."""
    metric: str | None = None
    """The metric; by default the validation loss, or the training loss if a run has none."""
    out: Path = Path("compare.png")
    """The picture to write: .png, .svg or .pdf."""

    def __call__(self) -> None:
        from jaxrnn.analysis import comparison, text_table

        check_choice("the ending of --out", self.out.suffix, PICTURES)
        runs = comparison.read(self.run_dirs)
        metric = comparison.choose_metric(runs, self.metric)
        print(comparison.table(runs, metric, text_table.terminal_columns()), flush=True)
        from jaxrnn.analysis import comparison_plot  # Matplotlib takes a second to import

        comparison_plot.draw(self.out, runs, metric)
        print(f"The picture is {escape_unprintable(str(self.out))}.")


@dataclass(frozen=True)
class New:
    """Write a short script with a task of its own, to start from; it runs as it is."""

    file: Positional[Path]
    """The script to write, such as my_study.py."""

    def __call__(self) -> None:
        from jaxrnn.cli import new_script

        new_script.write(self.file)
        name = escape_unprintable(shlex.quote(str(self.file)))
        print(f"Written: {name}. Run it with: python {name} (--help lists its options).")


@dataclass(frozen=True)
class Completion:
    """Print a shell's completion of this command: of commands, options, their values, and files."""

    shell: Positional[Annotated[str, tyro.conf.arg(metavar="{" + ",".join(SHELLS) + "}")]]
    """The shell."""

    def __call__(self) -> None:
        from jaxrnn.cli.commands import COMMANDS

        check_choice("the shell", self.shell, SHELLS)
        print(parsing.completion(COMMANDS, "jaxrnn", self.shell), end="")
