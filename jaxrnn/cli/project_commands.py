"""The commands for several runs at once, and for new scripts: list, compare."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from jaxrnn.choices import check_choice
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
