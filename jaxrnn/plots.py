"""Pictures of a run, drawn from plain arrays. Imported only where a picture is wanted."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxrnn import fonts

INK, ACCENT = "#22313f", "#c8553d"
MOST_POSITIONS = 24  # characters along an axis that can still be read
MOST_UNITS = 64  # hidden units likewise
WIDEST = 15.0  # inches of a picture; panels that do not fit beside each other go below


def loss_curve(path: Path, loss: np.ndarray, learned_at: np.ndarray) -> None:
    """The loss over the training steps; over several seeds also when each learned.

    Args:
      path: the PNG file to write.
      loss: [S, N] nats, before each update.
      learned_at: [S] int, N where the text was not learned.
    """
    seeds, steps = loss.shape
    figure = Figure(figsize=(10 if seeds > 1 else 6.4, 4), layout="constrained")
    axes = figure.subplots(1, 2 if seeds > 1 else 1, squeeze=False)[0]
    finite = np.where(np.isfinite(loss), loss, np.nan)
    with warnings.catch_warnings():  # a step at which no loss is finite becomes a gap
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
        axis.axvline(learned[0], color=ACCENT, ls="--", label=f"right from step {learned[0]}")
    axis.legend(frameon=False)
    if seeds > 1:
        bins = np.arange(steps + 1) - 0.5
        axes[1].hist(learned, bins=bins.tolist(), color=ACCENT)
        axes[1].set(
            xlabel="first training step that was right and stayed right",
            ylabel="seeds",
            title=f"{learned.size} of {seeds} seeds learned it",
        )
        axes[1].set_ylim(bottom=0, top=None if learned.size else 1)
        axes[1].xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        axes[1].yaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    _write(figure, path)


def probabilities(
    path: Path,
    probability: np.ndarray,
    characters: Sequence[str],
    inputs: Sequence[int],
    targets: Sequence[int],
    title: str,
) -> None:
    """The probability of each character at each position, as training goes on.

    Args:
      path: the PNG file to write.
      probability: [N, T, V], after each update.
      characters: [V], the vocabulary.
      inputs: [T] int, the character read at each position.
      targets: [T] int, the character to say at each position.
      title: says which network this is.
    """
    shown = range(min(len(targets), MOST_POSITIONS))
    # The targets always, then as many of the other characters as there is room for.
    rows = [*dict.fromkeys([targets[t] for t in shown] + list(range(len(characters))))]
    rows = sorted(rows[:MOST_POSITIONS])
    columns = min(len(shown), 6)
    lines = math.ceil(len(shown) / columns)
    height = 1.1 + lines * (0.7 + 0.22 * len(rows))
    with _lettering(characters) as labels:
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
        figure.suptitle(f"{title}: what comes next, position by position{left_out}", fontsize=11)
        _write(figure, path)


def states(
    path: Path,
    panels: Mapping[str, np.ndarray],
    characters: Sequence[str],
    inputs: Sequence[int],
    said: Sequence[int],
    title: str,
) -> None:
    """The gates and states of a trained layer over the time steps, a panel each.

    Args:
      path: the PNG file to write.
      panels: by title, [T, H] each. A title that ends in "gate" is drawn from 0 to 1, any other
        evenly about 0.
      characters: [V], the vocabulary.
      inputs: [T] int, the character read at each step.
      said: [T] int, the character predicted at each step.
      title: says which network this is.
    """
    steps = min(len(inputs), MOST_POSITIONS)
    units = min(next(iter(panels.values())).shape[1], MOST_UNITS)
    with _lettering(characters) as labels:
        ticks = [f"{labels[inputs[t]]}\n{labels[said[t]]}" for t in range(steps)]
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
        figure.supxlabel("each step: the character read, below it the one said", fontsize=9)
        _write(figure, path)


def _state_panel(
    figure: Figure, axis: Axes, name: str, values: np.ndarray, ticks: Sequence[str]
) -> None:
    """One heat map: values [H, T], with the numbers written in where there is room."""
    gate = name.endswith("gate")
    limit = 1.0 if gate else max(1.0, float(np.abs(values).max()))
    low, colours = (0.0, "Blues") if gate else (-limit, "RdBu_r")
    image = axis.imshow(values, vmin=low, vmax=limit, cmap=colours, aspect="auto")
    axis.set_title(name, fontsize=10)
    axis.set_xticks(range(len(ticks)), ticks)
    if max(map(len, ticks)) > 3:  # code points are too long to stand beside each other
        axis.tick_params(axis="x", rotation=90)
    axis.yaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axis.set_ylabel("hidden unit")
    figure.colorbar(image, ax=axis, fraction=0.05)
    if values.size <= 60:
        for (unit, t), value in np.ndenumerate(values):
            dark = value > 0.6 if gate else abs(value) > 0.6 * limit
            colour = "white" if dark else INK
            axis.text(t, unit, f"{value:.1f}", ha="center", va="center", fontsize=7, color=colour)


@contextmanager
def _lettering(characters: Sequence[str]) -> Iterator[list[str]]:
    """Fonts that have these characters, for what is drawn inside; yields a label for each."""
    style: dict[Any, Any] = {
        "font.family": fonts.families("".join(characters)),
        "text.parse_math": False,
    }
    with rc_context(style):
        yield fonts.labels(characters)


def _write(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=144)
