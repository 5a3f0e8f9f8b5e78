"""The forecasting script as a user runs it; the tasks themselves are tested in tests/tasks."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from forecast import Config, main

from jaxrnn import cli

SMALL = ["--hidden-size", "3", "--steps", "3", "--batch-size", "4", "--sequence-length", "30"]


@pytest.fixture
def forecast(call):
    """Run the script's command line in this process."""
    return partial(call, partial(cli.run_command, Config, main), "forecast.py")


def test_a_file_is_forecast_and_drawn(forecast, tmp_path):
    np.savetxt(tmp_path / "numbers.txt", np.sin(np.arange(200)))
    result = forecast("--task", "file", "--data", "numbers.txt", *SMALL, "--lags", "2")
    assert (result.returncode, result.stderr) == (0, "")
    assert re.search(r"Best validation loss: .* \(RMSE .* standard deviations, ", result.stdout)
    last = result.stdout.splitlines()[-1]
    assert re.fullmatch(r"RMSE of the last .* on 2 values: \d\.\d+e-0[5-9]\.", last), last
    folder = Path("runs/forecast/0001")
    assert {"forecast.png", "curves.png"} <= {path.name for path in folder.iterdir()}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest["data_files"]) == ["numbers.txt"]


@pytest.mark.slow
def test_a_synthetic_series_and_several_seeds(forecast):
    result = forecast("--task", "sine", *SMALL, "--seeds", "2", "--vmap-size", "2", "--no-plots")
    assert (result.returncode, result.stderr) == (0, "")
    assert "(memoryless baseline: 1)" in result.stdout
    assert "linear autoregression on 20 values" in result.stdout
    assert not list(Path("runs/forecast/0001").glob("*.png"))


BAD = {
    "unknown task": (
        ["--task", "cosine"],
        "--task must be one of sine, mackey-glass, lorenz, ",
    ),
    "no file": (["--task", "file"], "--task file and --data FILE need each other"),
    "file of another": (["--data", "a.txt"], "--task file and --data FILE need each other"),
    "part of a generated series": (["--val-fraction", "0.3"], "--val-fraction is for measured"),
    "sees the future": (["--bidirectional"], "would show the network the values to predict"),
    "many lags": (["--lags", "22"], "--lags must be from 1 to 21"),
    "missing file": (["--task", "file", "--data", "none.txt"], "none.txt"),
    "bad file": (["--task", "file", "--data", "bad.txt"], "line 2 of bad.txt ends in 'b'"),
    "short window": (["--sequence-length", "20"], "sequence length must be more than the warmup"),
}


@pytest.mark.parametrize("case", BAD)
def test_invalid_options_give_one_line_and_leave_nothing(forecast, tmp_path, case):
    (tmp_path / "bad.txt").write_text("a\nb\n")
    arguments, expected = BAD[case]
    result = forecast(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"error: .*\n", result.stderr), result.stderr
    assert expected in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.txt"]
