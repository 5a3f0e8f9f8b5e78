"""The command `jaxrnn list`: a line for each run below a folder."""

import math
from collections.abc import Sequence
from pathlib import Path

from rich.cells import cell_len

from jaxrnn.analysis.text_table import format_table, terminal_columns
from jaxrnn.runs import catalogue
from jaxrnn.runs.catalogue import Entry
from jaxrnn.text.characters import escape_unprintable

HEADS = ("run", "task", "cell", "seeds", "status", "best loss")
ENDED = ("finished", "diverged")


def list_runs(folder: Path) -> str:
    """Return a table of the runs below a folder, or that there are none.

    A terminal that is too narrow for the table gets two lines for each run.

    Raises:
      FileNotFoundError: if there is no such folder.
    """
    if folder == Path("runs") and not folder.exists():
        return "There are no runs here: there is no folder runs."
    entries = list(catalogue.find(folder))
    if not entries:
        return f"There are no runs in {escape_unprintable(str(folder))}."
    return format_entries(entries, terminal_columns())


def format_entries(entries: Sequence[Entry], columns: int | None) -> str:
    """Return the entries as text.

    Args:
      entries: at least one.
      columns: how many the terminal has; None for no limit.

    >>> run = Entry(Path("runs/a"), "", "adding", "GRU 8", 1, "finished", 0, 9, 9, 0.25)
    >>> print(format_entries([run, Entry(Path("runs/b"), "not a run")], None))
    run     task    cell   seeds  status    best loss
    runs/a  adding  GRU 8  1      finished  0.25
    runs/b  not a run
    >>> print(format_entries([run], 30))
    runs/a
      adding, GRU 8, 1 seed, finished, best loss 0.25
    """
    paths = [escape_unprintable(str(each.path)) for each in entries]
    rows = [[path, *_row(each)] for path, each in zip(paths, entries, strict=True)]
    runs = [row for row, each in zip(rows, entries, strict=True) if not each.problem]
    widest = max(map(cell_len, paths))
    heads = [HEADS[0].ljust(widest), *HEADS[1:]]
    table = format_table([heads, *runs])
    if columns is None or max(map(cell_len, table)) <= columns:
        lines = iter(table if runs else table[1:])
        padded = [path + " " * (widest - cell_len(path)) for path in paths]
        body = [
            f"{path}  {escape_unprintable(each.problem)}" if each.problem else None
            for path, each in zip(padded, entries, strict=True)
        ]
        shown = [next(lines)] if runs else []
        return "\n".join(shown + [next(lines) if line is None else line for line in body])
    return "\n".join(
        f"{path}\n  {escape_unprintable(each.problem) or _sentence(row)}"
        for path, each, row in zip(paths, entries, rows, strict=True)
    )


def _row(entry: Entry) -> list[str]:
    status = entry.status
    if status not in ENDED:
        status += f" at {entry.step} of {entry.steps}"
    elif entry.diverged and status == "finished":
        status += f", {entry.diverged} diverged"
    best = "-" if math.isnan(entry.best) else f"{entry.best:.4g}"
    if entry.is_validated and not math.isnan(entry.best):
        best += " (validation)"
    return [entry.task, entry.cell, str(entry.seeds), status, best]


def _sentence(row: Sequence[str]) -> str:
    _, task, cell, seeds, status, best = row
    parts = [task, cell, f"{seeds} seed{'s' * (seeds != '1')}", status, f"best loss {best}"]
    return ", ".join(filter(None, parts))
