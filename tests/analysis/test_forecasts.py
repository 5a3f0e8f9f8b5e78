"""Baselines of forecasts by hand and against statsmodels, free runs, and their plot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn.analysis import forecasts
from jaxrnn.cells import GRUCell, LSTMCell
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Stack
from jaxrnn.models import SequenceModel
from jaxrnn.tasks.measured_series import MeasuredSeries
from jaxrnn.tasks.sine import Sine


@pytest.fixture
def measured(tmp_path):
    """A noisy cycle of 150 values, of which 30 are for validation."""
    draw = np.random.default_rng(0)
    values = 50 + 20 * np.sin(np.arange(150) / 2) + 5 * draw.normal(size=150)
    np.save(tmp_path / "cycle.npy", values)

    def make(horizon=1, val_fraction=0.2):
        file = tmp_path / "cycle.npy"
        return MeasuredSeries(20, horizon, 8, 4, file=file, val_fraction=val_fraction)

    return values, make


@pytest.mark.parametrize("horizon", [1, 3])
def test_baselines_by_hand(measured, horizon):
    values, make = measured
    x = (values - values[:120].mean()) / values[:120].std()
    last = [x[i] - x[i - horizon] for i in range(120, 150)]

    def row(i):  # what is known when value i is predicted
        return [*(x[i - horizon - n] for n in range(3)), 1.0]

    fit = range(8 + horizon, 120)
    design, targets = np.array([row(i) for i in fit]), x[list(fit)]
    weights = np.linalg.solve(design.T @ design, design.T @ targets)
    errors = [x[i] - np.dot(row(i), weights) for i in range(120, 150)]
    found = forecasts.baselines(make(horizon), lags=3)
    rmse = [np.sqrt(np.mean(np.square(part))) for part in (last, errors)]
    np.testing.assert_allclose(found[:2], rmse, rtol=1e-4)
    assert found.lags == 3 and forecasts.baselines(make()).lags == 8


def test_without_a_validation_part_the_training_part_is_scored(measured):
    values, make = measured
    x = (values - values.mean()) / values.std()
    last = np.sqrt(np.mean((x[9:] - x[8:-1]) ** 2))
    np.testing.assert_allclose(forecasts.baselines(make(1, 0.0)).last_value, last, rtol=1e-4)


@pytest.mark.parametrize("lags", [0, 10])
def test_lags_beyond_the_window_are_refused(measured, lags):
    with pytest.raises(SettingError, match=f"lags must be from 1 to 9, .* not {lags}"):
        forecasts.baselines(measured[1](), lags)


@pytest.mark.slow
def test_the_linear_autoregression_is_that_of_statsmodels(measured):
    models = pytest.importorskip("statsmodels.tsa.ar_model")
    values, make = measured
    x = (values - values[:120].mean()) / values[:120].std()
    fitted = models.AutoReg(x[:120], 9, trend="c").fit()
    predicted = fitted.append(x[120:]).predict(120, 149)
    wanted = np.sqrt(np.mean((predicted - x[120:]) ** 2))
    np.testing.assert_allclose(forecasts.baselines(make(), 9).linear, wanted, rtol=1e-4)


def test_the_last_value_of_a_sine_wave_has_a_known_error():
    """(x(t+1) - x(t))^2 has the mean 2 - 2 cos(w) for a variance of 1."""
    found = forecasts.baselines(Sine(shortest_period=8, longest_period=8))
    np.testing.assert_allclose(found.last_value, np.sqrt(2 - 2 * np.cos(np.pi / 4)), rtol=0.02)
    assert found.linear < 1e-5  # linear in the last two values


@pytest.mark.slow
@pytest.mark.parametrize("cell", [GRUCell, LSTMCell])
def test_a_free_run_reads_its_own_forecasts(cell, key):
    model = SequenceModel(Stack((Recurrent(cell(4)), Recurrent(cell(3)))), 1)
    context = jax.random.normal(key, (2, 7))
    params = model.init(key, context[..., None])["params"]
    found = forecasts.free_run(model, params, context, 5)
    whole = jnp.pad(context, [(0, 0), (0, 5)])
    for t in range(7, 12):  # from the start, without a carry; later values change nothing
        outputs = model.apply({"params": params}, whole[..., None])[0]
        whole = whole.at[:, t].set(outputs[:, t - 1, 0])
    np.testing.assert_allclose(found, whole[:, 7:], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("horizon", "val_fraction"), [(1, 0.2), (2, 0.2), (1, 0.0)])
def test_forecasts_of_a_measured_series(measured, tmp_path, horizon, val_fraction, key):
    _, make = measured
    task = make(horizon, val_fraction)
    model = SequenceModel(Recurrent(GRUCell(3)), 1)
    params = model.init(key, jnp.zeros((1, 2, 1)))["params"]
    found = forecasts.forecast(task, model, params)
    series = task.arrays()["all"]
    np.testing.assert_array_equal(found.series, series[100:] if val_fraction else series[30:])
    assert len(found.predicted) == len(found.series) - horizon
    if horizon == 1:
        assert found.free is not None and len(found.free) == len(found.series) - 20
        np.testing.assert_allclose(found.free[0], found.predicted[19], rtol=1e-4)
    forecasts.plot(tmp_path / "f.png", task, found, "a network")
    assert (tmp_path / "f.png").stat().st_size > 5000
