"""metrics.jsonl: written, read back, cut, and read where a kill cut it short."""

import json
import math

import numpy as np
import pytest

from jaxrnn.errors import RunError
from jaxrnn.runs import metrics
from jaxrnn.training.history import History, join, last_loss, mask_diverged

SEEDS, STEPS = np.array([7, 9]), np.array([0, 10, 20])


@pytest.fixture
def history():
    random = np.random.default_rng(3)
    return History(
        SEEDS,
        STEPS,
        {
            "loss": random.normal(size=(2, 3)).astype(np.float32),
            "correct": random.random((2, 3)) < 0.5,
            "prediction": random.integers(0, 9, (2, 3, 4)),
            "probability": random.random((2, 3, 2, 2)).astype(np.float32),
        },
    )


@pytest.fixture
def path(tmp_path, history):
    path = tmp_path / "metrics.jsonl"
    with path.open("ab") as file:
        first = {name: values[:, :1] for name, values in history.values.items()}
        rest = {name: values[:, 1:] for name, values in history.values.items()}
        metrics.append(file, History(SEEDS, STEPS[:1], first), {"seconds": 0.5})
        metrics.append(file, History(SEEDS, STEPS[1:], rest), {"seconds": 1.5})
    return path


def assert_equal(first, second):
    np.testing.assert_array_equal(first.seeds, second.seeds)
    np.testing.assert_array_equal(first.steps, second.steps)
    assert first.values.keys() == second.values.keys()
    for name, values in first.values.items():
        np.testing.assert_array_equal(values, second.values[name], err_msg=name)


def test_written_metrics_are_read_back_to_the_bit(path, history):
    assert_equal(metrics.read(path), history)


def test_each_line_has_a_step_and_a_seed(path, history):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["step"], row["seed"]) for row in rows] == [(n, s) for n in STEPS for s in SEEDS]
    assert [row["clock"]["seconds"] for row in rows] == [0.5, 0.5, 1.5, 1.5, 1.5, 1.5]
    assert rows[3]["loss"] == float(history.values["loss"][1, 1])
    assert rows[3]["prediction"] == history.values["prediction"][1, 1].tolist()


def test_numbers_that_are_not_finite_are_null(tmp_path):
    values = {
        "loss": np.array([[1.0, np.inf, 3.0], [1.0, 2.0, np.nan]]),
        "correct": np.array([[True, False, True]] * 2),
        "vector": np.arange(12.0).reshape(2, 3, 2),
    }
    blanked = mask_diverged(values, STEPS, np.array([10, 20]))
    path = tmp_path / "metrics.jsonl"
    with path.open("wb") as file:
        metrics.append(file, History(SEEDS, STEPS, blanked), {})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["loss"] for row in rows] == [1.0, 1.0, None, 2.0, None, None]
    assert [row["correct"] for row in rows] == [True, True, False, False, None, True]
    assert [row["vector"] for row in rows][4:] == [[None, None], [10.0, 11.0]]
    assert_equal(metrics.read(path), History(SEEDS, STEPS, blanked))
    untouched = mask_diverged({"correct": values["correct"]}, STEPS, np.array([20, 20]))
    assert untouched["correct"].dtype == bool


def test_a_file_cut_anywhere_can_be_read(path, history):
    """Whole steps of all seeds are left; once cut there, it can be appended to."""
    whole = path.read_bytes()
    line_ends = [n + 1 for n, byte in enumerate(whole) if byte == ord("\n")]
    for size in (*range(len(whole) - 40, len(whole)), *line_ends, line_ends[1] + 1):
        path.write_bytes(whole[:size])
        lines = sum(end <= size for end in line_ends)
        if lines < 2:
            continue
        read = metrics.read(path)
        assert read.steps.tolist() == STEPS[: lines // 2].tolist()
        metrics.truncate(path, int(STEPS[lines // 2 - 1]) + 1)
        assert path.read_bytes() == whole[: line_ends[lines // 2 * 2 - 1]]


@pytest.mark.parametrize("before", [0, 1, 10, 11, 20, 21])
def test_truncate_and_read_before_a_step_agree(path, history, before):
    kept = history.steps < before
    expected = History(
        SEEDS, STEPS[kept], {name: values[:, kept] for name, values in history.values.items()}
    )
    early = metrics.read(path, before)
    metrics.truncate(path, before)
    after = metrics.read(path)
    if before:
        assert_equal(early, expected)
        assert_equal(after, expected)
    else:
        assert early.steps.size == after.steps.size == path.stat().st_size == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[1]\n", "line 7, does not contain metrics"),
        (b"\n", "line 7, does not"),
        (b'{"step": 30, "seed": 7}\n', "line 7, does not"),
        (b'{"step": 30, "seed": 7, "loss": 1}\n', "line 7, has other metrics than the first"),
    ],
)
def test_other_lines_are_refused(path, line, message):
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(RunError, match=message):
        metrics.read(path)


@pytest.mark.parametrize("places", [[(30, 9), (30, 7)], [(20, 7), (30, 9)], [(30, 7), (40, 9)]])
def test_lines_out_of_turn_are_refused(path, places):
    row = json.loads(path.read_text().splitlines()[0])
    with path.open("a") as file:
        for step, seed in places:
            file.write(json.dumps(row | {"step": step, "seed": seed}) + "\n")
    with pytest.raises(RunError, match="lacks a line for some step and seed"):
        metrics.read(path)


def test_appended_parts_equal_the_whole(history):
    pieces = [
        History(SEEDS, STEPS[cut], {name: v[:, cut] for name, v in history.values.items()})
        for cut in (slice(0, 1), slice(1, 1), slice(1, 3), slice(3, 3))
    ]
    assert_equal(join(pieces), history)
    assert last_loss(pieces) == float(np.median(history.values["loss"][:, -1]))
    assert math.isnan(last_loss(pieces[1:2]))
