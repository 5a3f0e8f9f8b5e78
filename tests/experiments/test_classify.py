"""The classification script as a user runs it; the tasks themselves are tested in tests/tasks."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from classify import Config, main

from jaxrnn import cli

SMALL = ["--hidden-size", "3", "--steps", "2", "--batch-size", "4", "--no-plots"]


@pytest.fixture
def classify(call):
    """Run the script's command line in this process."""
    return partial(call, partial(cli.run_command, Config, main), "classify.py")


@pytest.mark.parametrize("task", ["file", pytest.param("mnist1d", marks=pytest.mark.slow)])
def test_trains_and_reports(classify, task):
    x, y = np.ones((5, 3, 2)), np.arange(5) % 2
    np.savez("set.npz", x=x, y=y, x_test=x, y_test=y)
    options = ["--data", "set.npz"] if task == "file" else ["--fresh", "--pool", "flatten"]
    result = classify("--task", task, *options, "--bidirectional", "--cell", "gru", *SMALL)
    assert (result.returncode, result.stderr) == (0, "")
    assert "validation_accuracy" in result.stdout
    baseline = {"file": "0.673", "mnist1d": "2.303"}[task]  # of 3 and 2 labels; of 10 digits
    assert f"(memoryless baseline: {baseline})" in result.stdout
    written = json.loads(Path("runs/classify/0001/manifest.json").read_text())
    assert list(written["data_files"]) == (["set.npz"] if task == "file" else [])


BAD = {
    "unknown task": (["--task", "mnist"], "--task must be one of mnist1d, digits, japanese-vowels"),
    "view of mnist1d": (["--view", "rows"], "--view is for --task digits"),
    "fresh digits": (["--task", "digits", "--fresh"], "--fresh is for --task mnist1d"),
    "no data": (["--task", "file"], "--task file needs --data FILE.npz"),
    "no file": (["--task", "file", "--data", "x.npz"], "No such file or directory: x.npz"),
    "damaged file": (["--task", "file", "--data", "bad.npz"], "bad.npz must be an .npz file with"),
    "no folder": (["--task", "japanese-vowels", "--folder", "x"], "No such file or directory: x/J"),
    "no batch": (["--batch-size", "0"], "batch size must be at least 1"),
    "unknown pool": (["--pool", "max"], "--pool"),
    "seed": (["--permutation-seed", "-1"], "permutation seed must be a whole number from 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_invalid_options_give_one_line_and_leave_nothing(classify, tmp_path, case):
    arguments, expected = BAD[case]
    if case == "damaged file":
        x, y = np.ones((5, 3, 2)), np.arange(5) % 2
        np.savez("bad.npz", x=x, y=y, x_test=x, y_test=y)
        Path("bad.npz").write_bytes(Path("bad.npz").read_bytes()[:-40])
    before = [*tmp_path.iterdir()]
    result = classify(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"error: .*\n", result.stderr), result.stderr
    assert expected in result.stderr
    assert [*tmp_path.iterdir()] == before
