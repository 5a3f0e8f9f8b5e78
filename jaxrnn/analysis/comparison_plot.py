"""The picture of several runs: one curve for each, with a band over its seeds."""

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from jaxrnn.analysis import plots
from jaxrnn.analysis.comparison import Compared, differing
from jaxrnn.text.characters import escape_unprintable
from jaxrnn.training.history import scalars

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#22313f")
"""Told apart by color-blind readers: Okabe and Ito (2008)."""

DASHES = ("-", "--", ":", "-.")  # one more kind after each round of colors
LONGEST_NAME = 60
LOSSES = ("loss", "validation_loss")
MOST_SETTINGS = 2  # in the legend; the table has more


def draw(path: Path, runs: Sequence[Compared], metric: str) -> None:
    """Draw a metric over the training steps: the median of the seeds, and the quartiles.

    A seed that stopped keeps its last value. Runs of other lengths end where they end.

    Args:
      path: the file to write.
      runs: two or more.
      metric: one that all runs have.

    Raises:
      OSError: if it cannot be written.
    """
    names = _labels(runs)
    text = metric + "".join(names)
    with plots.fonts_for(text) as labels:
        letters = dict(zip(text, labels, strict=True)) | {" ": " ", "\n": "\n"}
        figure = Figure(figsize=(7.2, 4.0 + 0.22 * len(runs)), layout="constrained")
        axis = figure.subplots()
        shown = [np.zeros(0)]
        for r, (name, run) in enumerate(zip(names, runs, strict=True)):
            steps, (low, median, high) = _band(run, metric)
            shown += [low, high]
            color, dashes = COLORS[r % len(COLORS)], DASHES[r // len(COLORS) % len(DASHES)]
            label = "".join(letters[c] for c in name)
            few = "o" if len(steps) < plots.FEWEST_POINTS else None
            axis.fill_between(steps, low, high, color=color, alpha=0.2, lw=0)
            axis.plot(
                steps, median, color=color, ls=dashes, lw=1.3, marker=few, ms=3.5, label=label
            )
        baselines = {each.manifest.get("memoryless_loss") for each in runs}
        baseline = baselines.pop() if len(baselines) == 1 else None
        if baseline is not None and metric in LOSSES:
            axis.axhline(
                baseline, color=plots.INK, ls=(0, (6, 3)), lw=1, label="memoryless baseline"
            )
            shown.append(np.array([baseline]))
        values = np.concatenate(shown)
        if metric in plots.LOGARITHMIC and values.size and values.min() >= 0 < values.max():
            plots.log_scale(axis)
        axis.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
        spread = "median and quartiles of the seeds" if _any_band(runs) else "one seed each"
        axis.set_xlabel("training step")
        axis.set_title(f"{metric.replace('_', ' ')}: {spread}", fontsize=11, loc="left")
        figure.legend(loc="outside lower center", fontsize=9, frameon=False)
        plots.write(figure, path)


def short_names(names: Sequence[str]) -> list[str]:
    """Return names without the folders that all of them start with, on short lines.

    >>> short_names(["runs/memory/0001", "runs/memory/0002"])
    ['0001', '0002']
    """
    folders = [Path(name).parent for name in names]
    is_mixed = len({folder.is_absolute() for folder in folders}) > 1
    common = "" if is_mixed else os.path.commonpath(folders)
    short = [os.path.relpath(name, common) if common else name for name in names]
    return ["\n".join(textwrap.wrap(name, LONGEST_NAME)) or name for name in short]


def _labels(runs: Sequence[Compared]) -> list[str]:
    """Return the runs' names, each with the first settings that differ and are not in the name."""
    names = short_names([each.name for each in runs])
    settings = list(differing(runs)[0].items())[:MOST_SETTINGS]
    labels = []
    for r, name in enumerate(names):
        named = [(key, escape_unprintable(values[r])) for key, values in settings]
        parts = [
            value if key in ("task", "cell") else f"{key.replace('_', ' ')} {value}"
            for key, value in named
            if f"{key}={value}" not in name
        ]
        labels.append(f"{name}: {', '.join(parts)}" if parts else name)
    return labels


def _any_band(runs: Sequence[Compared]) -> bool:
    return any(len(each.history.seeds) > 1 for each in runs)


def _band(run: Compared, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return steps [P], and the quartiles of a metric there, [3, P]."""
    values = scalars(run.history.values)[metric]  # [S, R]
    diverged = run.manifest.get("diverged", {})
    for s, seed in enumerate(run.history.seeds.tolist()):
        if seed in run.ends() and str(seed) not in diverged and np.isfinite(values[s]).any():
            last = np.flatnonzero(np.isfinite(values[s]))[-1]
            values[s, last:] = values[s, last]
    measured = np.isfinite(values).any(axis=0)
    steps, (_, *spread, _) = plots.points(run.history.steps[measured], values[:, measured])
    if len(values) == 1:  # the extremes of several rows are no band over seeds
        spread = [spread[1]] * 3
    return steps, np.array(spread)
