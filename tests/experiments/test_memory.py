"""The script of the memory tasks, as a user runs it; what the tasks are is in test_tasks.py."""

import json
import re

import pytest

SMALL = ["--hidden-size", "3", "--steps", "3", "--batch-size", "4", "--no-plots"]


@pytest.mark.parametrize(("task", "memoryless_loss"), [("adding", "0.1667"), ("copy", "0.7702")])
def test_it_trains_and_reports(run, tmp_path, task, memoryless_loss):
    result = run("memory.py", "--task", task, "--length", "7", "--cell", "gru", *SMALL)
    assert (result.returncode, result.stderr) == (0, "")
    assert "seed 0 after 3 updates" in result.stdout
    assert f"(memoryless baseline: {memoryless_loss})" in result.stdout
    assert result.stdout.endswith("the run is in runs/memory/0001.\n")
    config = json.loads((tmp_path / "runs/memory/0001/config.json").read_text())
    assert config["experiment"]["task"]["length"] == 7
    assert config["experiment"]["task"]["batch_size"] == 4


def test_many_seeds_and_a_picture(run, tmp_path):
    result = run("memory.py", *SMALL[:-1], "--seeds", "3", "--group", "2", "--length", "4")
    assert (result.returncode, result.stderr) == (0, "")
    assert re.search(
        r"\d of 3 seeds solved it \(\d+%, 95% interval \d+ to \d+%, Wilson\)", result.stdout
    )
    assert (tmp_path / "runs/memory/0001/curves.png").exists()


BAD = {
    "unknown task": (["--task", "addding"], "--task must be one of adding, copy, not 'addding'"),
    "unknown cell": (["--cell", "lstn"], "--cell must be one of lstm, gru"),
    "too short": (["--length", "1"], "length must be"),
    "no batch": (["--batch-size", "0"], "batch size must be"),
    "no units": (["--hidden-size", "0"], "hidden size must be at least 1"),
    "no steps": (["--steps", "0"], "steps must be at least 1"),
    "no norm": (["--clip-norm", "0"], "clip norm must be a positive finite number"),
    "group beyond seeds": (["--seeds", "2", "--group", "3"], "group must be at most seeds, 2"),
    "no group": (["--seeds", "2", "--group", "0"], "group must be at least 1"),
    "unknown schedule": (["--schedule", "step"], "--schedule"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_and_leaves_nothing(run, tmp_path, case):
    arguments, expected = BAD[case]
    result = run("memory.py", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"error: .*\n", result.stderr), result.stderr
    assert expected in result.stderr
    assert list(tmp_path.iterdir()) == []
