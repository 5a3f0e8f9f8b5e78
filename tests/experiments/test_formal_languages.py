"""The script for formal languages as a user runs it; the tasks are tested in tests/tasks."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
from formal_languages import Config, main, make_config

from jaxrnn import cli

SMALL = ["--hidden-size", "3", "--steps", "3", "--batch-size", "4", "--no-plots"]


@pytest.fixture
def formal_languages(call):
    """Run the script's command line in this process."""
    return partial(call, partial(cli.run_command, Config, main), "formal_languages.py")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "arguments", "memoryless_loss"),
    [
        ("parity", "--max-length 5 --test-max-length 9", "0.6931"),
        ("permutations", "--num-elements 3 --test-max-length 50 --every-step False", "1.792"),
        ("embedded-reber", "--max-length 20 --num-test-strings 9", "1.261"),
        (
            "continual-reber",
            "--sequence-length 20 --external-resets",
            "1.21",
        ),
        ("counting", "--num-letters 3 --max-count 3 --test-max-count 4", "0.198"),
        ("dyck", "--max-length 10", "1.065"),
    ],
)
def test_trains_and_reports(formal_languages, task, arguments, memoryless_loss):
    result = formal_languages("--task", task, *arguments.split(), "--cell", "gru", *SMALL)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"(memoryless baseline: {memoryless_loss}" in result.stdout
    config = json.loads(Path("runs/formal_languages/0001/config.json").read_text())
    assert config["experiment"]["task"]["batch_size"] == 4


BAD = {
    "unknown task": (["--task", "party"], "--task must be one of parity, even-pairs"),
    "no modulus": (["--modulus", "3"], "--modulus is for --task modular-arithmetic; parity has"),
    "no training strings": (
        ["--task", "dyck", "--num-training-strings", "9"],
        "--num-training-strings is for --task embedded-reber; dyck has --max-length, --num-types",
    ),
    "resets of parity": (["--external-resets"], "--external-resets is for --task continual-reber;"),
    "sees the future": (
        ["--task", "dyck", "--bidirectional"],
        "--bidirectional would show the network the symbols to predict",
    ),
    "no test": (["--test-max-length", "9"], "test max length must be more than max length, 40"),
}


@pytest.mark.parametrize("case", BAD)
def test_invalid_options_give_one_line_and_leave_nothing(formal_languages, tmp_path, case):
    arguments, expected = BAD[case]
    result = formal_languages(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"error: .*\n", result.stderr), result.stderr
    assert expected in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_false_is_a_value_unless_it_is_a_flags_default():
    task = make_config(Config(task="permutations", every_step=False)).task
    assert not vars(task)["every_step"]
