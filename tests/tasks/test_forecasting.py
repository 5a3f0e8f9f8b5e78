"""Series to forecast: against other solvers, known moments and statements of their definition."""

import dataclasses
import importlib.util
import json
import math
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline
from tasks.same_batches import check_batches

from jaxrnn.cells import GRUCell
from jaxrnn.errors import RunError, SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.losses import sequence_squared_error
from jaxrnn.models import SequenceModel
from jaxrnn.runs.config_json import from_json, to_json
from jaxrnn.tasks import lorenz, mackey_glass
from jaxrnn.tasks.forecasting import Forecasting
from jaxrnn.tasks.lorenz import Lorenz
from jaxrnn.tasks.mackey_glass import MackeyGlass
from jaxrnn.tasks.measured_series import MeasuredSeries, bundled, read
from jaxrnn.tasks.sine import Sine
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.loop import make_train

SYNTHETIC = [Sine, MackeyGlass, Lorenz]
MANY = 4000


@pytest.fixture(scope="module", params=SYNTHETIC, ids=lambda cls: cls.__name__)
def many(request):
    """Many standardized series of 60 values, [MANY, 60]."""
    task = request.param(sequence_length=40, batch_size=MANY)
    return np.asarray(jax.jit(task.series, static_argnums=1)(jax.random.key(3), 60), np.float64)


def test_series_are_stationary_with_mean_0_and_variance_1(many):
    """Rows are independent, so a step's mean has a standard error of 1/sqrt(MANY)."""
    assert np.abs(many.mean(axis=0)).max() < 5 / math.sqrt(MANY)
    spread = (many**2).std() / math.sqrt(MANY)
    assert np.abs((many**2).mean(axis=0) - 1).max() < 5 * spread + 0.01  # the constants' rounding
    lag = [np.mean(many[:, t] * many[:, t + 5]) for t in (0, 30, 54)]
    assert np.ptp(lag) < 10 / math.sqrt(MANY)


def test_the_mean_is_the_best_forecast_that_ignores_the_input(many):
    losses = {level: np.mean((many[:, -1] - level) ** 2) for level in np.linspace(-0.3, 0.3, 7)}
    assert abs(min(losses, key=losses.__getitem__)) < 1e-9
    assert abs(losses[0.0] - Forecasting.memoryless_loss) < 0.1


def test_lorenz_agrees_with_scipy():
    def rhs(_, point):
        x, y, z = point
        return [10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z]

    start = np.array([1.0, 2.0, 20.0])
    true = solve_ivp(rhs, (0, 2), start, rtol=1e-10, atol=1e-10, t_eval=np.linspace(0, 2, 201))
    step = jax.jit(lorenz.step)
    points = [jnp.asarray(start, jnp.float32)]
    for _ in range(200):
        points.append(step(points[-1]))
    np.testing.assert_allclose(np.stack(points), true.y.T, atol=2e-3)


def test_lorenz_series_follow_the_equations_from_the_attractor():
    task = Lorenz(sequence_length=50, batch_size=2, spacing=3)
    key = jax.random.key(1)
    every, seldom = (
        np.asarray(jax.jit(dataclasses.replace(task, spacing=n).series, static_argnums=1)(key, 60))
        for n in (1, 3)
    )
    np.testing.assert_allclose(seldom[:, :20], every[:, ::3], atol=1e-4)
    many = lorenz.STD * jax.jit(Lorenz(batch_size=500).series, static_argnums=1)(key, 60)
    assert 17 < np.abs(many).max() < 21  # the attractor's extent in x


def test_mackey_glass_agrees_with_scipy():
    """By the method of steps: over one delay the equation is an ordinary one with known forcing."""
    times = np.arange(-mackey_glass.LAG - 1, 1) / 2
    past = 0.9 + 0.3 * np.cos(times / 8)
    found = mackey_glass.solve(jnp.asarray(past[:, None], jnp.float32), 8 * mackey_glass.LAG)
    delayed, level, true = CubicSpline(times, past), past[-1], []
    for start in range(0, 8 * 17, 17):

        def rhs(t, x, delayed=delayed):
            past = delayed(t - 17)
            return 0.2 * past / (1 + past**10) - 0.1 * x

        fine = np.linspace(start, start + 17, 17 * 40 + 1)
        part = solve_ivp(rhs, (start, start + 17), [level], t_eval=fine, rtol=1e-9, atol=1e-9)
        delayed, level = CubicSpline(fine, part.y[0]), part.y[0, -1]
        true.append(part.y[0, 20::20])
    errors = np.abs(np.asarray(found)[:, 0] - np.concatenate(true))
    assert errors[:33].max() < 1e-6  # before the kink at t = 0 is felt
    assert errors.max() < 2e-3


def test_sine_waves_have_the_stated_periods_and_phases():
    task = Sine(batch_size=2000, shortest_period=8, longest_period=20)
    series = np.asarray(task.series(jax.random.key(0), 60), np.float64)
    doubled = series[:, 2:] + series[:, :-2]  # = 2 cos(w) x(t)
    cosine = np.sum(doubled * series[:, 1:-1], 1) / np.sum(series[:, 1:-1] ** 2, 1) / 2
    np.testing.assert_allclose(doubled, 2 * cosine[:, None] * series[:, 1:-1], atol=1e-3)
    frequency = np.arccos(cosine)
    low, high = 2 * np.pi / 20, 2 * np.pi / 8
    assert low - 1e-3 < frequency.min() and frequency.max() < high + 1e-3
    share = np.histogram(frequency, 4, (low, high))[0] / 2000
    np.testing.assert_allclose(share, 1 / 4, atol=5 * math.sqrt(3 / 16 / 2000))


@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("cls", SYNTHETIC)
def test_targets_are_the_values_the_horizon_later(cls, horizon):
    task = cls(sequence_length=12, horizon=horizon, warmup=4, batch_size=3)
    key = jax.random.key(0)
    series = np.asarray(jax.jit(task.series, static_argnums=1)(key, 12 + horizon))
    batch = jax.device_get(jax.jit(task.sample_batch)(key, 0))
    for b in range(3):
        for t in range(12):
            assert batch.inputs[b, t, 0] == series[b, t]
            assert batch.targets[b, t] == series[b, t + horizon]
            assert batch.weights[b, t] == float(t >= 4)


@pytest.mark.parametrize("cls", [Sine, MackeyGlass])  # Lorenz amplifies rounding
def test_a_key_gives_the_same_batch_from_one_program_and_under_vmap(cls):
    check_batches(cls(sequence_length=30, batch_size=2))


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize("cls", SYNTHETIC)
def test_a_key_gives_the_same_batch_as_users_compile_it(cls):
    check_batches(cls(sequence_length=30, batch_size=2))


def test_windows_of_a_file_are_functions_of_the_key(tmp_path):
    file = series_file(tmp_path, range(60))
    check_batches(MeasuredSeries(6, warmup=2, batch_size=3, file=file))


@pytest.mark.parametrize("task", [Sine(longest_period=30.0), MackeyGlass(spacing=3), Lorenz(70, 2)])
def test_tasks_are_rebuilt_from_json(task):
    assert from_json(json.loads(json.dumps(to_json(task)))) == task


def test_the_loss_and_rmse_are_over_the_scored_steps():
    task = Sine(sequence_length=5, warmup=2, batch_size=1, horizon=2)
    batch = task.windows(jnp.arange(7.0)[None])
    outputs = batch.targets[..., None] + jnp.array([9.0, jnp.nan, 1.0, -1.0, 2.0])[None, :, None]
    np.testing.assert_allclose(task.loss(outputs, batch), 2.0)  # (1 + 1 + 4) / 3
    np.testing.assert_allclose(task.metrics(outputs, batch)["rmse"], math.sqrt(2.0), rtol=1e-6)
    solved = task.solved({"loss": np.array([0.009, 0.011, np.nan])})
    assert solved.tolist() == [True, False, False]
    assert bool(jax.jit(task.solved)({"loss": jnp.float32(0.009)}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sine(20, warmup=20), "sequence length must be more than the warmup of 20"),
        (lambda: Sine(horizon=0), "horizon must be at least 1"),
        (lambda: Lorenz(spacing=0), "spacing must be at least 1"),
        (lambda: MackeyGlass(spacing=cast(Any, 0.5)), "spacing must be a whole number"),
        (lambda: Sine(shortest_period=2), "the shortest period must be more than 2"),
        (lambda: Sine(longest_period=math.inf), "the shortest period must be more than 2"),
        (lambda: Sine(longest_period=4), "at most the longest period, not 5.0 and 4"),
    ],
)
def test_invalid_settings_raise(make, message):
    with pytest.raises(SettingError, match=message):
        make()


def series_file(folder, numbers):
    file = folder / "series.csv"
    file.write_text("year,count\n" + "".join(f"{n},{x!r}\n" for n, x in enumerate(numbers)))
    return file


@pytest.mark.parametrize("horizon", [1, 4])
def test_each_value_of_the_validation_part_is_scored_once(tmp_path, horizon):
    numbers = (np.random.default_rng(0).gamma(2.0, size=103) * 50).tolist()
    file = series_file(tmp_path, numbers)
    task = MeasuredSeries(12, horizon, warmup=5, batch_size=4, file=file, val_fraction=0.3)
    train = np.array(numbers[:72])
    wanted = (np.array(numbers) - train.mean()) / train.std()
    assert task.num_training == 72 and task.files == (file,)
    arrays = task.arrays()
    np.testing.assert_allclose(arrays["all"], wanted, rtol=1e-6)
    assert task.num_validation_batches(arrays) == 1
    batch = jax.device_get(jax.jit(task.validation_batch)(0, jax.tree.map(jnp.asarray, arrays)))
    scored = []
    for b, t in np.argwhere(batch.weights):
        target = int(np.flatnonzero(arrays["all"] == batch.targets[b, t])[0])
        assert t >= 5  # values before the newest one
        np.testing.assert_array_equal(
            batch.inputs[b, : t + 1, 0], arrays["all"][target - horizon - t : target - horizon + 1]
        )
        scored.append(target)
    assert sorted(scored) == list(range(72, 103))
    rmse = 0.5
    assert task.format_loss(rmse**2) == (
        f" (RMSE 0.5 standard deviations, {rmse * train.std():.4g} in the file's unit)"
    )
    assert task.solved({"loss": np.zeros(1)}) is None


def test_training_windows_stay_in_the_training_part(tmp_path):
    task = MeasuredSeries(
        6, 2, warmup=2, batch_size=500, file=series_file(tmp_path, range(40)), val_fraction=0.5
    )
    arrays = jax.tree.map(jnp.asarray, task.arrays())
    batch = jax.device_get(jax.jit(task.sample_batch)(jax.random.key(0), 0, arrays))
    place = np.round(batch.inputs[..., 0] * np.arange(20).std() + 9.5).astype(int)
    target = np.round(batch.targets * np.arange(20).std() + 9.5).astype(int)
    np.testing.assert_array_equal(place, place[:, :1] + np.arange(6))
    np.testing.assert_array_equal(target, place + 2)
    assert set(place[:, 0]) == set(range(13))  # the last one ends at value 19
    whole = dataclasses.replace(task, val_fraction=0.0)
    assert whole.num_validation_batches(whole.arrays()) == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "a.txt has no numbers"),
        ("a.txt", b"year\n1\n2,x\n", "line 3 of .*a.txt ends in 'x', not a number"),
        ("a.txt", b"1\nnan\n", "number 2 of .*a.txt is not finite"),
        ("a.txt", b"\xff\xfe\x00", "a.txt is neither text in UTF-8 nor a .npy file"),
        ("a.npy", b"1\n2\n", "a.npy is not a .npy file with numbers"),
        ("a.npy", np.zeros((3, 2)), r"must have one series, \[N\] or \[N, 1\], but its shape"),
        ("a.npy", np.array(["x"]), "a.npy is not a .npy file with numbers"),
        ("a.txt", b"1\n2\n3\n", "has 2 values, but one window needs 101"),
        ("a.npy", np.ones(1000), "is constant: nothing to forecast"),
    ],
)
def test_bad_files_are_one_line(tmp_path, name, content, message):
    file = tmp_path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        np.save(file, content)
    with pytest.raises(RunError, match=message) as refused:
        MeasuredSeries(file=file).arrays()
    assert "\n" not in str(refused.value)


def test_npy_columns_are_read(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(5)[:, None])
    assert read(tmp_path / "a.npy").tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["sunspots", "laser"])
def test_a_missing_package_is_named(monkeypatch, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RunError, match=f"{name} comes with the package .*: pip install"):
        bundled(name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an open file
def test_sunspots_and_laser_are_those_of_their_packages():
    datasets = pytest.importorskip("statsmodels.datasets")
    sunspots = read(bundled("sunspots"))
    np.testing.assert_array_equal(sunspots, datasets.sunspots.load_pandas().endog)
    reservoirpy = pytest.importorskip("reservoirpy.datasets")
    np.testing.assert_array_equal(read(bundled("laser")), reservoirpy.santafe_laser()[:, 0])


@pytest.mark.slow
@pytest.mark.parametrize("cls", [*SYNTHETIC, MeasuredSeries])
def test_a_small_instance_is_learned(tmp_path, cls):
    """A small network is far better than the last value, and than the mean."""
    options: dict[str, Any] = {"warmup": 10, "batch_size": 8}
    if cls is MeasuredSeries:
        steps = np.arange(300)
        options["file"] = series_file(tmp_path, (np.sin(steps / 2) + np.sin(steps / 3.1)).tolist())
    task: Any = cls(30, **options)
    train = TrainConfig(150, 0.02, schedule="cosine", flatten=True)
    model = SequenceModel(Recurrent(GRUCell(24)), 1)
    _, metrics = jax.jit(make_train(ExperimentConfig(task, model, train)))(0)
    batch = jax.jit(task.sample_batch)(jax.random.key(9), 0, task.arrays())
    last = float(sequence_squared_error(batch.inputs, batch.targets, batch.weights))
    found = metrics["validation_loss" if cls is MeasuredSeries else "loss"][-1]
    assert found < min(last, task.memoryless_loss) / 10
