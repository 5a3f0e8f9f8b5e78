"""The stop-watches, and the suites of experiments/benchmark.py at sizes that take no time."""

import itertools
import re
import sys
import time
from pathlib import Path
from typing import Any

import benchmark
import benchmark_harness
import benchmark_language
import chex
import jax
import numpy as np
import pytest

from jaxrnn.benchmark import interleave, run_python, table, timed
from jaxrnn.study import Study
from jaxrnn.surroundings import compilation_cache

pytestmark = pytest.mark.optimized(False)  # no time that is measured here is looked at


class Later:
    """A result that is ready after a while, as those of JAX are."""

    def block_until_ready(self):
        time.sleep(0.05)
        return self


@pytest.fixture
def no_cache(monkeypatch):
    """The caches of the user, and of the tests that follow, stay as they are."""
    monkeypatch.setattr(compilation_cache, "enable", lambda: None)


def test_timed_waits_until_the_last_result_is_ready():
    results, seconds = timed(lambda *parts: {"a": parts[0], "b": Later()}, 7)
    assert results["a"] == 7
    assert 0.05 <= seconds < 1


def test_systems_take_turns_after_a_call_that_is_not_counted():
    called, ticks = [], itertools.count(1.0)

    def system(name):
        def call():
            called.append(name)
            return next(ticks)

        return call

    seconds = interleave({name: system(name) for name in "ab"}, repeats=2, burst=3, own_clock=True)
    assert "".join(called) == "ab" + "aaabbb" * 2
    assert seconds == {"a": [3, 4, 5, 9, 10, 11], "b": [6, 7, 8, 12, 13, 14]}


def test_without_a_clock_of_their_own_the_calls_are_timed():
    pauses = {"long": 0.03, "none": 0.0}
    seconds = interleave({name: lambda p=p: time.sleep(p) for name, p in pauses.items()}, 2)
    assert [len(each) for each in seconds.values()] == [2, 2]
    assert min(seconds["long"]) >= 0.03 > min(seconds["none"]) > 0


def test_a_table_has_the_minimum_the_median_and_the_ratio_of_medians():
    lines = table("title", {"a": [4.0, 1.0, 3.0], "b": [0.5, 0.25]}, against="a").splitlines()
    assert [line.split()[1:] for line in lines[1:]] == [
        ["1.00", "s", "3.00", "s", "1.000x"],
        ["250.00", "ms", "375.00", "ms", "0.125x"],
    ]


def test_a_process_has_its_folder_its_arguments_and_a_cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/nowhere")
    code = """
import os, sys
caches = {name: value for name, value in os.environ.items() if "CACHE" in name}
print(sys.argv[1:], list(caches), os.listdir(caches["XDG_CACHE_HOME"]), file=open("said", "a"))
open(caches["XDG_CACHE_HOME"] + "/entry", "w")
"""
    (tmp_path / "kept").mkdir()
    for cache in (None, None, tmp_path / "kept", tmp_path / "kept"):
        run_python("-c", code, "an argument", folder=tmp_path, cache=cache)
    empty = "['an argument'] ['XDG_CACHE_HOME'] []"
    said = (tmp_path / "said").read_text().splitlines()
    assert said == [empty] * 3 + [empty.replace("[]", "['entry']")]


def test_a_process_that_fails_is_named_by_its_last_line(tmp_path):
    with pytest.raises(ChildProcessError, match="code 3: the reason"):
        code = "import sys; print('first\\nthe reason', file=sys.stderr); sys.exit(3)"
        run_python("-c", code, folder=tmp_path)
    with pytest.raises(ChildProcessError, match="code 1: nothing was said"):
        run_python("-c", "import os; os._exit(1)", folder=tmp_path)


def test_a_call_is_a_whole_training_from_nothing():
    study = benchmark.hihello_study(seeds=2)
    call = benchmark.compiled(Study(study.task, study.model, study.train, seeds=2, group=2))
    again = jax.device_get(call())  # what a call was given must be there for the next
    state, metrics = jax.device_get(call())
    chex.assert_trees_all_equal(again, (state, metrics))
    assert state.step.tolist() == [50, 50]
    assert metrics["loss"].shape == (2, 51)
    assert np.all(metrics["loss"] > 0)  # the last look was taken, too
    assert np.all(metrics["loss"][:, -1] < 0.1 * metrics["loss"][:, 0])
    _, others = jax.device_get(call(seeds=np.array([5, 0], np.uint32)))
    np.testing.assert_array_equal(others["loss"][1], metrics["loss"][0])
    assert not np.array_equal(others["loss"][0], metrics["loss"][1])


@pytest.mark.parametrize(("suite", "against"), [("seeds", 3), ("long", 1)])
def test_a_suite_prints_its_table(suite, against):
    said = getattr(benchmark, suite)(benchmark.Config(repeats=1, seeds=2, longest=16))
    ratios = re.findall(r"[m ]s +(\S+)x$", said, re.MULTILINE)
    assert len(ratios) == {"seeds": 3, "long": 12}[suite]
    assert ratios[against - 1] == "1.000"


def test_the_run_and_its_bare_loop_do_the_same(no_cache, monkeypatch):
    monkeypatch.setattr(benchmark_harness, "SAVE_EVERY", 0.0)
    said = benchmark_harness.overhead(steps=5, repeats=1, hidden=4, length=4)
    assert said.startswith("5 steps, LSTM of 4 units, B=64, T=4 ")
    figures = [float(ratio) for ratio in re.findall(r"(\S+)x$", said, re.MULTILINE)]
    assert figures[0] > 1.0 == figures[1]
    end = re.search(r"checkpoints a run: (\d) to (\d); the parameters end (.*)\)$", said)
    assert end, said
    assert 2 <= int(end[1]) <= int(end[2])
    if end[3] != "with the same bits":
        assert float(end[3].split()[1]) < 1e-6


def test_the_difference_is_the_largest_anywhere():
    some = {"a": np.array([1.0, 2.0]), "b": np.array([[3.0]])}
    others = {"a": np.array([1.5, 1.0]), "b": np.array([[3.25]])}
    assert benchmark_harness.difference(some, others) == 1.0
    assert benchmark_harness.difference(some, some) == 0.0


def test_a_study_is_set_beside_as_many_processes(monkeypatch):
    calls = []

    def run(*arguments, folder, cache=None):
        assert arguments[:2] == ("-c", benchmark_harness.SCRIPT)
        name, first, seeds, steps = arguments[2:]
        calls.append((name, int(first), int(seeds), int(steps), cache is not None))

    def clock(systems, repeats):
        assert repeats == 2
        for system in systems.values():
            system()
            system()
        return {name: [second, 9.0] for name, second in zip(systems, (3.5, 7, 2, 1), strict=True)}

    monkeypatch.setattr(benchmark_harness, "run_python", run)
    monkeypatch.setattr(benchmark_harness, "interleave", clock)
    said = benchmark_harness.study(seeds=7, steps=9, repeats=2)
    kinds = [(seeds, filled) for _, _, seeds, _, filled in calls[::2]]
    assert kinds == [(7, False), (7, True), (1, False), (1, True)]
    assert len({name for name, *_ in calls}) == len(calls)
    assert all(first + seeds <= 7 and steps == 9 for _, first, seeds, steps, _ in calls)
    assert [line.split()[-6:] for line in said.splitlines()[1:]] == [
        ["cache", "3.50", "s", "6.25", "s", "0.179x"],
        ["cache", "7.00", "s", "8.00", "s", "0.229x"],
        ["cache", "14.00", "s", "38.50", "s", "1.100x"],
        ["cache", "7.00", "s", "35.00", "s", "1.000x"],
    ]


def test_the_script_of_a_study_runs(no_cache, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["-c", str(tmp_path / "run"), "3", "1", "2"])
    exec(benchmark_harness.SCRIPT, {})
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines] == [
        ['{"step": 0', ' "seed": 3'],
        ['{"step": 2', ' "seed": 3'],
    ]


def test_the_script_prints_what_was_asked_for(run):
    result = run("benchmark.py", "--suite", "training", "--repeats", "1")
    assert result.returncode == 0, result.stderr
    assert re.search(r"^training, 50 steps +min +median", result.stdout, re.MULTILINE)
    assert "gradient" not in result.stdout


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="longest must be at least 16"):
        benchmark.Config(longest=15)
    with pytest.raises(ValueError, match="study seeds must be at least 1"):
        benchmark.Config(study_seeds=0)


def test_every_suite_can_be_chosen(monkeypatch, capsys):
    for name in ("startup", "training", "seeds", "long"):
        monkeypatch.setattr(benchmark, name, lambda *_, name=name: name)
    for name in ("overhead", "study"):
        monkeypatch.setattr(benchmark_harness, name, lambda *_, name=name: name)
    monkeypatch.setattr(benchmark_language, "train", lambda *_: "train")
    names = ["startup", "training", "train", "seeds", "long", "overhead", "study"]
    suite: Any
    for suite in [*names, "all"]:
        benchmark.main(benchmark.Config(suite=suite))
        said = [line for line in capsys.readouterr().out.splitlines() if "PyTorch" not in line]
        assert said == (names if suite == "all" else [suite])
    assert Path(benchmark_harness.__file__).parent == benchmark.HERE


def test_a_step_of_a_language_model_is_the_same_in_both_implementations(no_cache, monkeypatch):
    monkeypatch.setattr(benchmark_language, "CASES", {"small": (2, 8, 4)})
    said = benchmark_language.train(repeats=1, steps=2, peer=False)
    assert said.startswith("a train step, small, T=50")
    assert [line.split("  ")[1] for line in said.splitlines()[1:]] == ["jaxrnn", "jaxrnn, nn.scan"]
    losses = {"ours": np.array([1.0, 2.0]), "theirs": np.array([1.0, 2.01])}
    with pytest.raises(AssertionError, match="losses of ours, theirs lie 0"):
        benchmark_language.compare(losses)
