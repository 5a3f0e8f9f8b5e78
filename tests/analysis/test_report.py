"""Summaries of runs: rates, intervals and quartiles against other sources."""

import numpy as np
import pytest

from jaxrnn.analysis import report
from jaxrnn.training import history


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe (1998), "Two-sided confidence intervals for the single proportion", Statistics in
    # Medicine 17, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_success_interval_equals_a_published_table(successes, trials, low, high):
    np.testing.assert_allclose(report.success_interval(successes, trials), (low, high), atol=6e-5)
    failures = report.success_interval(trials - successes, trials)
    np.testing.assert_allclose(failures, (1 - high, 1 - low), atol=6e-5)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_impossible_success_counts_are_refused(successes, trials):
    with pytest.raises(ValueError):
        report.success_interval(successes, trials)


def test_quantiles_are_those_of_numpy():
    draw = np.random.default_rng(0)
    values = draw.normal(size=(9, 40, 2))
    values[draw.random(values.shape) < 0.4] = np.nan
    values[0] = 1.0
    values[1:, 0] = np.nan
    percents = [0, 5, 25, 50, 75, 95, 100]
    expected = np.nanpercentile(values, percents, axis=0)
    np.testing.assert_allclose(history.quantiles(values, percents), expected, rtol=1e-12)


def test_quantiles_leave_out_what_is_not_finite():
    values = np.array([[np.inf, 1.0, np.nan], [3.0, -np.inf, np.inf], [5.0, np.nan, np.nan]])
    np.testing.assert_array_equal(history.quantiles(values, [50]), [[4.0, 1.0, np.nan]])


def test_summary_of_twenty_seeds():
    last = np.arange(1.0, 21.0) / 1000
    loss = np.stack([np.ones(20), last], axis=1)
    metrics = {
        "grad_norm": 2 * loss,
        "accuracy": 1 - loss,
        "by_position": np.zeros((20, 2, 5)),
        "loss": loss,
    }
    seeds = np.arange(100, 120)
    said = report.summarize_seeds(
        "adding", seeds, np.array([0, 5000]), metrics, last <= 0.017, {}, 1 / 6
    )
    assert said.splitlines() == [
        "adding: 20 seeds after 5000 updates; over all of them:",
        "  loss       median 0.0105, quartiles 0.00575 and 0.01525 (memoryless baseline: 0.1667)",
        "  accuracy   median 0.9895, quartiles 0.9848 and 0.9942",
        "  grad_norm  median 0.021, quartiles 0.0115 and 0.0305",
        "17 of 20 seeds solved it (85%, 95% interval 64 to 95%, Wilson).",
    ]


def test_diverged_seeds_are_named_and_left_out_of_the_median():
    loss = np.array([[9.0], [np.nan], [1.0], [7.0], [3.0], [np.inf], [5.0]])
    extra = np.array([[np.nan], [2.0], [np.nan], [4.0], [np.nan], [2.0], [np.nan]])
    diverged = {5: 40, 1: 120, 3: 7}  # the last still finite in its last row

    def said(diverged):
        return report.summarize_seeds(
            "parity",
            np.arange(7),
            np.array([1]),
            {"loss": loss, "extra": extra},
            np.zeros(7, bool),
            diverged,
            None,
        ).splitlines()

    lines = said(diverged)
    assert lines[0] == "parity: 7 seeds after 1 update; over the 4 that stayed finite:"
    assert lines[1].split(maxsplit=1) == ["loss", "median 4, quartiles 2.5 and 6"]
    assert lines[2].split(maxsplit=1) == ["extra", "never finite"]
    assert lines[3] == "0 of 7 seeds solved it (0%, 95% interval 0 to 35%, Wilson)."
    assert lines[4] == (
        "Seed 1 stopped being finite at step 120, seed 3 at step 7, seed 5 at step 40; they were"
        " frozen."
    )
    more = said(diverged | {6: 8, 2: 9})
    assert more[2].split(maxsplit=1) == ["extra", "never finite"]
    assert more[4] == (
        "Seed 1 stopped being finite at step 120, seed 2 at step 9, seed 3 at step 7 and 2 more;"
        " they were frozen."
    )
    assert said({5: 40, 1: 1})[2].endswith("median 4, quartiles 4 and 4 (1 of 5 finite)")
    assert said({5: 40})[4] == "Seed 5 stopped being finite at step 40 and was frozen."
    everyone = said(dict.fromkeys(range(7), 3))
    assert everyone[1].split(maxsplit=1) == ["loss", "never finite"]


@pytest.mark.parametrize("solved", [True, False])
def test_summary_of_one_seed(solved):
    metrics = {"loss": np.array([[2.0, 0.0123456]]), "accuracy": np.array([[0, 1]])}
    said = report.summarize_seeds(
        "copy", np.array([7]), np.array([0, 90]), metrics, np.array([solved]), {}, 0.5
    )
    assert said.splitlines() == [
        "copy: seed 7 after 90 updates:",
        "  loss      0.01235 (memoryless baseline: 0.5)",
        "  accuracy  1",
        "It solved the task." if solved else "It did not solve the task.",
    ]


def test_summary_of_one_diverged_seed():
    metrics = {"loss": np.array([[2.0, np.nan]])}
    said = report.summarize_seeds(
        "copy", np.array([7]), np.array([0, 90]), metrics, np.array([False]), {7: 90}, 0.5
    )
    assert "loss  not finite (memoryless baseline: 0.5)" in said
    assert said.endswith("Seed 7 stopped being finite at step 90.")


def test_summary_without_logged_steps():
    nothing = {"loss": np.zeros((2, 0))}
    said = report.summarize_seeds(
        "copy", np.arange(2), np.zeros(0), nothing, np.zeros(2, bool), {}, 0.5
    )
    assert said == "copy: 2 seeds, and nothing was logged."


def test_learned_at_is_the_start_of_the_last_correct_streak():
    correct = np.random.default_rng(20).random((50, 6)) < 0.7
    expected = []
    for row in correct:
        right_from = [n for n in range(6) if row[n:].all()]
        expected.append(right_from[0] if right_from else 6)
    assert {0, 6} < set(expected)
    np.testing.assert_array_equal(report.learned_at(correct), expected)
