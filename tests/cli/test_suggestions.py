"""Mistakes on a command line: one line that names the closest valid name."""

from functools import partial

import memory
import pytest

from jaxrnn import cli
from jaxrnn.choices import closest
from jaxrnn.cli import commands
from jaxrnn.training.config import TrainConfig

COMMANDS = {
    "inof x": "there is no command inof; did you mean info?",
    "frobnicate": "there is no command frobnicate; the commands are resume, verify, ",
    "sample run --temprature 3": "did you mean --temperature?",
    "evaluate run --split tst": "Expected one of ('val', 'test'); did you mean test?",
    "export run --to onxx": "did you mean onnx?",
}
OPTIONS = {
    "--hiden-size 3": "Unrecognized options: --hiden-size, 3; did you mean --hidden-size?",
    "--hidden-sizes=3": "did you mean --hidden-size?",
    "--nope --lerning-rate 1": "did you mean --learning-rate?",
    "--task addng": "not 'addng'; did you mean adding?",
    "--task sel": "not 'sel'; did you mean selective-copy?",
    "--cell LSTM": "not 'LSTM'; did you mean lstm?",
    "--schedule lineer": "did you mean linear?",
    "--variant 1998": "variant must be sum or 1997, not '1998'; did you mean 1997?",
}


def one_line(result) -> str:
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize("words", COMMANDS)
def test_commands(call, words):
    assert COMMANDS[words] in one_line(call(commands.main, "jaxrnn", *words.split()))


@pytest.mark.parametrize("words", OPTIONS)
def test_options_of_a_script(call, words):
    start = partial(cli.run_command, memory.Config, memory.main)
    assert OPTIONS[words] in one_line(call(start, "memory.py", *words.split()))


def test_nothing_close_is_not_suggested(call):
    start = partial(cli.run_command, memory.Config, memory.main)
    for words in ("--xyzzy 3", "--cell quux"):
        assert "did you mean" not in one_line(call(start, "memory.py", *words.split()))


def test_settings_in_python():
    with pytest.raises(ValueError, match="not 'adamm'; did you mean adam"):
        TrainConfig(3, optimizer="adamm")


def test_the_closest_name():
    names = ["learning_rate", "adam-tf1", "adam", "addition"]
    assert closest("Learning-Rate", names) == "learning_rate"
    assert closest("--lerning_rate", names) == "learning_rate"
    assert closest("add", names) == "addition"
    assert closest("", names) is None
    assert closest(7, names) is None
    assert closest("adam", []) is None
