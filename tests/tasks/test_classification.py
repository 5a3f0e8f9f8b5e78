"""Classification: MNIST-1D against its definition and its published set; files; batches."""

import dataclasses
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.ndimage import gaussian_filter1d
from tasks.mnist1d_features import features
from tasks.same_batches import check_batches

from jaxrnn.cells import GRUCell
from jaxrnn.errors import RunError, SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceClassifier
from jaxrnn.rng import validation_key
from jaxrnn.tasks import MNIST1D, Classification, Digits, JapaneseVowels, LabelledFile
from jaxrnn.tasks import digits as digits_module
from jaxrnn.tasks.mnist1d import MEAN, STD, make_example
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.loop import make_train
from jaxrnn.training.step import init_state, make_train_step
from jaxrnn.types import Batch

GOLDEN = Path(__file__).parent.parent / "goldens/mnist1d_published.npz"
STEP = jnp.int32(0)
SHAPES = """
5 6 6.5 6.75 7 7 7 7 6.75 6.5 6 5
5 3 3 3.4 3.8 4.2 4.6 5 5.4 5.8 5 5
5 6 6.5 6.5 6 5.25 4.75 4 3.5 3.5 4 5
5 6 6.5 6.5 6 5 5 6 6.5 6.5 6 5
5 4.4 3.8 3.2 2.6 2.6 5 5 5 5 5 5
5 3 3 3 3 5 6 6.5 6.5 6 4.5 5
5 4 3.5 3.25 3 3 3 3 3.25 3.5 4 5
5 7 7 6.6 6.2 5.8 5.4 5 4.6 4.2 5 5
5 4 3.5 3.5 4 5 5 4 3.5 3.5 4 5
5 4 3.5 3.5 4 5 5 5 5 4.7 4.3 5
"""
SEQUENCES = np.arange(24, dtype=np.float32).reshape(6, 4)


def resample(signal: list[float], size: int) -> list[float]:
    """Linear interpolation at `size` equally spaced places, from the first point to the last."""
    found = []
    for n in range(size):
        place = n * (len(signal) - 1) / (size - 1)
        left = min(int(place), len(signal) - 2)
        right = place - left
        found.append((1 - right) * signal[left] + right * signal[left + 1])
    return found


@jax.jit
@jax.vmap
def numbers(key: jax.Array) -> tuple[jax.Array, ...]:
    """The random numbers of one example: padding, scale, shift, two kinds of noise, slope."""
    keys = jax.random.split(key, 6)
    return (
        jax.random.randint(keys[0], (), 36, 61),
        jax.random.uniform(keys[1], (), jnp.float32, -0.5, 0.5),
        jax.random.randint(keys[2], (), 0, 48),
        jax.random.normal(keys[3], (72,), jnp.float32),
        jax.random.normal(keys[4], (72,), jnp.float32),
        jax.random.uniform(keys[5], (), jnp.float32, -0.5, 0.5),
    )


def published_example(draws: list[np.ndarray], digit: int) -> list[float]:
    """The paper's steps one after the other, on lists, with the same random numbers."""
    padding, stretch, shift, smooth, fine, tilt = (draw.tolist() for draw in draws)
    shape = np.array(SHAPES.split()).astype(float).reshape(10, 12)[digit]
    shape = (shape - shape.mean()) / shape.std()
    template = [(value - shape[0]) / 6 + 1e-8 for value in shape]  # so that a zero is signal
    signal = resample(template + [0.0] * padding, 72)
    signal = [(1 + 0.4 * stretch) * value for value in signal]
    signal = signal[-shift:] + signal[:-shift] if shift else signal
    noise = gaussian_filter1d(0.25 * np.array(smooth), 2)  # the only step that a library does
    signal = [value or other for value, other in zip(signal, noise.tolist(), strict=True)]
    signal = [
        value + 0.02 * small - 0.75 * tilt * (n / 71 - 0.5)
        for n, (value, small) in enumerate(zip(signal, fine, strict=True))
    ]
    return [(value - MEAN) / STD for value in resample(signal, 40)]


def test_mnist1d_follows_the_papers_steps():
    keys = jax.random.split(jax.random.key(3), 60)
    digits = np.arange(60) % 10
    made = np.asarray(jax.jit(jax.vmap(make_example))(keys, digits))
    draws = zip(*(np.asarray(draw) for draw in numbers(keys)), strict=True)
    for row, digit, example in zip(draws, digits.tolist(), made, strict=True):
        np.testing.assert_allclose(example, published_example(list(row), digit), atol=2e-4)


def test_mnist1d_has_the_moments_of_the_published_set():
    count = 1000  # of each digit
    keys = jax.random.split(jax.random.key(4), 10 * count)
    made = np.asarray(jax.jit(jax.vmap(make_example))(keys, jnp.arange(10 * count) % 10))
    with np.load(GOLDEN) as golden:
        for digit in range(10):
            found = features(made[digit::10].astype(float))
            error = found.std(axis=0) * np.sqrt(1 / count + 1 / golden["count"])
            off = (found.mean(axis=0) - golden["moments"][digit]) / error
            assert np.abs(off).max() < 5, (digit, off)
        assert abs(STD / golden["std"] - 1) < 0.01
    assert abs(made.mean()) < 0.02 and abs(made.std() - 1) < 0.01


@pytest.mark.slow
def test_mnist1d_sets_are_functions_of_their_seed_alone():
    task = MNIST1D(batch_size=7, train_size=20, test_size=10)
    batches = [
        MNIST1D(7, "sequential", 20, 10).sample_batch(jax.random.key(seed), jnp.int32(n))
        for seed, n in ((0, 0), (1, 1), (2, 2))
    ]
    rows = np.concatenate([np.asarray(batch.inputs)[..., 0] for batch in batches])  # [21, 40]
    np.testing.assert_array_equal(rows[20], rows[0])  # it starts again
    labels = np.concatenate([np.asarray(batch.targets) for batch in batches])[:, 0]
    assert labels.tolist() == [n % 10 for n in range(20)] + [0]
    drawn = np.asarray(task.sample_batch(jax.random.key(5), STEP).inputs)[..., 0]
    assert all((rows == row).all(axis=1).any() for row in drawn)  # a part of the same set
    tests = [jax.jit(task.validation_batch)(jnp.int32(n), None) for n in range(2)]
    assert task.num_validation_batches(None) == 2
    test_rows = np.concatenate([np.asarray(batch.inputs)[..., 0] for batch in tests])[:10]
    assert not any((rows == row).all(axis=1).any() for row in test_rows)
    other = MNIST1D(7, "sequential", 20, 10, set_seed=1).sample_batch(jax.random.key(0), STEP)
    assert not np.isclose(other.inputs, batches[0].inputs).all(axis=1).any()
    first = make_example(validation_key(3), jnp.int32(3))
    np.testing.assert_allclose(rows[3], first, atol=1e-5)


@pytest.mark.slow
def test_mnist1d_without_a_set_never_repeats():
    task = MNIST1D(batch_size=500, train_size=None)
    one, again, two = (jax.jit(task.sample_batch)(jax.random.key(seed), STEP) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert len(np.unique(np.asarray(one.inputs)[:, 0, 0])) == 500
    assert (one.inputs != two.inputs).any()
    counts = np.bincount(np.asarray(one.targets)[:, 0], minlength=10)
    np.testing.assert_allclose(counts / 500, 0.1, atol=5 * np.sqrt(0.09 / 500))


def labelled(tmp_path: Path, **changes: np.ndarray) -> Path:
    parts = {"x": SEQUENCES, "y": np.array([0, 1, 2, 0, 1, 2]), "x_test": SEQUENCES[:5] + 0.5}
    parts |= {"y_test": np.array([2, 1, 0, 2, 1])} | changes
    np.savez(tmp_path / "set.npz", **parts)
    return tmp_path / "set.npz"


def test_every_test_sequence_is_scored_once(tmp_path):
    task = LabelledFile(batch_size=3, file=labelled(tmp_path))
    arrays = task.arrays()
    assert task.num_validation_batches(arrays) == 2
    batches = [task.validation_batch(jnp.int32(n), arrays) for n in range(2)]
    weights = np.concatenate([batch.weights for batch in batches])[:, 0]
    inputs = np.concatenate([batch.inputs for batch in batches])[..., 0]
    np.testing.assert_array_equal(inputs[weights > 0], SEQUENCES[:5] + 0.5)
    assert weights.tolist() == [1, 1, 1, 1, 1, 0]
    assert task.files == (task.file,) and task.output_size == 3


def test_random_rows_are_uniform_and_keep_their_labels(tmp_path):
    task = LabelledFile(batch_size=6000, file=labelled(tmp_path))
    batch = task.sample_batch(jax.random.key(0), STEP, task.arrays())
    rows = (np.asarray(batch.inputs)[:, 0, 0] / 4).astype(int)
    np.testing.assert_array_equal(np.asarray(batch.targets)[:, 0], rows % 3)
    counts = np.bincount(rows, minlength=6) / 6000
    np.testing.assert_allclose(counts, 1 / 6, atol=5 * np.sqrt(5 / 36 / 6000))


def test_a_permutation_moves_whole_steps_alike_in_all_sequences(tmp_path):
    plain = LabelledFile(file=labelled(tmp_path)).load()
    moved = LabelledFile(file=labelled(tmp_path), permutation_seed=3).load()
    order = np.asarray(moved[0].inputs[0, :, 0], int)  # the first sequence is 0, 1, 2, 3
    assert sorted(order) == [0, 1, 2, 3] and order.tolist() != [0, 1, 2, 3]
    for one, other in zip(plain, moved, strict=True):
        np.testing.assert_array_equal(one.inputs[:, order], other.inputs)
    task = MNIST1D(2, "sequential"), MNIST1D(2, "sequential", permutation_seed=3)
    one, other = (
        np.asarray(jax.jit(each.sample_batch)(jax.random.key(0), STEP).inputs) for each in task
    )
    np.testing.assert_allclose(np.sort(one, axis=1), np.sort(other, axis=1), atol=1e-5)
    assert (one != other).any()


def test_a_key_gives_the_same_batch_from_one_program_and_under_vmap(tmp_path, images):
    check_batches(MNIST1D(batch_size=3))
    check_batches(LabelledFile(batch_size=3, file=labelled(tmp_path)))
    check_batches(Digits(batch_size=3))
    write_ts(tmp_path, *(line(length, "1") for length in range(2, 20)))
    check_batches(JapaneseVowels(batch_size=3, folder=tmp_path))


BAD_FILES = {
    "no file": (None, FileNotFoundError, "No such file"),
    "text": (b"x", RunError, "must be an .npz file with the arrays x, y, x_test, y_test"),
    "labels": ({"y": np.zeros(6)}, RunError, "y must have whole numbers from 0"),
    "class": ({"y_test": np.array([0, 1, 3, 0, 0])}, RunError, "whole numbers from 0 to 2"),
    "count": ({"y": np.array([0, 1])}, RunError, r"must have sequences \[N, T, F\] and labels"),
    "steps": ({"x_test": SEQUENCES[:5, :2]}, RunError, "differ in"),
    "nan": ({"x": SEQUENCES * np.nan}, RunError, "not finite"),
    "strings": ({"x": SEQUENCES.astype(str)}, RunError, "x must have real numbers"),
    "pickle": ({"x": np.array([{}], dtype=object)}, RunError, "must be an .npz file"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_named_in_one_line(tmp_path, case):
    content, error, message = BAD_FILES[case]
    file = tmp_path / "set.npz"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        labelled(tmp_path, **content)
    with pytest.raises(error, match=message) as refused:
        LabelledFile(file=file).arrays()
    assert "\n" not in str(refused.value) and "set.npz" in str(refused.value)


@pytest.fixture
def images(tmp_path, monkeypatch) -> np.ndarray:
    """A file like scikit-learn's: the values are 0 to 16; the last column is the digit."""
    draws = np.random.default_rng(0)
    table = draws.integers(0, 17, (digits_module.NUM_TRAIN + 3, 65))
    table[:, 64] = np.arange(len(table)) % 10
    np.savetxt(tmp_path / "digits.csv.gz", table, "%d", ",")
    monkeypatch.setattr(digits_module, "package_file", lambda *_: tmp_path / "digits.csv.gz")
    return table


def test_digits_are_read_by_row_or_by_pixel(images):
    train, test = Digits().load()
    assert train.inputs.shape == (1437, 8, 8) and test.inputs.shape == (3, 8, 8)
    np.testing.assert_array_equal(train.inputs[5], images[5, :64].reshape(8, 8) / 16)
    np.testing.assert_array_equal(test.labels, images[1437:, 64])
    pixels, _ = Digits(view="pixels").load()
    np.testing.assert_array_equal(pixels.inputs[5, :, 0], images[5, :64] / 16)
    moved, _ = Digits(view="pixels", permutation_seed=0).load()
    assert (moved.inputs != pixels.inputs).any()
    np.testing.assert_array_equal(np.sort(moved.inputs, axis=1), np.sort(pixels.inputs, axis=1))


def test_a_file_without_the_digit_is_refused(images, tmp_path):
    np.savetxt(tmp_path / "digits.csv.gz", images[:, :64], "%d", ",")
    with pytest.raises(RunError, match="does not have rows of 64 pixels and a digit"):
        Digits().load()


def test_new_examples_have_no_order():
    with pytest.raises(SettingError, match="order sequential needs a training set"):
        MNIST1D(train_size=None, order="sequential")


@pytest.mark.slow
def test_digits_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    train, test = Digits().load()
    data = datasets.load_digits()
    images = np.concatenate([train.inputs, test.inputs])
    np.testing.assert_array_equal(images, data.images / 16)
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), data.target)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"aeon is not installed: pip install 'jaxrnn\[data\]'"):
        JapaneseVowels().arrays()


def write_ts(folder: Path, *lines: str) -> None:
    for part in ("TRAIN", "TEST"):
        text = "\n".join(["# a comment: with a colon", "@classLabel true 1 2", "@data", *lines])
        (folder / f"JapaneseVowels_{part}.ts").write_text(text + "\n")


def line(length: int, label: str, features: int = 12) -> str:
    columns = (",".join(f"{10 * f + t}" for t in range(length)) for f in range(1, features + 1))
    return ":".join([*columns, label])


def test_vowels_are_padded_and_have_lengths(tmp_path):
    write_ts(tmp_path, line(2, "1"), line(29, "9"))
    task = JapaneseVowels(batch_size=2, order="sequential", folder=tmp_path)
    batch = task.sample_batch(jax.random.key(0), STEP, task.arrays())
    assert batch.inputs.shape == (2, 29, 12) and batch.targets.tolist() == [[0], [8]]
    assert batch.lengths is not None and batch.lengths.tolist() == [2, 29]
    assert batch.inputs[0, :, 0].tolist() == [10.0, 11.0] + [0.0] * 27
    assert batch.inputs[1, 28].tolist() == [10.0 * f + 28 for f in range(1, 13)]


def test_rows_of_other_lengths_share_one_compiled_training_step(tmp_path):
    """Whatever they are padded with."""
    task, key = JapaneseVowels(batch_size=1, folder=tmp_path), jax.random.key(0)
    model, optimizer = SequenceClassifier(Recurrent(GRUCell(4)), 9), optax.sgd(0.1)
    train_step: Any = jax.jit(make_train_step(task, model, optimizer))
    x = np.random.default_rng(0).normal(size=(1, 29, 12)).astype(np.float32)
    other = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    target, weight = np.zeros((1, 1), np.int32), np.ones((1, 1), np.float32)
    batch = Batch(*map(jnp.asarray, (x, target, weight, np.array([29], np.int32))))
    state = init_state(key, task, model, optimizer, batch)
    losses = []
    for length in (2, 9, 17, 29):
        there = np.arange(29)[None, :, None] < length
        for inputs in (np.where(there, x, np.float32(0)), np.where(there, x, other)):
            batch = batch._replace(inputs=jnp.asarray(inputs), lengths=jnp.array([length]))
            losses.append(float(train_step(state, batch, key)[1]["loss"]))
    assert train_step._cache_size() == 1
    assert losses[::2] == losses[1::2] and len(set(losses)) == 4


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("1,2:3", "line 4, must have 12 features of 1 to 29 steps"),
        (line(30, "1"), "line 4, must have 12 features"),
        (line(3, "ten"), "line 4, is not a sequence and its label"),
        (line(3, "1").replace("11", "x"), "line 4, is not a sequence and its label"),
        (line(3, "10"), "whole numbers from 0 to 8 as labels"),
        (line(3, "1").replace("10,", "nan,", 1), "not finite"),
        ("", "has no sequences"),
    ],
)
def test_bad_ts_files_are_named_in_one_line(tmp_path, bad, message):
    write_ts(tmp_path, bad)
    with pytest.raises(RunError, match=message) as refused:
        JapaneseVowels(folder=tmp_path).arrays()
    assert "\n" not in str(refused.value) and "TRAIN.ts" in str(refused.value)
    (tmp_path / "JapaneseVowels_TRAIN.ts").write_text("1:2")
    with pytest.raises(RunError, match="it has no line @data"):
        JapaneseVowels(folder=tmp_path).arrays()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("aeon") is None, reason="aeon is not installed")
def test_vowels_of_aeon():
    train, test = JapaneseVowels().load()
    assert train.inputs.shape == (270, 29, 12) and test.inputs.shape == (370, 29, 12)
    assert (train.lengths.min(), max(train.lengths.max(), test.lengths.max())) == (7, 29)
    assert np.bincount(train.labels).tolist() == [30] * 9
    assert np.bincount(test.labels).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (MNIST1D, {"batch_size": 0}, "batch size must be at least 1"),
        (MNIST1D, {"train_size": 0}, "train size must be at least 1"),
        (MNIST1D, {"test_size": 1.5}, "test size must be a whole number"),
        (MNIST1D, {"set_seed": -1}, "set seed must be a whole number from 0"),
        (MNIST1D, {"permutation_seed": 2**32}, "permutation seed must be a whole number from 0"),
        (Digits, {"order": "shuffled"}, "order must be random or sequential, not 'shuffled'"),
        (Digits, {"view": "columns"}, "view must be rows or pixels, not 'columns'"),
    ],
)
def test_invalid_settings_raise(make, settings, message):
    with pytest.raises(SettingError, match=message):
        make(**settings)


def test_tasks_are_restored_from_json_and_know_when_they_are_solved():
    for task in (MNIST1D(train_size=None), Digits(view="pixels"), JapaneseVowels(27)):
        assert type(task)(**json.loads(json.dumps(dataclasses.asdict(task)))) == task
        target = type(task).target_accuracy
        accuracy = np.array([np.nan, target - 0.01, target])
        assert task.solved({"validation_accuracy": accuracy}).tolist() == [False, False, True]


@pytest.mark.slow
def test_the_memoryless_loss_is_that_of_the_best_constant():
    task = MNIST1D(batch_size=1000, order="sequential")
    batch = task.sample_batch(jax.random.key(0), STEP)
    constants = jax.random.normal(jax.random.key(1), (20, 1, 1, 10)) * 0.1
    constants = constants.at[0].set(0.0)
    losses = [task.loss(jnp.tile(each, (1000, 1, 1)), batch) for each in constants]
    assert np.argmin(losses) == 0
    np.testing.assert_allclose(losses[0], task.memoryless_loss, rtol=1e-6)


def test_the_memoryless_loss_of_a_file_is_that_of_its_frequencies(tmp_path):
    labels = np.array([0, 2, 2, 2, 2, 2])  # there is no 1 to train on
    task = LabelledFile(batch_size=6, order="sequential", file=labelled(tmp_path, y=labels))
    batch = jax.jit(task.sample_batch)(jax.random.key(0), STEP, task.arrays())
    measure = jax.jit(task.loss)
    shares = [(1 / 6, 1e-9, 5 / 6), (1 / 5, 1e-9, 4 / 5), (1 / 8, 1e-9, 7 / 8), (1 / 3,) * 3]
    logits = [np.broadcast_to(np.log(row), (6, 1, 3)).astype(np.float32) for row in shares]
    frequencies, *others = (float(measure(outputs, batch)) for outputs in logits)
    assert task.memoryless_loss == pytest.approx(frequencies, rel=1e-6)
    assert all(task.memoryless_loss < other for other in others)


def make_file(folder: Path) -> Classification:
    x = np.random.default_rng(0).normal(size=(60, 5))
    y = (x[:, 0] > 0).astype(int)  # the first step, four steps before the end
    return LabelledFile(20, file=labelled(folder, x=x, y=y, x_test=x, y_test=y))


def make_digits(folder: Path) -> Classification:
    """Each digit is an image of its own, with noise."""
    draws = np.random.default_rng(0)
    images = 12 * draws.integers(0, 2, (10, 64))
    digits = np.arange(digits_module.NUM_TRAIN + 50) % 10
    pixels = images[digits] + draws.integers(0, 5, (len(digits), 64))
    np.savetxt(folder / "digits.csv.gz", np.column_stack([pixels, digits]), "%d", ",")
    return Digits(32)


def make_vowels(folder: Path) -> Classification:
    """Each speaker raises another coefficient."""
    draws = np.random.default_rng(0)
    for part in ("TRAIN", "TEST"):
        rows = []
        for n in range(90):
            x = draws.normal(size=(12, draws.integers(7, 30))).round(2)
            x[n % 9] += 2
            rows.append(":".join([*(",".join(map(str, feature)) for feature in x), str(n % 9 + 1)]))
        (folder / f"JapaneseVowels_{part}.ts").write_text("\n".join(["@data", *rows]))
    return JapaneseVowels(30, folder=folder)


LEARNED: dict[str, tuple[Callable[[Path], Classification], int, int, Any, float]] = {
    "file": (make_file, 8, 250, "last", 0.95),
    "digits": (make_digits, 16, 100, "last", 0.9),
    "vowels": (make_vowels, 16, 150, "last", 0.9),
    "MNIST-1D": (lambda _: MNIST1D(25, train_size=None, test_size=100), 24, 250, "flatten", 0.6),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED)
def test_a_small_instance_is_learned(tmp_path, monkeypatch, name):
    monkeypatch.setattr(digits_module, "package_file", lambda *_: tmp_path / "digits.csv.gz")
    make, units, steps, pool, bound = LEARNED[name]
    task = make(tmp_path)
    model = SequenceClassifier(Recurrent(GRUCell(units)), task.output_size, pool=pool)
    train = TrainConfig(steps, 2e-2, schedule="linear", flatten=True)
    _, metrics = jax.jit(make_train(ExperimentConfig(task, model, train)))(0)
    assert metrics["loss"][-10:].mean() < 0.5 * task.memoryless_loss
    assert metrics["validation_accuracy"][-1] > bound
