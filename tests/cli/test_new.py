"""`jaxrnn new`: the script that it writes runs as it is."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxrnn.cli import commands, script_template


@pytest.fixture
def new(call):
    def new(*words: str):
        return call(commands.main, "jaxrnn", "new", *words)

    return new


def test_the_script(new):
    result = new("my study.py")
    assert (result.returncode, result.stderr) == (0, "")
    said = "Written: 'my study.py'. Run it with: python 'my study.py' (--help lists its options).\n"
    assert result.stdout == said
    text = Path("my study.py").read_text()
    assert "python my study.py --cell gru" in text
    assert len(list(filter(None, map(str.strip, text.splitlines())))) <= 40


def test_its_task():
    """The targets are the first symbol, and only the last step counts."""
    config = script_template.make_config(script_template.Config(sequence_length=7))
    batch = config.task.sample_batch(jax.random.key(0), 0)
    first = batch.inputs[:, 0].argmax(-1)
    assert batch.inputs.shape == (32, 7, 4)
    assert (batch.targets == first[:, None]).all()
    assert batch.weights.sum(0).tolist() == [0] * 6 + [32]


@pytest.mark.slow
def test_it_runs_as_it_is(new, environment, cache_home):
    """Also `info`, `--config` and sweeps find the script again."""
    new("mine.py")

    def start(*words: str) -> str:
        result = subprocess.run(
            [sys.executable, *words],
            env=environment | {"XDG_CACHE_HOME": str(cache_home), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert "5 of 5 seeds solved it" in start("mine.py")
    assert Path("runs/mine/0001/curves.png").exists()
    assert "FirstSymbol(sequence_length=20)" in start("-m", "jaxrnn", "info", "runs/mine/0001")
    words = ["--config", "runs/mine/0001/config.json", "--steps", "2", "--no-plots"]
    assert "Best: sequence_length=" in start("mine.py", *words, "--sequence-length", "3,4")
    assert "runs/mine/0002/sequence_length=3" in start("-m", "jaxrnn", "list")


ROOT = Path(commands.__file__).parents[2]

BAD = {
    "study": "error: a script's name ends in .py, such as study.py\n",
    "jax.py": "error: jax.py would hide the module jax; choose another name\n",
    "nowhere/mine.py": "error: No such file or directory: nowhere/mine.py\n",
    "there.py": "error: File exists: there.py\n",
}


@pytest.mark.parametrize("name", BAD)
def test_mistakes_are_one_line(new, tmp_path, name):
    (tmp_path / "there.py").write_text("mine")
    result = new(name)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", BAD[name])
    assert (tmp_path / "there.py").read_text() == "mine"
