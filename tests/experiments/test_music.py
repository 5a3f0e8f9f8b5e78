"""The music script as a user runs it; the task itself is tested in tests/tasks."""

import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from music import Config, main

from jaxrnn import cli

SMALL = ["--layers", "1", "--hidden-size", "3", "--dropout", "0", "--steps", "3"]


@pytest.fixture
def music(call):
    """Run the script's command line in this process."""
    return partial(call, partial(cli.run_command, Config, main), "music.py")


@pytest.fixture
def pieces(tmp_path):
    draw, part = np.random.default_rng(0), np.empty((1, 4), object)
    for n in range(4):
        part[0, n] = (draw.random((6 + n, 88)) < 0.05).astype(np.uint8)
    file = tmp_path / "pieces.mat"
    scipy.io.savemat(file, dict.fromkeys(("traindata", "validdata", "testdata"), part))
    return file.name


@pytest.mark.slow
@pytest.mark.parametrize("installed", [True, False])
def test_trains_and_composes(music, pieces, monkeypatch, installed):
    if installed:
        pytest.importorskip("mido")
    else:
        monkeypatch.setitem(sys.modules, "mido", None)
    options = [*SMALL, "--batch-size", "3", "--compose-frames", "5"]
    result = music("--data", pieces, *options)
    assert result.returncode == 0
    assert re.search(r"Best validation loss: \S+ nats per frame, after \d updates", result.stdout)
    assert ("pip install mido" in result.stderr) != installed
    made = {path.name for path in Path("runs/music/0001").iterdir()}
    assert {"composed.png", "curves.png"} <= made
    assert ("composed.mid" in made) == installed


BAD = {
    "no file": ([], "--data"),
    "missing file": (["--data", "none.mat"], "none.mat"),
    "bad file": (["--data", "bad.mat"], "bad.mat is not a .mat file that SciPy can read"),
    "sees the future": (["--data", "bad.mat", "--bidirectional"], "--bidirectional would show"),
    "no frames": (
        ["--data", "bad.mat", "--compose-frames", "0"],
        "compose frames must be at least",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_invalid_options_give_one_line_and_leave_nothing(music, tmp_path, case):
    (tmp_path / "bad.mat").write_text("no music")
    arguments, expected = BAD[case]
    result = music(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"error: .*\n", result.stderr), result.stderr
    assert expected in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.mat"]
