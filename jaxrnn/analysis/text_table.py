"""Tables in plain text, also of Korean, whose letters are two columns wide."""

import shutil
import sys
from collections.abc import Sequence

from rich.cells import cell_len


def format_table(lines: Sequence[Sequence[str]]) -> list[str]:
    r"""Pad the words of each line to columns.

    >>> print(*format_table([["run", "task"], ["runs/한/1", "adding"]]), sep="\n")
    run        task
    runs/한/1  adding
    """
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            word + " " * (width - cell_len(word)) for word, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    ]


def fit_table(lines: Sequence[Sequence[str]], columns: int | None) -> list[str]:
    """Return a table, or a paragraph for each of its lines if the terminal is too narrow for it.

    Args:
      lines: the heads, then a line for each thing that is named in the first column.
      columns: of the terminal; None for no limit.

    >>> fit_table([["run", "task", "cell"], ["a", "copy", "GRU 8"]], 10)
    ['a', '  task: copy', '  cell: GRU 8']
    """
    table = format_table(lines)
    if columns is None or max(map(cell_len, table)) <= columns:
        return table
    heads, *rows = lines
    return [
        line
        for name, *words in rows
        for line in (name, *(f"  {h}: {w}" for h, w in zip(heads[1:], words, strict=True)))
    ]


def terminal_columns() -> int | None:
    """Return the width of the terminal; None if standard output is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
