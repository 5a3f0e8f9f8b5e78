"""A plot of a benchmark's ratios."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from suites.timing import PRODUCT, Row

COLORS = (
    *("#22313f", "#c8553d", "#588157", "#7b6d8d", "#d4a017"),
    *("#3d7ea6", "#8a8a8a", "#8c2f39", "#e58fb1", "#5fb7b0"),
)


def ratios(path: Path, measured: Sequence[Row]) -> None:
    """Plot each system's time relative to the first, in a panel for each suite and measure.

    A dot is the median, and the line through it spans the quartiles. Compilation, memory and the
    machine's matmul rate are left out.

    Args:
      path: the file to write; its suffix chooses the format.
      measured: rows of one or more suites.
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
            # Spread within a case's row, so that none hides another.
            places = [names.index(row.case) + 0.6 * ((n + 0.5) / len(systems) - 0.5) for row in own]
            color = COLORS[n % len(COLORS)]
            lows, highs = [row.ratio_low for row in own], [row.ratio_high for row in own]
            axis.hlines(places, lows, highs, color=color)
            axis.plot([row.ratio for row in own], places, "o", ms=4, color=color, label=system)
        axis.axvline(1.0, color=COLORS[0], lw=0.8, zorder=0)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.xaxis.set_minor_formatter(FuncFormatter(lambda x, _: f"{x:g}" if _is_round(x) else ""))
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set_title(f"{suite}: {measure}", loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes[-1].set_xlabel("time relative to the first system")
    figure.savefig(path, dpi=110)


def _by_panel(rows: Sequence[Row]) -> list[Row]:
    keys = list(dict.fromkeys((row.suite, row.measure) for row in rows))
    return sorted(rows, key=lambda row: keys.index((row.suite, row.measure)))


def _is_round(x: float) -> bool:
    return f"{x:e}"[0] in "25"
