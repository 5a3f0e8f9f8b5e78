"""The memory script as a user runs it; the tasks themselves are tested in tests/tasks."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
from memory import Config, main

from jaxrnn import cli

SMALL = ["--hidden-size", "3", "--steps", "3", "--batch-size", "4", "--no-plots"]


@pytest.fixture
def memory(call):
    """Run the script's command line in this process."""
    return partial(call, partial(cli.run_command, Config, main), "memory.py")


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("task", "option", "memoryless_loss"),
    [
        ("adding", "sequence_length", "0.1667"),
        ("copy", "delay", "0.7702"),
        ("selective-copy", "num_copied", "2.079"),
        ("temporal-order", "sequence_length", "1.386"),
    ],
)
def test_trains_and_reports(memory, task, option, memoryless_loss):
    flag, value = "--" + option.replace("_", "-"), "10" if task == "temporal-order" else "7"
    result = memory("--task", task, flag, value, "--cell", "gru", *SMALL)
    assert (result.returncode, result.stderr) == (0, "")
    assert "seed 0 after 3 updates" in result.stdout
    assert f"(memoryless baseline: {memoryless_loss})" in result.stdout
    assert result.stdout.endswith("the run is in runs/memory/0001.\n")
    config = json.loads(Path("runs/memory/0001/config.json").read_text())
    assert config["experiment"]["task"][option] == int(value)
    assert config["experiment"]["task"]["batch_size"] == 4


@pytest.mark.slow
def test_many_seeds_and_a_plot(run, tmp_path):
    flags = ["--seeds", "3", "--vmap-size", "2", "--sequence-length", "4"]
    result = run("memory.py", *SMALL[:-1], *flags)
    assert (result.returncode, result.stderr) == (0, "")
    assert re.search(
        r"\d of 3 seeds solved it \(\d+%, 95% interval \d+ to \d+%, Wilson\)", result.stdout
    )
    assert (tmp_path / "runs/memory/0001/curves.png").exists()


BAD = {
    "unknown task": (["--task", "addding"], "--task must be one of adding, copy, sel"),
    "unknown cell": (["--cell", "lstn"], "--cell must be one of lstm, cifg, gru"),
    "projection of a GRU": (
        ["--cell", "gru", "--projection-size", "3"],
        "the cell gru has no projection_size",
    ),
    "empty projection": (["--projection-size", "0"], "projection_size must be a whole number"),
    "too short": (["--sequence-length", "1"], "sequence length must be at least 2"),
    "delay of adding": (
        ["--delay", "9"],
        "--delay is for --task copy; adding has --sequence-length, --variant, --batch-size",
    ),
    "length of copy": (
        ["--task", "copy", "--sequence-length", "9"],
        "--sequence-length is for --task adding, selective-copy, temporal-order; copy has --delay",
    ),
    "variant of copy": (["--task", "copy", "--variant", "1997"], "--variant is for --task adding"),
    "unknown variant": (["--variant", "6a"], "variant must be sum or 1997, not '6a'"),
    "no batch": (["--batch-size", "0"], "batch size must be"),
    "no units": (["--hidden-size", "0"], "hidden size must be at least 1"),
    "no steps": (["--steps", "0"], "steps must be at least 1"),
    "no norm": (["--clip-norm", "0"], "clip norm must be a positive finite number"),
    "vmap size beyond seeds": (["--seeds", "2", "--vmap-size", "3"], "vmap size must be at most"),
    "no vmap size": (["--seeds", "2", "--vmap-size", "0"], "vmap size must be at least 1"),
    "unknown schedule": (["--schedule", "step"], "--schedule"),
}


@pytest.mark.parametrize("case", BAD)
def test_invalid_options_give_one_line_and_leave_nothing(memory, tmp_path, case):
    arguments, expected = BAD[case]
    result = memory(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"error: .*\n", result.stderr), result.stderr
    assert expected in result.stderr
    assert list(tmp_path.iterdir()) == []
