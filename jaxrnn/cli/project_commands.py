"""The commands for several runs at once, and for new scripts: list."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True)
class List:
    """List the runs below a folder: task, cell, seeds, status, lowest loss."""

    folder: Positional[Path] = Path("runs")
    """The folder."""

    def __call__(self) -> None:
        from jaxrnn.cli import listing

        print(listing.list_runs(self.folder))
