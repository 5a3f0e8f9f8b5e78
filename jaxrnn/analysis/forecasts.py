"""Forecasts of a trained network beside simple baselines, and their plot."""

from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.errors import SettingError
from jaxrnn.rng import child_key, root_key
from jaxrnn.tasks.forecasting import Forecasting
from jaxrnn.tasks.measured_series import MeasuredSeries
from jaxrnn.types import Batch, Params

ROWS = 200  # synthetic series to fit the linear autoregression on, and to score it on
FREE_STEPS = 100  # of the plot


class Baselines(NamedTuple):
    """Root mean squared errors, in standard deviations."""

    last_value: float
    linear: float  # of the autoregression
    lags: int


def baselines(task: Forecasting, lags: int | None = None) -> Baselines:
    """Score the last value and a linear autoregression on the data that the network is scored on.

    Those are the validation part of a measured series (without one, the training part), or fresh
    synthetic series. The linear
    autoregression predicts x(t + horizon) from a constant and x(t), ..., x(t - lags + 1); it is
    fitted by least squares on the training part, or on other synthetic series.

    Args:
      task: what was trained on.
      lags: from 1 to `task.warmup + 1`, so that every scored step has as many values; by default
        `task.warmup`.

    Raises:
      SettingError: if there are fewer or more lags.
    """
    lags = task.warmup if lags is None else lags
    if not 1 <= lags <= task.warmup + 1:
        most = task.warmup + 1
        raise SettingError(f"lags must be from 1 to {most}, the warmup plus 1, not {lags}")
    fit, score = _fit_and_score(task)
    weights = np.linalg.lstsq(*_regression(fit, lags), rcond=None)[0]
    values, targets = _regression(score, lags)
    return Baselines(_rmse(values[:, 0] - targets), _rmse(values @ weights - targets), lags)


def _fit_and_score(task: Forecasting) -> tuple[Batch, Batch]:
    if isinstance(task, MeasuredSeries):
        arrays = task.arrays()
        fit = task.windows(arrays["train"][None])
        if not task.num_validation_batches(arrays):
            return fit, fit
        return fit, task.validation_batch(jnp.int32(0), arrays)
    keys = jax.random.split(child_key(root_key(0), "sample"), ROWS)
    batches = jax.jit(jax.vmap(lambda key: task.sample_batch(key, 0)))(keys)
    rows: Batch = jax.tree.map(lambda part: np.asarray(part)[:, 0], batches)  # one of each batch
    parts = (jax.tree.map(lambda part, i=i: part[i::2], rows) for i in (0, 1))
    return cast(tuple[Batch, Batch], tuple(parts))


def _regression(batch: Batch, lags: int) -> tuple[np.ndarray, np.ndarray]:
    """The newest values and a one for each scored step, [N, lags + 1], and the targets, [N]."""
    inputs = np.asarray(batch.inputs, np.float64)[..., 0]  # [B, T]
    row, step = np.nonzero(np.asarray(batch.weights))
    newest = inputs[row[:, None], step[:, None] - np.arange(lags)]
    values = np.concatenate([newest, np.ones((len(row), 1))], axis=1)
    return values, np.asarray(batch.targets, np.float64)[row, step]


def _rmse(errors: np.ndarray) -> float:
    return float(np.sqrt(np.mean(errors**2)))


def summarize_baselines(found: Baselines) -> str:
    """One line for a summary.

    >>> summarize_baselines(Baselines(0.51234, 0.1, 20))
    'RMSE of the last value: 0.5123; of a linear autoregression on 20 values: 0.1.'
    """
    return (
        f"RMSE of the last value: {found.last_value:.4g}; of a linear autoregression on"
        f" {found.lags} values: {found.linear:.4g}."
    )


class Forecast(NamedTuple):
    """What a network says of one series; [T] and [P] numbers in standard deviations."""

    series: np.ndarray  # [T + P], the true values
    predicted: np.ndarray  # [T + P - horizon], of the values from `horizon` on
    free: np.ndarray | None  # [P], when it reads its own predictions; None if horizon > 1


def forecast(task: Forecasting, model: Any, params: Params) -> Forecast:
    """Let a network forecast one series: with the true values as inputs, then with its own.

    It reads T values, `task.sequence_length`, and goes on for P steps by itself. A measured series
    is cut so that the P steps are the start of its validation part, or the end without one.
    """
    context, steps = task.sequence_length, FREE_STEPS
    if isinstance(task, MeasuredSeries):
        values, first = task.arrays()["all"], task.num_training
        if first == len(values):
            first = max(context, first - steps)
        series = jnp.asarray(values[None, first - context : first + steps])  # [1, T + P]
    else:
        key = child_key(root_key(1), "sample")
        series = task.series(key, context + steps)[:1]
    outputs, _ = model.apply({"params": params}, series[:, : -task.horizon, None])
    predicted = np.asarray(outputs[0, :, 0])
    if task.horizon > 1:
        return Forecast(np.asarray(series[0]), predicted, None)
    free = free_run(model, params, series[:, :context], series.shape[1] - context)
    return Forecast(np.asarray(series[0]), predicted, np.asarray(free[0]))


def free_run(model: Any, params: Params, context: jax.Array, steps: int) -> jax.Array:
    """Read series [B, T], then continue them with the network's own one-step forecasts.

    Returns:
      [B, steps], the values after the context.
    """
    outputs, carry = model.apply({"params": params}, context[..., None])

    def go_on(state: Any, _: None) -> tuple[Any, jax.Array]:
        value, carry = state  # [B, 1, 1]
        outputs, carry = model.apply({"params": params}, value, carry)
        return (outputs, carry), value[:, 0, 0]

    return jax.lax.scan(go_on, (outputs[:, -1:], carry), length=steps)[1].T


def plot(path: Path, task: Forecasting, found: Forecast, title: str) -> None:
    """Draw a forecast: `horizon` steps ahead, and free-running if there is one.

    Args:
      path: the PNG file to write.
      task: what was trained on.
      found: from `forecast`.
      title: the title.
    """
    from matplotlib.figure import Figure  # takes a second to import

    from jaxrnn.analysis.plots import ACCENT, INK

    figure = Figure(figsize=(9.6, 2.6 if found.free is None else 4.8), layout="constrained")
    axes = figure.subplots(1 if found.free is None else 2, 1, sharex=True, squeeze=False)[:, 0]
    steps = np.arange(len(found.series))
    for axis in axes:
        axis.plot(steps, found.series, color=INK, lw=1.2, label="true")
        axis.set_ylabel("standard deviations")
    ahead = f"{task.horizon} step{'s' if task.horizon > 1 else ''} ahead"
    axes[0].plot(
        steps[task.horizon :], found.predicted, color=ACCENT, lw=1, ls="--", label="network"
    )
    axes[0].set_title(f"forecast {ahead}, from the true values", fontsize=10, loc="left")
    axes[0].legend(frameon=False, ncols=2, fontsize=9, loc="upper right")
    if found.free is not None:
        start = len(found.series) - len(found.free)
        axes[1].plot(steps[start:], found.free, color=ACCENT, lw=1, ls="--")
        axes[1].axvline(start - 1, color=INK, lw=0.8, ls=":")
        low, high = found.series.min(), found.series.max()
        margin = 0.25 * (high - low)
        axes[1].set_ylim(low - margin, high + margin)  # a free run may leave the series
        axes[1].set_title(
            "free-running from the dotted line on: it reads its own forecasts",
            fontsize=10,
            loc="left",
        )
    axes[-1].set_xlabel("step")
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=144)
