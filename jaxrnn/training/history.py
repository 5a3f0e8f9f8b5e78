"""Metrics of many seeds over many steps, as arrays. Pure NumPy."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class History(NamedTuple):
    """The metrics of each seed at each logged step."""

    seeds: np.ndarray  # [S] int
    steps: np.ndarray  # [R] int
    values: dict[str, np.ndarray]  # by name, [S, R, ...]; NaN after a seed diverged


def mask_diverged(
    values: Mapping[str, np.ndarray], steps: np.ndarray, updates: np.ndarray
) -> dict[str, np.ndarray]:
    """Replace values that are not finite, or of a seed that is no longer trained, by NaN.

    Args:
      values: by name, [S, R, ...].
      steps: [R] int.
      updates: [S] int, updates made by each seed; fewer than the step once it is frozen.
    """
    frozen = steps > updates[:, None]  # [S, R]
    masked = {}
    for name, array in values.items():
        hide = frozen.reshape(frozen.shape + (1,) * (array.ndim - 2)) | ~np.isfinite(array)
        masked[name] = np.where(hide, np.nan, array) if hide.any() else array
    return masked


def join(histories: Sequence[History]) -> History:
    """Concatenate the histories of one run, at least one, along the steps."""
    whole = [history for history in histories if history.steps.size] or histories[-1:]
    names = whole[-1].values
    return History(
        whole[-1].seeds,
        np.concatenate([history.steps for history in whole]),
        {
            name: np.concatenate([history.values[name] for history in whole], axis=1)
            for name in names
        },
    )


def last_rows(history: History, ended: Mapping[int, int]) -> dict[str, np.ndarray]:
    """Return the last metrics of each seed: by name, [S, ...].

    Of a seed that ended before the others, the last that were measured: the step at which it solved
    its task may be without a line, or without validation.

    Args:
      history: of at least one logged step.
      ended: by seed, the step at which it stopped early, or solved its task and stopped.
    """
    seeds, steps, values = history
    ends = np.array([ended.get(seed, steps[-1]) for seed in seeds.tolist()])  # [S]
    before = steps <= ends[:, None]  # [S, R]
    rows = {}
    for name, array in values.items():
        there = before
        if ended:
            measured = np.isfinite(array).reshape(*array.shape[:2], -1).any(axis=2)
            measured &= before & np.isin(seeds, list(ended))[:, None]
            there = np.where(measured.any(axis=1, keepdims=True), measured, before)
        last = len(steps) - 1 - np.argmax(there[:, ::-1], axis=1)
        rows[name] = array[np.arange(len(seeds)), last]
    return rows


def last_measured(history: History, before: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what each seed measured last: by name, [S, ...], validation of an earlier step, too.

    Args:
      history: a part of a run's.
      before: the same as of the part before; empty if there is none.
    """
    last = dict(before)
    if not history.steps.size:
        return last
    for name, values in history.values.items():
        finite = np.isfinite(values).reshape(*values.shape[:2], -1)
        measured: np.ndarray = np.any(finite, axis=2)  # [S, R]
        rows = values.shape[1] - 1 - np.argmax(measured[:, ::-1], axis=1)
        new = values[np.arange(len(rows)), rows]
        there = measured.any(axis=1).reshape(-1, *[1] * (new.ndim - 1))
        last[name] = np.where(there, new, last[name]) if name in last else new
    return last


def last_loss(histories: Sequence[History]) -> float:
    """Return the median over the seeds, of those that are finite, of the last logged loss."""
    for history in reversed(histories):
        if history.steps.size:
            loss = history.values["loss"][:, -1]
            return (
                float(np.median(loss[np.isfinite(loss)])) if np.isfinite(loss).any() else math.nan
            )
    return math.nan


def scalars(metrics: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the metrics with one number per seed and step: the loss first, grad_norm last.

    Args:
      metrics: by name, [S, R] or [S, R, ...] each.

    Returns:
      by name, [S, R] float64 each.

    >>> numbers = np.zeros((1, 2))
    >>> list(scalars({"grad_norm": numbers, "curve": np.zeros((1, 2, 9)), "loss": numbers}))
    ['loss', 'grad_norm']
    """
    names = [name for name, values in metrics.items() if np.ndim(values) == 2]
    names.sort(key=lambda name: (name == "grad_norm", name != "loss"))
    return {name: np.asarray(metrics[name], np.float64) for name in names}


def quantiles(values: np.ndarray, percents: Sequence[float]) -> np.ndarray:
    """Return percentiles over the seeds, of the finite values.

    Equal to `np.nanpercentile`, and twenty times as fast over many steps.

    Args:
      values: [S, ...] numbers.
      percents: [Q], each from 0 to 100.

    Returns:
      [Q, ...] float64; NaN where no seed has a finite value.

    >>> quantiles(np.array([[1.0, 5.0], [2.0, np.nan], [4.0, np.inf]]), [0, 50]).tolist()
    [[1.0, 5.0], [2.0, 5.0]]
    """
    values = np.asarray(values, np.float64)
    ordered = np.sort(np.where(np.isfinite(values), values, np.nan), axis=0)  # NaN goes last
    last = np.maximum(np.sum(np.isfinite(values), axis=0) - 1, 0)
    rank = np.multiply.outer(np.asarray(percents) / 100, last)  # [Q, ...]
    below = rank.astype(int)
    low, high = (
        np.take_along_axis(ordered, place, 0) for place in (below, np.minimum(below + 1, last))
    )
    return low + (rank - below) * (high - low)
