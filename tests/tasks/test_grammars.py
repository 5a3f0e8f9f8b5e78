"""The grammars, checked with plain Python written from the papers, not from the tasks.

Statistical bounds are five standard errors wide; the keys are fixed.
"""

import dataclasses
import itertools
import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tasks.same_batches import check_batches

from jaxrnn.cells import GRUCell, LSTMCell
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.tasks import TASKS
from jaxrnn.tasks.grammars import ContinualReber, Counting, Dyck, EmbeddedReber
from jaxrnn.tasks.grammars.next_symbol import NextSymbol, unpack
from jaxrnn.training.by_length import check_groups
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.loop import make_train
from jaxrnn.types import Batch

REBER = "B(TS*X(XT*VP)*(S|XT*VV)|PT*V(V|P(XT*VP)*(S|XT*VV)))E"
EMBEDDED = re.compile(f"B(T{REBER}T|P{REBER}P)E")
FIGURE = {  # the nodes of the figure: after B; after T; after P; after TX; after PV; before E
    "start": {"T": "upper", "P": "lower"},
    "upper": {"S": "upper", "X": "middle"},
    "lower": {"T": "lower", "V": "right"},
    "middle": {"X": "lower", "S": "end"},
    "right": {"P": "middle", "V": "end"},
    "end": {"E": ""},
}
LETTERS = "BTSXPVE"


def may_follow(prefix: str) -> set[str]:
    """The symbols that may follow a prefix, at least B, of an embedded Reber string."""
    if len(prefix) < 3:
        return [set("TP"), set("B")][len(prefix) - 1]
    node = "start"
    for symbol in prefix[3:]:
        if not node:  # the inner string is over
            return set("E")
        node = FIGURE[node][symbol]
    return set(FIGURE[node]) if node else {prefix[1]}


def unpacked(batch: Batch, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The next symbols [B, T] and the allowed ones [B, T, V]."""
    return jax.device_get(jax.jit(unpack, static_argnums=1)(jnp.asarray(batch.targets), size))


def rows_of(batch: Batch, letters: str) -> list[tuple[str, str, list[set[str]]]]:
    """What each row reads, what comes next, and what may come, without the padding."""
    batch = jax.device_get(batch)
    symbols, allowed = unpacked(batch, len(letters))
    lengths = batch.inputs.shape[1] + 0 * batch.weights[:, 0].astype(int)
    lengths = lengths if batch.lengths is None else np.asarray(batch.lengths)
    rows = []
    for inputs, after, may, weights, length in zip(
        batch.inputs, symbols, allowed, batch.weights, lengths.tolist(), strict=True
    ):
        assert weights.tolist() == [float(t < length) for t in range(len(weights))]
        assert not inputs[length:].any() and (inputs[:length].sum(axis=1) == 1).all()
        read = "".join(letters[n] for n in inputs[:length].argmax(axis=1))
        sets = [{letters[n] for n in np.flatnonzero(row)} for row in may[:length]]
        rows.append((read, "".join(letters[n] for n in after[:length]), sets))
    return rows


def sample(task: NextSymbol, key: int = 0, step: int = 0) -> Batch:
    return jax.jit(task.sample_batch)(jax.random.key(key), jnp.int32(step), task.arrays())


def measure(task: NextSymbol, outputs: Any, batch: Batch) -> dict[str, float]:
    """The task's metrics, from one program."""
    return {name: float(value) for name, value in jax.jit(task.metrics)(outputs, batch).items()}


def test_embedded_reber_strings_are_accepted_and_every_symbol_that_may_come_is_known():
    rows = rows_of(sample(EmbeddedReber(batch_size=500, num_training_strings=0)), LETTERS)
    for read, after, allowed in rows:
        assert EMBEDDED.fullmatch(read[0] + after) and read[1:] == after[:-1]
        assert [may_follow(read[: t + 1]) for t in range(len(read))] == allowed
    assert len({read for read, *_ in rows}) > 100
    assert not EMBEDDED.fullmatch("BTBTXSEPE") and not EMBEDDED.fullmatch("BTBTXXETE")


@pytest.mark.slow
def test_embedded_reber_strings_are_as_likely_as_their_choices():
    count = 20_000
    task = EmbeddedReber(max_length=11, batch_size=count, num_training_strings=0)
    found: dict[str, int] = {}
    for read, after, _ in rows_of(sample(task), LETTERS):
        string = read[0] + after
        found[string] = found.get(string, 0) + 1
    weights = {}
    for length in (5, 6, 7):  # of the inner strings
        for middle in itertools.product("TSXPV", repeat=length - 2):
            inner = f"B{''.join(middle)}E"
            if re.fullmatch(REBER, inner):
                choices = sum(len(may_follow("BT" + inner[:t])) > 1 for t in range(1, length))
                weights |= {f"B{outer}{inner}{outer}E": 2.0**-choices for outer in "TP"}
    assert set(found) == set(weights)
    for string, weight in weights.items():
        share = weight / sum(weights.values())
        assert abs(found[string] / count - share) < 5 * np.sqrt(share * (1 - share) / count)


@pytest.mark.slow
def test_embedded_reber_sets_are_those_of_the_paper():
    task = EmbeddedReber()
    sets = task.arrays()
    strings = {name: {tuple(row) for row in part["symbols"]} for name, part in sets.items()}
    assert {name: len(part["symbols"]) for name, part in sets.items()} == {
        "train": 256,
        "test": 256,
    }
    assert not strings["train"] & strings["test"]
    again, other = EmbeddedReber().arrays(), EmbeddedReber(string_set=1).arrays()
    jax.tree.map(np.testing.assert_array_equal, sets, again)
    assert (sets["train"]["symbols"] != other["train"]["symbols"]).any()
    batch = sample(dataclasses.replace(task, batch_size=200))
    training = {read for read, *_ in rows_of(task.batch(sets["train"]), LETTERS)}
    drawn = [read for read, *_ in rows_of(batch, LETTERS)]
    assert set(drawn) <= training and len(set(drawn)) > 50
    scored = [read for read, *_ in rows_of(task.validation_batch(jnp.int32(0), sets), LETTERS)]
    assert len(scored) == 512 and set(scored[:256]) == training
    fresh = EmbeddedReber(num_training_strings=0, num_test_strings=30)
    assert len(rows_of(fresh.validation_batch(jnp.int32(0), fresh.arrays()), LETTERS)) == 30


@pytest.mark.parametrize("external_resets", [False, True])
def test_a_continual_stream_is_made_of_embedded_reber_strings(external_resets):
    task = ContinualReber(50, 40, windows_per_stream=3, external_resets=external_resets)
    for step in range(4):
        batch = sample(task, step, step)
        assert batch.resets is not None
        for (read, after, allowed), resets in zip(
            rows_of(batch, LETTERS), np.asarray(batch.resets), strict=True
        ):
            assert after == read[1:] + "B"
            assert re.fullmatch(f"({EMBEDDED.pattern})+", read)
            starts = [0]
            while (end := EMBEDDED.match(read, starts[-1])) and end.end() < len(read):
                starts.append(end.end())
            for start, stop in itertools.pairwise([*starts, len(read)]):
                string = read[start:stop]
                expected = [may_follow(string[: t + 1]) for t in range(len(string) - 1)]
                assert allowed[start:stop] == [*expected, {"B"}]
            where = starts if external_resets else [0] * (step % 3 == 0)
            assert np.flatnonzero(resets).tolist() == where


def test_continual_validation_streams_start_once():
    task = ContinualReber(30, 2, windows_per_stream=3, num_test_streams=4)
    assert task.num_validation_batches(None) == 3
    starts, compiled = [], jax.jit(task.validation_batch)
    for n in range(3):
        batch = compiled(n, None)
        assert batch.resets is not None and batch.inputs.shape == (4, 30, 7)
        starts.append(np.asarray(batch.resets).sum(axis=1).tolist())
    assert starts == [[1] * 4, [0] * 4, [0] * 4]


@pytest.mark.parametrize("letters", [2, 3])
def test_counting_strings_and_what_may_come(letters):
    task = Counting(letters, max_count=7, test_max_count=12, batch_size=200)
    names = "S" + "abcdefgh"[:letters]
    seen = set()
    for batch in (sample(task), jax.jit(task.validation_batch)(0, None)):
        for read, after, allowed in rows_of(batch, names):
            n = read.count("a")
            seen.add(n)
            string = "".join(letter * n for letter in names[1:])
            assert read == "S" + string and after == string + "S"  # T has the place of S
            for t, may in enumerate(allowed):
                block = ["S", *string][t]
                expected = {(string + "S")[t]}
                assert may == ({"a", "b"} if block == "a" else expected)
    assert seen == set(range(1, 13))


def test_counting_groups_end_at_the_training_range_and_the_largest_count():
    assert Counting(test_max_count=110).length_groups == tuple(range(21, 222, 20))
    assert Counting(3, 40, 500).length_groups[::10] == (121, 1501)


def test_every_length_belongs_to_a_group():
    assert EmbeddedReber().length_groups == (10, 15, 20, 25, 39)
    assert Dyck().length_groups == (21, 41, 61, 81, 85)
    for task in (
        EmbeddedReber(9, 2, 0),
        EmbeddedReber(26, 2, 0),
        Dyck(max_length=2),
        Dyck(max_length=20),
    ):
        batch = jax.eval_shape(task.sample_batch, jax.random.key(0), 0)
        assert task.length_groups[-1] == batch.inputs.shape[1]
        check_groups(task)


def test_counting_accepts_strings_whose_signs_are_all_right():
    task = Counting(max_count=3, test_max_count=3)
    batch = jax.jit(task.validation_batch)(0, None)
    _, allowed = unpacked(batch, 3)
    right = np.where(allowed, 0.1, -0.1).astype(np.float32)
    assert measure(task, right, batch) == {"correct": 1.0, "correct_strings": 1.0}
    wrong = right.copy()
    wrong[2, 6, 0] *= -1  # the last step of the longest string
    found = measure(task, wrong, batch)
    assert found["correct"] == pytest.approx(14 / 15)
    assert found["correct_strings"] == pytest.approx(2 / 3)
    padded = right.copy()
    padded[0, 6] = np.nan
    assert measure(task, padded, batch)["correct_strings"] == 1.0
    expected = np.log1p(np.exp(-0.1))
    assert float(jax.jit(task.loss)(right, batch)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("types", "depth", "length"), [(2, 3, 20), (3, 1, 8), (1, 4, 12)])
def test_dyck_strings_are_nested_and_what_may_come_is_known(types, depth, length):
    task = Dyck(types, depth, length, batch_size=300)
    opening, closing = "([{"[:types], ")]}"[:types]
    rows = rows_of(sample(task), "#" + opening + closing)
    for read, after, allowed in rows:
        assert read[0] == "#" and after == read[1:] + "#" and 2 <= len(read[1:]) <= length
        stack = []
        for t, (symbol, may) in enumerate(zip(read, allowed, strict=True)):
            if symbol in opening:
                stack.append(symbol)
                assert len(stack) <= depth
            elif symbol in closing:
                assert stack.pop() == opening[closing.index(symbol)]
            expected = set(opening) if len(stack) < depth else set()
            expected |= {closing[opening.index(stack[-1])]} if stack else set("#" if t else "")
            assert may == expected
        assert not stack
    assert {len(read) - 1 for read, *_ in rows} >= {2, 4, 6, 8}


def test_dyck_opens_and_closes_equally_often_where_both_may_come():
    rows = rows_of(sample(Dyck(2, 3, 200, batch_size=2000)), "#([)]")
    opened = {depth: [0, 0] for depth in range(4)}
    for read, after, _ in rows:
        depth = 0
        for t, symbol in enumerate(after):
            if t:  # a string is not empty
                opened[depth][symbol in "(["] += 1
            depth += (symbol in "([") - (symbol in ")]")
        assert read.count("(") == read.count(")")
    for depth in range(3):
        total = sum(opened[depth])
        assert abs(opened[depth][1] / total - 1 / 2) < 2.5 / np.sqrt(total)
    assert opened[3][1] == 0


def test_dyck_counts_confidently_closed_brackets():
    task = Dyck(2, 3, 20, batch_size=50)
    batch = sample(task)
    symbols, _ = unpacked(batch, 5)
    for share, expected in ((0.81, 1.0), (0.79, 0.0)):
        chances = np.where(np.eye(5)[symbols] > 0, share, 1 - share)
        outputs = np.log(chances).astype(np.float32)
        assert measure(task, outputs, batch)["closing"] == expected


CASES: dict[str, Any] = {
    "embedded": EmbeddedReber(batch_size=4000, num_training_strings=0),
    "continual": ContinualReber(60, 1000),
    "counting 2": Counting(batch_size=4000),
    "counting 3": Counting(3, 5, 5, batch_size=4000),
    "dyck": Dyck(batch_size=4000),
    "one type": Dyck(1, 2, 10, batch_size=4000),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", CASES)
def test_the_baseline_is_the_best_prediction_from_the_current_symbol(name):
    """It is made from the counts in the batch, so it is even a little better."""
    task = CASES[name]
    batch = jax.device_get(sample(task))
    symbols, allowed = unpacked(batch, task.output_size)
    scored = batch.weights > 0
    current = batch.inputs[scored]  # [N, F]
    counting = isinstance(task, Counting)
    came = allowed[scored] if counting else np.eye(task.output_size)[symbols[scored]]
    counts = current.T @ came.astype(np.float32)
    shares = counts / np.maximum(current.sum(axis=0)[:, None], 1)
    shares = np.clip(shares, 1e-9, 1 - 1e-7)
    logits = np.log(shares) - (np.log1p(-shares) if counting else 0)
    outputs = batch.inputs @ logits.astype(np.float32)
    loss = float(jax.jit(task.loss)(outputs, batch))
    assert loss == pytest.approx(task.memoryless_loss, rel=0.02)


def test_correct_means_that_all_that_may_come_are_above_the_others():
    task = EmbeddedReber(batch_size=30, num_training_strings=0)
    batch = sample(task)
    symbols, allowed = unpacked(batch, 7)
    scores = np.where(allowed, 1.0, 0.9).astype(np.float32)
    assert measure(task, scores, batch) == {"correct": 1.0, "correct_strings": 1.0}
    came = np.eye(7, dtype=np.float32)[symbols]  # only the symbol that came is high
    weights = np.asarray(batch.weights)
    single = (allowed.sum(axis=-1) == 1) & (weights > 0)
    found = measure(task, came, batch)
    assert found["correct"] == pytest.approx(single.sum() / weights.sum())
    assert found["correct_strings"] == 0.0
    assert measure(task, np.full_like(came, np.nan), batch)["correct"] == 0.0
    assert measure(task, np.zeros_like(came), batch)["correct"] == 0.0  # ties are mistakes


def test_solved_needs_everything_right():
    values = np.array([0.999, 1.0, np.nan, np.inf])
    for task, name in (
        (EmbeddedReber(), "correct_strings"),
        (Counting(), "correct_strings"),
        (ContinualReber(), "correct"),
    ):
        for solved in (task.solved, jax.jit(task.solved)):
            found = solved({f"validation_{name}": values})
            assert found.tolist() == [False, True, False, False]
    closing = {"validation_closing": np.array([0.98, 0.99, np.nan, np.inf])}
    assert Dyck().solved(closing).tolist() == [False, True, False, False]


NAMES = {
    "embedded-reber": {"batch_size": 3},
    "continual-reber": {"batch_size": 3, "sequence_length": 20},
    "counting": {"batch_size": 3},
    "dyck": {"batch_size": 3, "max_length": 20},
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", NAMES)
def test_same_key_same_batch_also_after_json_and_from_one_program(name):
    task: Any = TASKS[name](**NAMES[name])
    again: Any = TASKS[name](**json.loads(json.dumps(dataclasses.asdict(task))))
    assert again == task and hash(again) == hash(task)
    check_batches(again)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EmbeddedReber(8), "max length must be at least 9"),
        (lambda: EmbeddedReber(num_training_strings=-1), "num training strings must be a whole"),
        (lambda: EmbeddedReber(10).arrays(), "only 0 of 4096 strings are not among the training"),
        (lambda: ContinualReber(8), "no strings have 8 symbols in all; use 9 or more"),
        (lambda: ContinualReber(num_test_streams=0), "num test streams must be at least 1"),
        (lambda: Counting(1), "num letters must be from 2 to 8"),
        (lambda: Counting(test_max_count=9), "test max count must be at least max count, 10"),
        (lambda: Dyck(13), "num types must be at most 12"),
        (lambda: Dyck(max_length=9), "max length must be even"),
    ],
)
def test_invalid_settings_raise(make, message):
    with pytest.raises(SettingError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)


LEARNED: dict[str, tuple[NextSymbol, Any, int, str, float]] = {
    "embedded": (EmbeddedReber(20), GRUCell(24), 300, "correct_strings", 0.4),
    "continual": (ContinualReber(40, 16, 5), LSTMCell(24), 250, "correct", 0.9),
    "counting 2": (Counting(2, 4, 4), LSTMCell(16), 200, "correct_strings", 0.7),
    "counting 3": (Counting(3, 3, 3), LSTMCell(16), 200, "correct_strings", 0.6),
    "dyck": (Dyck(2, 2, 12), GRUCell(24), 300, "closing", 0.9),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED)
def test_a_small_instance_is_learned(name):
    task, cell, steps, metric, bound = LEARNED[name]
    model = SequenceModel(Recurrent(cell), task.output_size)
    train = TrainConfig(steps, 2e-2, flatten=True)
    _, metrics = jax.jit(make_train(ExperimentConfig(task, model, train)))(0)
    assert metrics["loss"][-10:].mean() < 0.7 * (task.memoryless_loss or 0.0)
    assert metrics[f"validation_{metric}"][-1] > bound
