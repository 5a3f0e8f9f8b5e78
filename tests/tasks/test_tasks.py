"""The memory tasks: their batches, checked with NumPy, and their memoryless baselines.

Statistical bounds are five standard errors wide; the keys are fixed.
"""

import dataclasses
import json
from functools import cache, partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tasks.same_batches import check_batches

from jaxrnn.errors import SettingError
from jaxrnn.tasks import TASKS, register_task
from jaxrnn.tasks.adding import Adding
from jaxrnn.tasks.base import Task
from jaxrnn.tasks.copy_memory import CopyMemory
from jaxrnn.tasks.next_character import NextCharacter
from jaxrnn.types import Batch, Metrics

STEP = jnp.int32(0)
MANY = 20_000  # rows
MANY_SUMS = Adding(sequence_length=7, batch_size=MANY)
MANY_COPIES = CopyMemory(delay=6, batch_size=MANY, num_symbols=4, num_copied=3)


@cache
def sample(task: Task) -> Batch:
    return jax.jit(task.sample_batch)(jax.random.key(0), STEP)


SMALL: dict[str, dict[str, Any]] = {
    "adding": {"sequence_length": 9},
    "copy": {"delay": 9},
    "selective-copy": {"sequence_length": 9, "num_copied": 4},
    "temporal-order": {"sequence_length": 10},
    "parity": {"test_max_length": 50},
    "even-pairs": {"test_max_length": 50},
    "cycle-navigation": {"test_max_length": 50},
    "modular-arithmetic": {"test_max_length": 50},
    "permutations": {"num_elements": 3},
}
"""Settings of small instances of the tasks in `TASKS`."""


def make_small(name: str) -> Any:
    return cast(Any, TASKS[name])(batch_size=3, **SMALL[name])


def sample_many(task: Task, keys: jax.Array) -> Batch:
    return jax.jit(jax.vmap(task.sample_batch, in_axes=(0, None)))(keys, STEP)


@partial(jax.jit, static_argnums=0)
def evaluate(task: Task, outputs: jax.typing.ArrayLike, batch: Batch) -> Metrics:
    outputs = jnp.asarray(outputs)
    return {"loss": task.loss(outputs, batch)} | task.metrics(outputs, batch)


def within_chance(counts: np.ndarray, n: int) -> None:
    """Fail for counts [K] or [..., K] of n draws each that are not uniform over the K."""
    share = 1 / counts.shape[-1]
    np.testing.assert_allclose(counts / n, share, atol=5 * np.sqrt(share * (1 - share) / n))


def copies(row: np.ndarray, symbols: int, steps: int) -> list[int]:
    """The targets, computed by reading a row of one-hot vectors step by step."""
    memory, waits, said = [], True, []
    for vector in row:
        assert sorted(vector) == [0.0] * (len(vector) - 1) + [1.0]
        read = int(np.flatnonzero(vector)[0])
        said.append(symbols if waits else memory.pop(0))
        if read < symbols:
            memory.append(read)
        waits = waits and read != symbols + 1  # from the step after the delimiter on it speaks
    assert not waits and not memory and len(said) == steps
    return said


@pytest.mark.parametrize("length", [2, 7, 40])
def test_adding_target_is_the_sum_of_the_marked_numbers(length):
    task = Adding(sequence_length=length, batch_size=4)
    keys = jax.random.split(jax.random.key(1), 30)
    batches = sample_many(task, keys)
    inputs, targets, weights = (np.asarray(part).reshape(120, length, -1) for part in batches[:3])
    assert inputs.shape == (120, length, 2)
    for row, target, weight in zip(inputs, targets[..., 0], weights[..., 0], strict=True):
        marked = [t for t in range(length) if row[t, 1] != 0.0]
        assert [row[t, 1] for t in marked] == [1.0, 1.0]
        assert marked[0] < length // 2 <= marked[1]
        assert target[-1] == row[marked[0], 0] + row[marked[1], 0]
        assert weight.tolist() == [0.0] * (length - 1) + [1.0]
        assert ((row[:, 0] >= 0) & (row[:, 0] < 1)).all()


@pytest.mark.parametrize(("task", "second_half"), [(MANY_SUMS, 4), (Adding(6, MANY), 3)])
def test_adding_markers_are_uniform_within_their_halves(task, second_half):
    markers = np.asarray(sample(task).inputs)[..., 1]
    first, second = markers[:, :3].argmax(1), markers[:, 3:].argmax(1)
    pairs = np.bincount(second_half * first + second, minlength=3 * second_half)
    within_chance(pairs, MANY)  # so neither tells of the other


def test_adding_numbers_are_uniform_and_independent():
    numbers, markers = np.moveaxis(np.asarray(sample(MANY_SUMS).inputs), -1, 0)
    for t in range(7):
        within_chance(np.histogram(numbers[:, t], 10, (0.0, 1.0))[0], MANY)
    first, second = (5 * numbers[markers == 1].reshape(MANY, 2)).astype(int).T
    within_chance(np.bincount(5 * first + second, minlength=25), MANY)  # also where marked
    correlations = np.corrcoef(numbers.T)[~np.eye(7, dtype=bool)]
    assert (abs(correlations) < 5 / np.sqrt(MANY)).all()
    assert abs(np.corrcoef(numbers[1:, 0], numbers[:-1, 0])[0, 1]) < 5 / np.sqrt(MANY)


def test_adding_baseline_is_the_best_constant():
    batch = sample(MANY_SUMS)
    losses = {
        constant: evaluate(MANY_SUMS, np.full((MANY, 7, 1), constant, np.float32), batch)["loss"]
        for constant in np.linspace(0.5, 1.5, 11)
    }
    assert min(losses, key=losses.__getitem__) == 1.0
    # The square of (sum - 1) has mean 1/6 and variance 1/15 - 1/36.
    chance = 5 * np.sqrt((1 / 15 - 1 / 36) / MANY)
    assert abs(losses[1.0] - MANY_SUMS.memoryless_loss) < chance
    # Who sees the last input says its number and a half if it is marked, and 1 otherwise.
    number, marker = np.moveaxis(np.asarray(batch.inputs), -1, 0)
    glance = np.where(marker == 1, number + 0.5, 1.0)[..., None]
    loss = evaluate(MANY_SUMS, glance.astype(np.float32), batch)["loss"]
    assert abs(loss - (1 / 6 - 1 / (12 * 4))) < chance


@pytest.mark.parametrize(("length", "symbols", "copied"), [(1, 3, 4), (2, 2, 1), (30, 8, 10)])
def test_copy_repeats_the_symbols_in_order_after_the_delimiter(length, symbols, copied):
    task = CopyMemory(length, batch_size=4, num_symbols=symbols, num_copied=copied)
    keys = jax.random.split(jax.random.key(1), 15)
    batches = sample_many(task, keys)
    steps = length + 2 * copied
    assert batches.inputs.shape == (15, 4, steps, symbols + 2)
    assert batches.weights.shape == (15, 4, steps)
    assert (batches.weights == 1).all()
    inputs, targets = (np.asarray(part).reshape(60, steps, -1) for part in batches[:2])
    for row, target in zip(inputs, targets[..., 0], strict=True):
        assert copies(row, symbols, steps) == target.tolist()
        delimiter = row[:, symbols + 1].argmax()
        assert delimiter - (copied - 1) == length  # the delay
        assert (row[:copied].argmax(1) < symbols).all()
    assert targets.max() == symbols == task.output_size - 1


def test_copy_symbols_are_uniform_and_independent():
    symbols = np.asarray(sample(MANY_COPIES).targets)[:, -3:]
    within_chance(np.stack([np.bincount(column, minlength=4) for column in symbols.T]), MANY)
    for a, b in [(0, 1), (1, 2), (0, 2)]:
        within_chance(np.bincount(4 * symbols[:, a] + symbols[:, b], minlength=16), MANY)
    within_chance(np.bincount(4 * symbols[1:, 0] + symbols[:-1, 0], minlength=16), MANY - 1)


def test_copy_baseline_is_the_best_without_memory():
    batch = sample(MANY_COPIES)
    memoryless = np.full((MANY, 12, 5), -1e9, np.float32)
    memoryless[:, :9, 4] = 0.0  # the blank
    memoryless[:, 9:, :4] = 0.0  # any symbol
    found = evaluate(MANY_COPIES, memoryless, batch)
    np.testing.assert_allclose(found["loss"], MANY_COPIES.memoryless_loss, rtol=1e-5)
    assert abs(found["accuracy"] - 1 / 4) < 5 * np.sqrt(3 / 16 / (3 * MANY))
    # The best that can be said of each step from having seen many rows is not better.
    targets = np.asarray(batch.targets)
    shares = np.stack([np.bincount(column, minlength=5) for column in targets.T]) / MANY
    entropy = -np.sum(shares * np.log(np.where(shares > 0, shares, 1.0))) / 12
    assert MANY_COPIES.memoryless_loss - 1e-4 < entropy < MANY_COPIES.memoryless_loss + 1e-6


def test_baselines_match_the_papers():
    assert Adding().memoryless_loss == pytest.approx(0.167, abs=5e-4)
    assert CopyMemory(500).memoryless_loss == pytest.approx(10 * np.log(8) / 520)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", SMALL)
def test_a_key_gives_the_same_batch_from_one_program_and_under_vmap(name):
    check_batches(make_small(name), eagerly=name == "adding")


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize("name", SMALL)
def test_a_key_gives_the_same_batch_with_and_without_jit_and_vmap(name):
    check_batches(make_small(name), eagerly=True)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", sorted(SMALL.keys() - {"adding"}))  # it draws JAX's integers
def test_a_key_gives_the_same_batch_with_64_bits(name):
    task, key = make_small(name), jax.random.key(4)
    narrow = jax.jit(task.sample_batch)(key, STEP)
    with jax.enable_x64(True):
        wide = jax.jit(task.sample_batch)(key, STEP)
    for a, b in zip(jax.tree.leaves(narrow), jax.tree.leaves(wide), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", SMALL)
def test_a_task_is_restored_from_json_and_fits_its_readout(name):
    task = make_small(name)
    again = TASKS[name](**json.loads(json.dumps(dataclasses.asdict(task))))
    assert again == task and hash(again) == hash(task)
    assert isinstance(task, Task) and not task.stateful and task.files == ()
    batch = jax.eval_shape(task.sample_batch, jax.random.key(0), STEP)
    rows, steps, _ = batch.inputs.shape
    assert rows == 3
    assert batch.inputs.dtype == batch.weights.dtype == jnp.float32
    assert batch.targets.dtype == (jnp.float32 if task.output_size == 1 else jnp.int32)
    outputs = jnp.zeros((rows, steps, task.output_size))
    scored = jax.eval_shape(partial(evaluate, task), outputs, batch)
    assert all(value.shape == () and value.dtype == jnp.float32 for value in scored.values())
    with pytest.raises(ValueError, match=r"\[B, T"):
        jax.eval_shape(partial(evaluate, task), outputs[:, 1:], batch)


def test_adding_scores_only_the_last_output():
    task = Adding(sequence_length=6, batch_size=4)
    batch = sample(task)
    right = np.asarray(batch.targets)[..., None].copy()
    right[:, :-1] = np.inf
    assert evaluate(task, right, batch) == {"loss": 0.0, "within": 1.0}
    off = right.copy()
    off[:, -1, 0] += np.array([0.039, -0.039, 0.041, -0.041], np.float32)
    found = evaluate(task, off, batch)
    assert found["within"] == 0.5
    np.testing.assert_allclose(found["loss"], (0.039**2 + 0.041**2) / 2, rtol=1e-4)
    assert evaluate(task, np.full_like(right, np.nan), batch)["within"] == 0.0


def test_copy_accuracy_is_over_symbols_and_its_loss_over_every_step():
    task = CopyMemory(5, batch_size=4, num_symbols=3, num_copied=2)
    batch = sample(task)
    targets = np.asarray(batch.targets)
    right, wrong = (100 * np.eye(4, dtype=np.float32)[(targets + n) % 4] for n in (0, 1))
    b, t = np.indices(targets.shape)[..., None]
    for where, accuracy, share in [  # which outputs are right
        (t >= 0, 1.0, 0.0),
        (t < 0, 0.0, 1.0),
        (t >= 7, 1.0, 7 / 9),
        (t < 7, 0.0, 2 / 9),
        ((t < 8) | (b == 3), 5 / 8, 3 / 36),
    ]:
        found = evaluate(task, np.where(where, right, wrong), batch)
        np.testing.assert_allclose(found["accuracy"], accuracy, rtol=1e-6)
        np.testing.assert_allclose(found["loss"], 100 * share, rtol=1e-6)


@pytest.mark.parametrize(("task", "edge"), [(Adding(), 0.01), (CopyMemory(), np.log(8) / 120)])
def test_solved_below_the_threshold(task, edge):
    loss = np.array([0.0, edge * 0.999, edge * 1.001, 1.0, np.inf, np.nan], np.float32)
    assert task.solved({"loss": loss}).tolist() == [True, True, False, False, False, False]


def test_not_solved_at_the_threshold():
    assert not Adding().solved({"loss": np.array([0.01], np.float32)}).any()
    assert not np.any(CopyMemory().solved({"loss": np.array([CopyMemory().memoryless_loss / 10])}))


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (Adding, {"sequence_length": 1}, "sequence length must be at least 2"),
        (Adding, {"sequence_length": 0}, "sequence length must be at least 1"),
        (Adding, {"sequence_length": 8.0}, "sequence length must be a whole number, not 8.0"),
        (Adding, {"batch_size": 0}, "batch size must be at least 1"),
        (CopyMemory, {"delay": 0}, "delay must be at least 1"),
        (CopyMemory, {"delay": "9"}, "delay must be a whole number, not '9'"),
        (CopyMemory, {"batch_size": -1}, "batch size must be at least 1"),
        (CopyMemory, {"num_symbols": 1}, "num symbols must be at least 2"),
        (CopyMemory, {"num_copied": 0}, "num copied must be at least 1"),
    ],
)
def test_invalid_settings_raise(make, settings, message):
    with pytest.raises(ValueError, match=message) as refused:
        make(**settings)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("task", [Adding(4), CopyMemory(4), NextCharacter()])
def test_a_diverged_network_has_not_solved_the_task(task):
    missing = {name: np.array([np.nan, 0.0]) for name in ("loss", "correct", "within", "accuracy")}
    assert not task.solved(missing)[0]


@pytest.fixture
def restore_tasks():
    before = dict(TASKS)
    yield
    TASKS.clear()
    TASKS.update(before)


def test_register_task_adds_a_name_and_refuses_taken_ones(restore_tasks):
    class Longer(Adding):
        pass

    register_task("longer", Longer)
    register_task("longer", Longer)  # again is fine, as when a module is reloaded
    assert TASKS["longer"] is Longer
    with pytest.raises(SettingError, match="already a task named 'adding'"):
        register_task("adding", Longer)
    with pytest.raises(SettingError, match="must be a class that inherits from Task"):
        register_task("number", cast(Any, int))


def test_a_task_needs_only_an_output_size_and_batches():
    class Minimal(Task):
        output_size = 2

    assert Minimal().memoryless_loss is None
    assert Minimal().solved({"loss": np.zeros(3)}) is None
    assert Minimal().num_validation_batches(Minimal().arrays()) == 0
    with pytest.raises(NotImplementedError, match="Minimal must define sample_batch"):
        Minimal().sample_batch(jax.random.key(0), STEP)
