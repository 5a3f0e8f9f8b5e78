"""The ratios of a benchmark as a picture."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from suites.timing import PRODUCT, Row

COLOURS = (
    *("#22313f", "#c8553d", "#588157", "#7b6d8d", "#d4a017"),
    *("#3d7ea6", "#8a8a8a", "#8c2f39", "#e58fb1", "#5fb7b0"),
)


def ratios(path: Path, measured: Sequence[Row]) -> None:
    """A panel for each suite and measure: what each system took, the first of its case being 1.

    A mark is the median, a line behind it goes from the first quartile to the third. Compilation,
    memory and the machine's own rate are left to the table.

    Args:
      path: the picture to write; its ending says of what kind.
      measured: rows of one suite or more, each measurement's together; some of them are drawn.
    """
    timed = [
        row
        for row in measured
        if row.bytes is None and "compiling" not in row.measure and row.measure != PRODUCT
    ]
    panels = [
        (key, list(rows)) for key, rows in groupby(_by_panel(timed), lambda r: (r.suite, r.measure))
    ]
    cases = [list(dict.fromkeys(row.case for row in rows)) for _, rows in panels]
    heights = [0.9 + 0.42 * len(names) for names in cases]
    figure = Figure(figsize=(9.6, 0.4 + sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axis, ((suite, measure), rows), names in zip(axes, panels, cases, strict=True):
        systems = list(dict.fromkeys(row.system for row in rows))
        for n, system in enumerate(systems):
            own = [row for row in rows if row.system == system]
            # Side by side within a case's line, so that none hides another.
            places = [names.index(row.case) + 0.6 * ((n + 0.5) / len(systems) - 0.5) for row in own]
            colour = COLOURS[n % len(COLOURS)]
            lows, highs = [row.ratio_low for row in own], [row.ratio_high for row in own]
            axis.hlines(places, lows, highs, color=colour)
            axis.plot([row.ratio for row in own], places, "o", ms=4, color=colour, label=system)
        axis.axvline(1.0, color=COLOURS[0], lw=0.8, zorder=0)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.xaxis.set_minor_formatter(FuncFormatter(lambda x, _: f"{x:g}" if _is_round(x) else ""))
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set_title(f"{suite}: {measure}", loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes[-1].set_xlabel("time, as a multiple of the first system's")
    figure.savefig(path, dpi=110)


def _by_panel(rows: Sequence[Row]) -> list[Row]:
    keys = list(dict.fromkeys((row.suite, row.measure) for row in rows))
    return sorted(rows, key=lambda row: keys.index((row.suite, row.measure)))


def _is_round(x: float) -> bool:
    return f"{x:e}"[0] in "25"
