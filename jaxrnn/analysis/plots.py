"""Plots, drawn from plain arrays. Import this only where needed: Matplotlib takes a second."""

import math
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxrnn.analysis import fonts
from jaxrnn.errors import RunError
from jaxrnn.runs import metrics, run_directory, run_metadata
from jaxrnn.training.history import quantiles, scalars
from jaxrnn.training.validation import PREFIX

INK, ACCENT = "#22313f", "#c8553d"
MOST_POSITIONS = 24  # legible characters along an axis
MOST_UNITS = 64  # hidden units along an axis
WIDEST = 15.0  # inches; panels that do not fit go into a new row
MOST_POINTS = 500  # of a curve; with more rows, each point is a median of several
FEWEST_POINTS = 20  # curves with fewer points have markers
LOGARITHMIC = ("loss", "validation_loss", "grad_norm")


def plot_run(run_dir: Path | str) -> Path:
    """Draw the metrics of a run from its metrics.jsonl as `curves.png`; return the file.

    Raises:
      RunError: if nothing has been logged, or metrics.jsonl is damaged.
      OSError: if there is no metrics.jsonl, or the plot cannot be written.
    """
    run_dir = Path(run_dir)
    file, path = run_dir / run_directory.METRICS, run_dir / run_directory.PICTURE
    history = metrics.read(file)
    if not history.steps.size:
        raise RunError(f"{file} has no lines yet, so there is nothing to plot")
    title = "/".join(run_dir.resolve().parts[-2:])
    curves(path, history.steps, history.values, run_metadata.memoryless_loss(run_dir), title)
    return path


def curves(
    path: Path,
    steps: np.ndarray,
    metrics_by_name: Mapping[str, np.ndarray],
    memoryless_loss: float | None,
    title: str,
) -> None:
    """Plot each metric over the training steps, in a panel of its own.

    For several seeds: the median, the quartiles, and the 5th to 95th percentile of finite values.

    Args:
      path: the PNG file to write.
      steps: [R] int, the logged steps.
      metrics_by_name: [S, R] each; metrics with more axes are left out.
      memoryless_loss: the loss of the best predictor without memory; None if unknown.
      title: the title.
    """
    panels = scalars(metrics_by_name)
    columns = 1 if len(panels) <= 3 else 2  # legible at small sizes
    lines = math.ceil(len(panels) / columns)
    text = title + "".join(panels)
    with fonts_for(text) as labels:
        letters = dict(zip(text, labels, strict=True)) | {" ": " "}
        figure = Figure(
            figsize=(6.4 if columns == 1 else 9.6, 1.1 + 2.2 * lines), layout="constrained"
        )
        grid = figure.subplots(lines, columns, sharex=True, squeeze=False)
        for axis in grid.flat[len(panels) :]:
            axis.set_axis_off()
        rows = -(-len(steps) // MOST_POINTS)
        each = f" (each point is the median of {rows} rows)" if rows > 1 else ""
        for i, (axis, (name, values)) in enumerate(zip(grid.flat, panels.items(), strict=False)):
            measured = np.isfinite(values).any(axis=0) | (not name.startswith(PREFIX))
            _curve_panel(axis, steps[measured], values[:, measured])
            shown = values[np.isfinite(values)]
            if name == "loss" and memoryless_loss is not None:
                axis.axhline(
                    memoryless_loss, color=ACCENT, ls="--", lw=1.2, label="memoryless baseline"
                )
                shown = np.append(shown, memoryless_loss)
            if name in LOGARITHMIC and shown.size and shown.min() >= 0 < shown.max():
                log_scale(axis)
            axis.set_title("".join(letters[c] for c in name), fontsize=10, loc="left")
            if i + columns >= len(panels):  # the last in its column
                axis.set_xlabel("training step" + each)
                axis.tick_params(labelbottom=True)
        wrapped = textwrap.wrap("".join(letters[c] for c in title), 70 * columns)
        figure.suptitle("\n".join(wrapped), fontsize=11)
        handles, names = grid[0, 0].get_legend_handles_labels()
        figure.legend(
            handles,
            names,
            loc="outside lower center",
            ncols=4,
            fontsize=9,
            columnspacing=1.2,
            frameon=False,
        )
        write(figure, path)


def _curve_panel(axis: Axes, steps: np.ndarray, values: np.ndarray) -> None:
    """Plot one curve with its bands: values [S, R]."""
    several, thinned = len(values) > 1, len(steps) > MOST_POINTS
    x, (low, first, median, third, high) = points(steps, values)
    bands = []
    if several or thinned:
        name = "5% to 95% of seeds" if several else "lowest to highest"
        bands.append((low, high, 0.12 if several else 0.25, name))
    if several:
        bands.append((first, third, 0.25, "quartiles"))
    there = np.isfinite(median)
    before, after = np.append(False, there[:-1]), np.append(there[1:], False)
    lone = there & ~before & ~after  # a single point has no visible line or band
    for bottom, top, alpha, name in bands:
        axis.fill_between(x, bottom, top, color=INK, alpha=alpha, lw=0, label=name)
        axis.vlines(x[lone], bottom[lone], top[lone], color=INK, alpha=alpha, lw=6)
    finite = "" if np.isfinite(values).all() else " of the finite"
    axis.plot(x, median, color=INK, lw=1.2, label="median" + finite if several else None)
    dots = there if len(x) < FEWEST_POINTS else lone
    axis.plot(x[dots], median[dots], "o", color=INK, ms=3.5)
    if not there.any():
        axis.text(0.5, 0.5, "never finite", transform=axis.transAxes, ha="center", color=ACCENT)
        axis.set_yticks([])
    axis.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    if len(steps) == 1:
        axis.set_xticks(steps)
    if len(steps) and steps[-1] >= 10_000:
        axis.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))


def points(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return percentiles over the seeds, at no more steps than are visible.

    Args:
      steps: [R].
      values: [S, R].

    Returns:
      steps [P], and percentiles 5, 25, 50, 75, 95 as [5, P]. A point that stands for several rows
      is their median; for one seed, the 5th and 95th percentiles are their extremes.
    """
    spread = quantiles(values, [5, 25, 50, 75, 95])
    size = -(-len(steps) // MOST_POINTS)
    if size <= 1:
        return steps, spread
    padded = np.pad(spread, ((0, 0), (0, -len(steps) % size)), constant_values=np.nan)
    lowest, median, highest = quantiles(
        np.moveaxis(padded.reshape(5, -1, size), -1, 0), [0, 50, 100]
    )
    if len(values) == 1:
        median[0], median[4] = lowest[0], highest[4]
    middle = np.minimum(np.arange(median.shape[1]) * size + size // 2, len(steps) - 1)
    return steps[middle], median


def log_scale(axis: Axes) -> None:
    """Set a logarithmic y axis, with ticks between the powers of ten if the range is short."""
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    if high < 100 * low:
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.yaxis.set_minor_formatter(ticker.NullFormatter())


def loss_curve(path: Path, loss: np.ndarray, learned_at: np.ndarray) -> None:
    """Plot the loss over the training steps and, for several seeds, when they learned.

    Args:
      path: the PNG file to write.
      loss: [S, N] nats, before each update.
      learned_at: [S] int, N if the text was not learned.
    """
    seeds, steps = loss.shape
    figure = Figure(figsize=(10 if seeds > 1 else 6.4, 4), layout="constrained")
    axes = figure.subplots(1, 2 if seeds > 1 else 1, squeeze=False)[0]
    finite = np.where(np.isfinite(loss), loss, np.nan)
    with warnings.catch_warnings():  # a step without a finite loss becomes a gap
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        low, first, median, third, high = np.nanpercentile(finite, [5, 25, 50, 75, 95], axis=0)
    x = np.arange(steps)
    axis = axes[0]
    if seeds > 1:
        axis.fill_between(x, low, high, color=INK, alpha=0.12, lw=0, label="5% to 95% of seeds")
        axis.fill_between(x, first, third, color=INK, alpha=0.25, lw=0, label="quartiles")
    axis.plot(
        x,
        median,
        color=INK,
        marker="o" if steps == 1 else None,
        label="median" if seeds > 1 else "loss",
    )
    axis.set(xlabel="training step", ylabel="cross-entropy (nats)", title="loss before each update")
    axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    if np.any(finite > 0):
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    learned = learned_at[learned_at < steps]
    if seeds == 1 and learned.size:
        axis.axvline(learned[0], color=ACCENT, ls="--", label=f"correct from step {learned[0]}")
    axis.legend(frameon=False)
    if seeds > 1:
        bins = np.arange(steps + 1) - 0.5
        axes[1].hist(learned, bins=bins.tolist(), color=ACCENT)
        axes[1].set(
            xlabel="first training step from which it stays correct",
            ylabel="seeds",
            title=f"{learned.size} of {seeds} seeds learned it",
        )
        axes[1].set_ylim(bottom=0, top=None if learned.size else 1)
        axes[1].xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        axes[1].yaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    write(figure, path)


def probabilities(
    path: Path,
    probability: np.ndarray,
    characters: Sequence[str],
    inputs: Sequence[int],
    targets: Sequence[int],
    title: str,
) -> None:
    """Plot the probability of each character at each position over the training steps.

    Args:
      path: the PNG file to write.
      probability: [N, T, V], after each update.
      characters: [V], the vocabulary.
      inputs: [T] int, the character read at each position.
      targets: [T] int, the character to predict at each position.
      title: the title.
    """
    shown = range(min(len(targets), MOST_POSITIONS))
    # All targets, then as many of the other characters as fit.
    rows = [*dict.fromkeys([targets[t] for t in shown] + list(range(len(characters))))]
    rows = sorted(rows[:MOST_POSITIONS])
    columns = min(len(shown), 6)
    lines = math.ceil(len(shown) / columns)
    height = 1.1 + lines * (0.7 + 0.22 * len(rows))
    with fonts_for(characters) as labels:
        figure = Figure(figsize=(2.2 * columns + 1.6, max(height, 2.6)), layout="constrained")
        grid = figure.subplots(lines, columns, sharex=True, squeeze=False)
        image = None
        for t, axis in zip(shown, grid.flat, strict=False):
            image = axis.imshow(
                probability[:, t, rows].T, vmin=0, vmax=1, aspect="auto", cmap="Blues"
            )
            axis.set_yticks(range(len(rows)), [labels[v] for v in rows])
            target = rows.index(targets[t])
            axis.xaxis.set_major_locator(ticker.MaxNLocator(4, integer=True))
            axis.get_yticklabels()[target].set_color(ACCENT)
            axis.tick_params(labelbottom=t + columns >= len(shown))
            axis.set_title(f"{t + 1}. {labels[inputs[t]]} → {labels[targets[t]]}", fontsize=10)
        for axis in grid.flat[len(shown) :]:
            axis.set_axis_off()
        if image is not None:
            figure.colorbar(image, ax=grid, label="probability", fraction=0.03, shrink=1 / lines)
        figure.supxlabel("training step", fontsize=10)
        left_out = "" if len(shown) == len(targets) else f" (first {len(shown)} of {len(targets)})"
        figure.suptitle(f"{title}: probability of the next character{left_out}", fontsize=11)
        write(figure, path)


def states(
    path: Path,
    panels: Mapping[str, np.ndarray],
    characters: Sequence[str],
    inputs: Sequence[int],
    predicted: Sequence[int],
    title: str,
) -> None:
    """Plot the gates and states of a trained layer over the time steps, in a panel each.

    Args:
      path: the PNG file to write.
      panels: by title, [T, H] each. The color scale is 0 to 1 if the title ends in "gate", else
        symmetric about 0.
      characters: [V], the vocabulary.
      inputs: [T] int, the character read at each step.
      predicted: [T] int, the character predicted at each step.
      title: the title.
    """
    steps = min(len(inputs), MOST_POSITIONS)
    units = min(next(iter(panels.values())).shape[1], MOST_UNITS)
    with fonts_for(characters) as labels:
        ticks = [f"{labels[inputs[t]]}\n{labels[predicted[t]]}" for t in range(steps)]
        width = max(2.6, 0.42 * steps)
        columns = min(len(panels), max(1, int(WIDEST / width)))
        lines = math.ceil(len(panels) / columns)
        figure = Figure(
            figsize=(max(columns * width + 0.6, 4.6), 0.6 + lines * (1.3 + 0.3 * min(units, 16))),
            layout="constrained",
        )
        grid = figure.subplots(lines, columns, squeeze=False)
        for axis in grid.flat[len(panels) :]:
            axis.set_axis_off()
        for axis, (name, values) in zip(grid.flat, panels.items(), strict=False):
            _state_panel(figure, axis, name, values[:steps, :units].T, ticks)
        figure.suptitle(title, fontsize=11)
        figure.supxlabel("each step: the character read, below it the prediction", fontsize=9)
        write(figure, path)


def _state_panel(
    figure: Figure, axis: Axes, name: str, values: np.ndarray, ticks: Sequence[str]
) -> None:
    """Plot one heat map: values [H, T], with the numbers if there is room."""
    gate = name.endswith("gate")
    limit = 1.0 if gate else max(1.0, float(np.abs(values).max()))
    low, cmap = (0.0, "Blues") if gate else (-limit, "RdBu_r")
    image = axis.imshow(values, vmin=low, vmax=limit, cmap=cmap, aspect="auto")
    axis.set_title(name, fontsize=10)
    axis.set_xticks(range(len(ticks)), ticks)
    if max(map(len, ticks)) > 3:  # too long to fit side by side
        axis.tick_params(axis="x", rotation=90)
    axis.yaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axis.set_ylabel("hidden unit")
    figure.colorbar(image, ax=axis, fraction=0.05)
    if values.size <= 60:
        for (unit, t), value in np.ndenumerate(values):
            dark = value > 0.6 if gate else abs(value) > 0.6 * limit
            color = "white" if dark else INK
            axis.text(t, unit, f"{value:.1f}", ha="center", va="center", fontsize=7, color=color)


@contextmanager
def fonts_for(characters: Sequence[str]) -> Iterator[list[str]]:
    """Use fonts that have these characters inside the block; yields a label for each."""
    style: dict[Any, Any] = {
        "font.family": fonts.families("".join(characters)),
        "text.parse_math": False,
    }
    with rc_context(style):
        yield fonts.labels(characters)


def write(figure: Figure, path: Path) -> None:
    """Write a figure to a file."""
    figure.savefig(path, dpi=144)
