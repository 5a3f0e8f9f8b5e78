"""`--learning-rate 1e-3,3e-3` as a user writes it, for every script."""

import importlib
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from jaxrnn import cli
from jaxrnn.cli import commands
from jaxrnn.cli.sweeps import find, numeric_fields

SMALL = "--hidden-size 3 --steps 3 --no-plots"
COMMANDS = {
    "memory": "--sequence-length 5 --batch-size 4 --learning-rate 1e-3,3e-3 --vmap-size 1",
    "hihello": "--learning-rate=0.1,0.2",
    "formal_languages": "--max-length 5 --test-max-length 7 --batch-size 3,4",
    "classify": "--task file --data rows.npz --batch-size 4 --dropout 0,0.5",
    "forecast": "--task sine --sequence-length 30 --batch-size 4 --clip-norm 0.5,1",
    "music": "--data pieces.mat --layers 2 --batch-size 3 --dropout 0,0.5",
    "seq2seq": "--max-digits 2 --batch-size 4 --attention-size None,3",
    "char_lm": "--text text.txt --batch-size 3 --sequence-length 9 --reset_probability 0,0.2",
}
"""For each script an option of its own, or one that is traced in a place of its own."""


@pytest.fixture
def script(call):
    """Run a script's command line in this process."""

    def run(name: str, *arguments: str):
        module = importlib.import_module(name)
        start = partial(cli.run_command, module.Config, module.main, make_config=module.make_config)
        return call(start, f"{name}.py", *arguments)

    return run


def write_data() -> None:
    draw, part = np.random.default_rng(0), np.empty((1, 4), object)
    for n in range(4):
        part[0, n] = (draw.random((6 + n, 88)) < 0.05).astype(np.uint8)
    scipy.io.savemat("pieces.mat", dict.fromkeys(("traindata", "validdata", "testdata"), part))
    rows, classes = draw.random((8, 5)).astype(np.float32), np.arange(8) % 2
    np.savez("rows.npz", x=rows, y=classes, x_test=rows, y_test=classes)
    Path("text.txt").write_text("the rain in Spain stays mainly in the plain\n" * 30)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_script_sweeps(name, script, call):
    write_data()
    result = script(name, *COMMANDS[name].split(), *SMALL.split())
    assert result.returncode == 0, result.stderr
    head, one, two, best = result.stdout.splitlines()
    assert "95% interval" in head
    assert (one[0] == "*") != (two[0] == "*")
    folder = Path(f"runs/{name}/0001")
    rows = json.loads((folder / "results.json").read_text())["rows"]
    assert best.startswith("Best: ")
    assert best.endswith(f"the run is in {folder / min(rows, key=lambda row: row['mean'])['run']}.")
    alone = name in ("formal_languages", "seq2seq")  # another shape, so another program
    assert (folder / "programs").exists() != alone
    result = call(commands.main, "jaxrnn", "info", str(folder))
    assert result.stdout.splitlines() == [head, one, two, best]


@pytest.mark.slow
def test_all_combinations_of_several_options(script, call):
    flags = "--learning-rate 1e-3,3e-3 --batch-size 2,3 --seeds 2 --vmap-size 2"
    result = script("memory", "--sequence-length", "4", *flags.split(), *SMALL.split())
    assert result.returncode == 0, result.stderr
    runs = [path.name for path in Path("runs/memory/0001").iterdir() if "=" in path.name]
    assert sorted(runs) == [
        f"learning_rate={rate},batch_size={size}" for rate in (0.001, 0.003) for size in (2, 3)
    ]
    again = call(commands.main, "jaxrnn", "resume", "runs/memory/0001")
    assert again.stdout == result.stdout


BAD = {
    "no number": ("--learning-rate 1e-3,x", "could not convert string to float: 'x'"),
    "empty": ("--learning-rate 1e-3,", "could not convert string to float: ''"),
    "out of range": ("--hidden-size 4,0", "hidden size must be at least 1"),
    "the same twice": ("--learning-rate 1e-3,0.001", "give the same experiment"),
    "the seeds": ("--seeds 1,2", "Error parsing --seeds: invalid literal"),
    "given twice": ("--clip-norm 1,2 --clip-norm 3,4", "--clip-norm is given twice"),
    "a directory in use": ("--clip-norm 1,2 --run-dir .", ". is not empty"),
    "not for this task": ("--delay 3,4", "--delay is for --task copy"),
    "a mesh": ("--mesh seed=1,rows=2", "mesh must be auto, or like data=2, seed=4"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_line(script, case):
    Path("file").touch()
    flags, message = BAD[case]
    result = script("memory", *flags.split())
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.slow
def test_other_options_may_have_commas(script):
    module = importlib.import_module("hihello")
    for arguments in (["--text", "a,b"], ["--text=1,2"], ["--mesh", "seed=1,data=1"], []):
        assert find(module.Config, arguments) is None
    result = script("hihello", "--text", "1,2,1", "--no-plots", "--steps", "2", "--quiet")
    assert result.returncode == 0
    assert "2,1'" in result.stdout
    assert not list(Path("runs/hihello").glob("0001/sweep.json"))


def test_which_options_take_several_values():
    module = importlib.import_module("char_lm")
    found = set(numeric_fields(module.Config))
    assert {"layers", "embedding_size", "epochs", "patience", "val_fraction"} <= found
    assert not found & {"seed", "seeds", "vmap_size", "text", "tie_embeddings", "heartbeat"}
