"""Tables in plain text, also of Korean, whose letters are two columns wide."""

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
