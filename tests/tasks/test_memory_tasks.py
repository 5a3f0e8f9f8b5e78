"""Adding as in 1997, selective copy and temporal order, checked with plain Python from the papers.

Statistical bounds are five standard errors wide; the keys are fixed.
"""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn.cells import GRUCell, LSTMCell
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.tasks.adding import Adding
from jaxrnn.tasks.base import Task
from jaxrnn.tasks.copy_memory import CopyMemory
from jaxrnn.tasks.selective_copy import SelectiveCopy
from jaxrnn.tasks.temporal_order import TemporalOrder
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.loop import make_train
from jaxrnn.types import Batch

MANY = 20_000  # rows


@cache
def sample(task: Task) -> Batch:
    return jax.device_get(jax.jit(task.sample_batch)(jax.random.key(0), 0))


def within_chance(counts: Any, n: int) -> None:
    """Fail for counts [K] of n draws that are not uniform over the K."""
    share = 1 / len(counts)
    np.testing.assert_allclose(
        np.asarray(counts) / n, share, atol=5 * np.sqrt(share * (1 - share) / n)
    )


def read(inputs: np.ndarray) -> np.ndarray:
    """The symbols [...] of one-hot vectors, [..., F]; -1 for a vector of zeros."""
    assert ((inputs == 0) | (inputs == 1)).all() and (inputs.sum(axis=-1) <= 1).all()
    return np.where(inputs.any(axis=-1), inputs.argmax(axis=-1), -1)


def loss_of_frequencies(task: Task, batch: Batch) -> float:
    """The loss of always predicting how often each class is right, counted in the batch."""
    counts = np.bincount(batch.targets[batch.weights > 0], minlength=task.output_size)
    outputs = np.log(counts / counts.sum()).astype(np.float32)
    outputs = np.broadcast_to(outputs, (*batch.targets.shape, task.output_size))
    return float(jax.jit(task.loss)(outputs, batch))


def test_adding_of_1997_as_the_paper_defines_it():
    least = 30
    batch = sample(Adding(least, 1000, variant="1997"))
    assert batch.inputs.shape == (1000, 33, 2) and batch.lengths is not None
    lengths = batch.lengths.tolist()
    assert set(lengths) == {30, 31, 32, 33}
    for row, target, weight, length in zip(*batch[:3], lengths, strict=True):
        assert not row[length:].any()
        assert weight.tolist() == [float(t == length - 1) for t in range(33)]
        numbers, markers = row[:length].T
        assert np.all((numbers >= -1) & (numbers < 1))
        assert markers[0] == markers[-1] == -1.0
        marked = [t for t in range(length) if markers[t] == 1.0]
        assert all(markers[t] == 0.0 for t in range(1, length - 1) if t not in marked)
        assert len(marked) == 2 or (len(marked) == 1 and marked[0] > 0)  # else the first is marked
        assert min(marked) < 10 or len(marked) == 1
        assert max(marked) <= least // 2 - 1  # of T / 2 - 1 unmarked steps beside a marked one
        np.testing.assert_allclose(target[length - 1], 0.5 + numbers[marked].sum() / 4, rtol=1e-6)


def test_adding_of_1997_draws_markers_as_the_paper_does():
    """Compared with all equally likely draws, made by removing one step from a list."""
    task = Adding(20, MANY, variant="1997")
    markers = sample(task).inputs[..., 1] == 1.0
    expected = np.zeros((20, 20))
    for first in range(10):
        unmarked = [t for t in range(20) if t != first]
        for second in unmarked[: 20 // 2 - 1]:
            a, b = sorted((first, second))
            expected[a, b] += 1 / 10 / 9
    found = np.zeros((20, 20))
    for row in markers:
        at = np.flatnonzero(row).tolist()
        found[tuple(at) if len(at) == 2 else (0, at[0])] += 1
    error = 5 * np.sqrt(expected * (1 - expected) / MANY) + 1e-12
    assert np.all(abs(found / MANY - expected) <= error)


def test_adding_of_1997_baseline_is_the_variance_of_the_target():
    task = Adding(20, MANY, variant="1997")
    batch = sample(task)
    targets = batch.targets[batch.weights > 0]
    assert abs(targets.mean() - 0.5) < 5 * np.sqrt(task.memoryless_loss / MANY)
    outputs = jnp.full((*batch.targets.shape, 1), 0.5)
    errors = (targets - 0.5) ** 2
    loss = float(task.loss(outputs, batch))
    np.testing.assert_allclose(loss, errors.mean(), rtol=1e-4)
    assert abs(loss - task.memoryless_loss) < 5 * errors.std() / np.sqrt(MANY)
    assert task.memoryless_loss < 1 / 24 < 1.2 * task.memoryless_loss


def test_the_plain_sum_has_the_bits_it_always_had():
    inputs = sample(Adding(6, 1)).inputs
    expected = [0.84231412, 0.18237865, 0.2271781, 0.12072563, 0.19181347, 0.72201502]
    np.testing.assert_array_equal(inputs[0, :, 0], np.array(expected, np.float32))


@pytest.mark.parametrize(("length", "symbols", "copied"), [(9, 3, 4), (4, 2, 4), (40, 8, 10)])
def test_selective_copy_repeats_the_symbols_in_order(length, symbols, copied):
    batch = sample(SelectiveCopy(length, 50, symbols, copied))
    assert batch.inputs.shape == (50, length + copied, symbols + 2)
    for inputs, targets, weights in zip(*batch[:3], strict=True):
        row = read(inputs).tolist()
        assert row[length] == symbols + 1 and row[length + 1 :] == [symbols] * (copied - 1)
        kept = [symbol for symbol in row[:length] if symbol != symbols]
        assert len(kept) == copied and max(kept) < symbols
        assert targets[length:].tolist() == kept
        assert weights.tolist() == [0.0] * length + [1.0] * copied


def test_selective_copy_is_uniform_over_places_and_symbols():
    task = SelectiveCopy(5, MANY, num_symbols=3, num_copied=2)
    batch = sample(task)
    blank = batch.inputs[:, :5, 3] == 1
    places = [tuple(np.flatnonzero(~row).tolist()) for row in blank]
    pairs = [(a, b) for a in range(5) for b in range(a + 1, 5)]
    within_chance([places.count(pair) for pair in pairs], MANY)
    both = 3 * batch.targets[:, 5] + batch.targets[:, 6]
    within_chance(np.bincount(both, minlength=9), MANY)
    assert loss_of_frequencies(task, batch) == pytest.approx(task.memoryless_loss, rel=1e-3)


RANGES = {"6a": [(10, 20), (50, 60)], "6b": [(10, 20), (33, 43), (66, 76)]}
CLASSES = {  # the paper's rules: Q, R, S, U, V, A, B, C
    "6a": ["XX", "XY", "YX", "YY"],
    "6b": ["XXX", "XXY", "XYX", "XYY", "YXX", "YXY", "YYX", "YYY"],
}


@pytest.mark.parametrize("variant", RANGES)
def test_temporal_order_as_the_paper_defines_it(variant):
    task = TemporalOrder(batch_size=400, variant=variant)
    batch = sample(task)
    assert batch.lengths is not None
    lengths = batch.lengths.tolist()
    assert set(lengths) == set(range(100, 111))
    seen = [set() for _ in RANGES[variant]]
    symbols = read(np.asarray(batch.inputs)).tolist()
    for ids, targets, weights, length in zip(symbols, *batch[1:3], lengths, strict=True):
        assert set(ids[length:]) <= {-1}
        string = "".join("EBabcdXY"[n] for n in ids[:length])
        assert string[0] == "E" and string[-1] == "B"
        assert not set(string[1:-1]) & set("EB")
        places = [t for t, symbol in enumerate(string) if symbol in "XY"]
        for place, (low, high), found in zip(places, RANGES[variant], seen, strict=True):
            assert low <= place <= high
            found.add(place)
        order = "".join(string[t] for t in places)
        assert CLASSES[variant][targets[length - 1]] == order
        assert weights.tolist() == [float(t == length - 1) for t in range(110)]
    assert all(len(found) == 11 for found in seen)  # both ends are included


@pytest.mark.parametrize("variant", RANGES)
def test_temporal_order_classes_and_noise_are_uniform(variant):
    task = TemporalOrder(10, MANY, variant)
    batch = sample(task)
    within_chance(np.bincount(batch.targets[:, 0], minlength=task.output_size), MANY)
    counts = batch.inputs[:, :, 2:6].sum(axis=(0, 1))
    within_chance(counts, int(counts.sum()))
    assert loss_of_frequencies(task, batch) == pytest.approx(task.memoryless_loss, rel=1e-3)


def test_temporal_order_counts_outputs_within_three_tenths():
    task = TemporalOrder(10, 4)
    batch = sample(task)
    right = np.eye(4)[batch.targets[:, 0]]
    others = (1 - right) / 3
    shares = np.stack([(0.71 * r + 0.29 * o) for r, o in zip(right, others, strict=True)])
    shares[1] = 0.69 * right[1] + 0.31 * others[1]  # right, but not sure enough
    shares[2] = np.roll(right[2], 1) * 0.97 + 0.01  # wrong
    outputs = np.log(shares)[:, None].repeat(11, axis=1).astype(np.float32)
    found = jax.jit(task.metrics)(outputs, batch)
    assert (float(found["accuracy"]), float(found["within"])) == (0.75, 0.5)


@pytest.mark.parametrize(
    ("task", "edge"), [(Adding(20, variant="1997"), 0.01), (TemporalOrder(), 0.1)]
)
def test_solved_needs_every_sequence_of_2000_and_a_low_error(task, edge):
    assert task.num_validation_batches(None) * task.batch_size == 2000
    loss = np.array([0, 0.99 * edge, 1.01 * edge, 0, np.nan], np.float32)
    within = np.array([1, 1, 1, 1999 / 2000, np.nan], np.float32)
    metrics = {"validation_loss": loss, "validation_within": within}
    assert task.solved(metrics).tolist() == [True, True, False, False, False]
    assert jax.jit(task.solved)(metrics).tolist() == [True, True, False, False, False]


def test_validation_batches_differ_from_each_other_and_from_training():
    task = TemporalOrder(10, 20)
    make = jax.jit(task.validation_batch)
    a, again, b = (make(n, None) for n in (0, 0, 1))
    np.testing.assert_array_equal(a.inputs, again.inputs)
    assert (np.asarray(a.inputs) != np.asarray(b.inputs)).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adding(10, variant="1997"), "at least 11: ten steps to mark"),
        (lambda: Adding(variant="product"), "variant must be sum or 1997, not 'product'"),
        (lambda: SelectiveCopy(3, num_copied=4), "sequence length must be at least num copied, 4"),
        (lambda: SelectiveCopy(num_symbols=1), "num symbols must be at least 2"),
        (lambda: SelectiveCopy(num_copied=0), "num copied must be at least 1"),
        (lambda: TemporalOrder(9), "sequence length must be at least 10"),
        (lambda: TemporalOrder(variant="6c"), "variant must be 6a or 6b, not '6c'"),
    ],
)
def test_invalid_settings_raise(make, message):
    with pytest.raises(SettingError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)


LEARNED = {
    "adding": (Adding(6, 32), LSTMCell(16), 200, 0.1 / 6),
    "adding 1997": (Adding(11, 50, variant="1997"), LSTMCell(16), 350, 0.2 / 24),
    "copy": (CopyMemory(2, 20, 3, 2), LSTMCell(16), 200, 0.1 * 2 * np.log(3) / 6),
    "selective copy": (SelectiveCopy(6, 50, 3, 2), GRUCell(24), 250, 0.3 * np.log(3)),
    "temporal order 6a": (TemporalOrder(10, 50), GRUCell(16), 150, 0.2 * np.log(4)),
    "temporal order 6b": (TemporalOrder(10, 50, "6b"), GRUCell(16), 200, 0.3 * np.log(8)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED)
def test_a_small_instance_is_learned(name):
    task, cell, steps, bound = LEARNED[name]
    model = SequenceModel(Recurrent(cell), task.output_size)
    train = TrainConfig(steps, 2e-2, flatten=True)
    _, metrics = jax.jit(make_train(ExperimentConfig(task, model, train)))(0)
    assert metrics["loss"][-20:].mean() < bound
