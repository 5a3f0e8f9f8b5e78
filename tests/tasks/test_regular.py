"""The regular languages, checked with plain Python from their definitions.

Statistical bounds are five standard errors wide; the keys are fixed.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn.cells import ElmanCell, GRUCell
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.tasks.regular import (
    CycleNavigation,
    EvenPairs,
    ModularArithmetic,
    Parity,
    Permutations,
)
from jaxrnn.tasks.regular.base import RegularTask
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.loop import make_train
from jaxrnn.types import Batch


def parity(symbols: list[int]) -> int:
    return "".join(map(str, symbols)).count("1") % 2


def even_pairs(symbols: list[int]) -> int:
    pairs = [f"{a}{b}" for a, b in itertools.pairwise(symbols)]
    return (pairs.count("01") + pairs.count("10")) % 2


def navigate(symbols: list[int]) -> int:
    place = 0
    for move in symbols:
        place += {0: -1, 1: 0, 2: 1}[move]
        place = {-1: 4, 5: 0}.get(place, place)
    return place


def calculate(symbols: list[int]) -> int:
    text = "".join("01234+-*"[symbol] for symbol in symbols)
    return eval(text.rstrip("+-*")) % 5


def multiply(symbols: list[int]) -> int:
    everything = list(itertools.permutations(range(4)))
    things = tuple(range(4))
    for symbol in symbols:
        things = tuple(everything[symbol][thing] for thing in things)
    return everything.index(things)


SMALL: dict[str, Any] = {"max_length": 9, "test_max_length": 20}
CASES: dict[str, tuple[RegularTask, Callable[[list[int]], int]]] = {
    "parity": (Parity(**SMALL), parity),
    "even pairs": (EvenPairs(**SMALL), even_pairs),
    "cycle navigation": (CycleNavigation(**SMALL), navigate),
    "modular arithmetic": (ModularArithmetic(**SMALL), calculate),
    "every value": (ModularArithmetic(**SMALL, every_step=True), calculate),
    "permutations": (Permutations(**SMALL, num_elements=4), multiply),
}


def sample(task: RegularTask, rows: int | None = None) -> Batch:
    key = jax.random.key(0)
    if rows is None:
        return jax.device_get(jax.jit(task.sample_batch)(key, 0))
    lengths = jnp.full(rows, task.max_length, jnp.int32)
    batch = jax.jit(task.batch, static_argnums=2)(key, lengths, task.max_length)
    return jax.device_get(batch)


def read(batch: Batch) -> list[tuple[list[int], np.ndarray, np.ndarray]]:
    """The symbols, targets and weights of each row, without the padding."""
    rows = []
    assert batch.lengths is not None
    for inputs, targets, weights, length in zip(
        *batch[:3], np.asarray(batch.lengths).tolist(), strict=True
    ):
        assert not inputs[length:].any() and not weights[length:].any()
        assert set(inputs[:length].sum(axis=1)) == {1.0} == set(inputs[:length].max(axis=1))
        symbols = inputs[:length].argmax(axis=1).tolist()
        rows.append((symbols, targets[:length], weights[:length]))
    return rows


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", CASES)
def test_answers_and_lengths(name):
    task, answer = CASES[name]
    odd = isinstance(task, ModularArithmetic)
    rows = read(sample(task))
    found = {len(symbols) for symbols, *_ in rows}
    lengths = range(task.min_length, task.max_length + 1)
    assert found == {n for n in lengths if n % 2 or not odd}
    rows += read(jax.device_get(jax.jit(task.validation_batch)(0, None)))
    for symbols, targets, weights in rows:
        for t in range(len(symbols)):
            assert targets[t] == answer(symbols[: t + 1])
        last = [0.0] * (len(symbols) - 1) + [1.0]
        assert weights.tolist() == ([1.0] * len(symbols) if task.every_step else last)
        if odd:
            assert all((symbol < 5) == (t % 2 == 0) for t, symbol in enumerate(symbols))
    tested = [len(symbols) for symbols, *_ in rows[task.batch_size :]]
    assert tested == [n - (odd and n % 2 == 0) for n in range(10, 21)]


@pytest.mark.parametrize("name", CASES)
def test_symbols_are_uniform_and_lengths_too(name):
    task, _ = CASES[name]
    inputs = sample(task, 6000).inputs  # [B, T, F]
    counts = inputs.sum(axis=0)  # [T, F]
    for step in counts if not isinstance(task, ModularArithmetic) else ():
        share = 1 / task.input_size
        error = 5 * np.sqrt(share * (1 - share) / 6000)
        np.testing.assert_allclose(step / 6000, share, atol=error)
    if isinstance(task, ModularArithmetic):
        np.testing.assert_allclose(counts[::2, :5] / 6000, 1 / 5, atol=0.026)
        np.testing.assert_allclose(counts[1::2, 5:] / 6000, 1 / 3, atol=0.031)
    symbols = inputs.argmax(axis=2)
    assert abs(np.corrcoef(symbols[:, 0], symbols[:, 2])[0, 1]) < 5 / np.sqrt(6000)
    many: Any = type(task)(min_length=2, max_length=5, test_max_length=6, batch_size=6000)
    lengths = sample(many).lengths
    assert lengths is not None
    found = np.bincount(lengths, minlength=6) / 6000
    odd = [0, 1 / 4, 0, 1 / 2, 0, 1 / 4]  # 2 -> 1, 3 and 4 -> 3, 5
    uniform = [0, 0, 1 / 4, 1 / 4, 1 / 4, 1 / 4]
    np.testing.assert_allclose(
        found, odd if isinstance(task, ModularArithmetic) else uniform, atol=0.033
    )


@pytest.mark.parametrize("name", CASES)
def test_the_baseline_is_the_entropy_of_all_strings_answers(name):
    """Compared with an enumeration of all strings up to three symbols, equally long ones alike."""
    task, answer = CASES[name]
    short = type(task)(max_length=3, test_max_length=4, every_step=task.every_step)
    if isinstance(task, Permutations):
        short = Permutations(min_length=1, max_length=2, test_max_length=4, num_elements=4)
    shares = np.zeros(short.output_size)
    for length in range(short.min_length, short.max_length + 1):
        last = length - (length + 1) % 2 if isinstance(task, ModularArithmetic) else length
        for step in range(1, last + 1) if short.every_step else [last]:
            kinds = [range(short.input_size)] * step
            if isinstance(task, ModularArithmetic):
                kinds = [range(5) if t % 2 == 0 else range(5, 8) for t in range(step)]
            answers = [answer(list(string)) for string in itertools.product(*kinds)]
            shares += np.bincount(answers, minlength=short.output_size) / len(answers)
    shares /= shares.sum()
    entropy = -np.sum(shares * np.log(np.where(shares > 0, shares, 1.0)))
    assert short.memoryless_loss == pytest.approx(entropy, rel=1e-6)
    many: Any = type(task)(
        min_length=short.min_length,
        max_length=short.max_length,
        test_max_length=4,
        every_step=short.every_step,
        batch_size=20_000,
        **({"num_elements": 4} if isinstance(task, Permutations) else {}),
    )
    batch = sample(many)
    outputs = np.log(np.maximum(shares, 1e-9)).astype(np.float32)
    outputs = np.broadcast_to(outputs, (*batch.targets.shape, short.output_size))
    assert float(jax.jit(many.loss)(outputs, batch)) == pytest.approx(entropy, abs=0.02)


def test_the_papers_examples():
    assert parity([1, 0, 1, 0, 1, 0, 0]) == 1 and parity([0, 1, 1, 1, 1]) == 0
    assert even_pairs([0, 0, 1, 1, 1, 0]) == 0 and even_pairs([0, 1, 0, 1, 0, 0, 1]) == 1
    calculated = jax.jit(ModularArithmetic().answers)
    for text, value in {"1+2*3": 2, "1-1-1": 4, "0*1+4*3-2": 0}.items():
        symbols = ["01234+-*".index(c) for c in text]
        assert calculated(jnp.array([symbols]))[0, -1] == value
    for moves, place in {(1, -1, 0, -1, -1): 3, (1, 1, 1, -1): 2}.items():
        assert CycleNavigation().answers(jnp.array([moves]) + 1)[0, -1] == place


def test_published_settings_are_the_defaults():
    task = Parity()
    assert (task.min_length, task.max_length, task.test_max_length) == (1, 40, 500)
    assert task.batch_size == 128 and task.chance_accuracy == 1 / 2
    assert task.length_groups == (50, 100, 150, 200, 250, 300, 350, 400, 450, 500)
    batch = jax.eval_shape(task.validation_batch, jnp.int32(0), None)
    assert batch.inputs.shape == (460, 500, 2)
    state_tracking = Parity(min_length=3, test_max_length=256)
    assert state_tracking.length_groups == (50, 100, 150, 200, 250, 256)
    assert Permutations().output_size == 120 and Permutations().chance_accuracy == 1 / 120


def test_solved_at_a_score_of_nine_tenths():
    score = np.array([0.89, 0.9, 1.0, np.nan, np.inf])
    for solved in (Parity().solved, jax.jit(Parity().solved)):
        assert solved({"validation_accuracy": score}).tolist() == [False, True, True, False, False]


def test_other_test_strings_in_each_validation_batch():
    task = Parity(**SMALL, strings_per_length=2)
    assert task.num_validation_batches(None) == 2
    compiled = jax.jit(task.validation_batch)
    first, second = (compiled(n, None).inputs for n in range(2))
    assert (np.asarray(first) != np.asarray(second)).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Parity(min_length=0), "min length must be at least 1"),
        (lambda: Parity(min_length=41), "max length must be at least min length, 41"),
        (lambda: Parity(test_max_length=40), "test max length must be more than max length, 40"),
        (lambda: EvenPairs(batch_size=0), "batch size must be at least 1"),
        (lambda: CycleNavigation(num_places=1), "num places must be a whole number from 2"),
        (lambda: ModularArithmetic(modulus=1), "modulus must be a whole number from 2 to 1000"),
        (lambda: Permutations(num_elements=7), "num elements must be a whole number from 2 to 6"),
    ],
)
def test_invalid_settings_raise(make, message):
    with pytest.raises(SettingError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)


LEARNED: dict[str, tuple[RegularTask, Any, int]] = {
    "parity": (Parity(1, 5, 8, 40), ElmanCell(32), 300),
    "even pairs": (EvenPairs(1, 6, 12, 40), GRUCell(16), 120),
    "cycle navigation": (CycleNavigation(1, 6, 9, 40), GRUCell(24), 250),
    "modular arithmetic": (ModularArithmetic(1, 3, 5, 40), GRUCell(32), 300),
    "permutations": (Permutations(2, 4, 6, 40, num_elements=3), GRUCell(24), 250),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED)
def test_a_small_instance_is_learned(name):
    """Longer strings than in training, too."""
    task, cell, steps = LEARNED[name]
    model = SequenceModel(Recurrent(cell), task.output_size)
    train = TrainConfig(steps, 2e-2, flatten=True)
    _, metrics = jax.jit(make_train(ExperimentConfig(task, model, train)))(0)
    assert metrics["accuracy"][-10:].mean() > 0.9
    assert metrics["validation_accuracy_by_length"].shape == (steps + 1, 1)
    assert metrics["validation_accuracy"][-1] > 1.2 * task.chance_accuracy
