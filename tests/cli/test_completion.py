"""`jaxrnn completion`: bash completes what it should, with the script that it is given."""

import shutil
import subprocess

import pytest

from jaxrnn.cli import commands
from jaxrnn.cli.parsing import SHELLS


@pytest.fixture
def script(call) -> str:
    result = call(commands.main, "jaxrnn", "completion", "bash")
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("jaxrnn re", {"resume"}),
        ("jaxrnn co", {"compare", "completion"}),
        ("jaxrnn sample run --temp", {"--temperature"}),
        ("jaxrnn evaluate run --split t", {"test"}),
        ("jaxrnn compare ru", set()),  # files: bash's own completion
    ],
)
def test_bash(script, line, completed):
    words = line.split()
    lines = [
        script,
        f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}",
        f"COMP_LINE='{line}'; COMP_POINT={len(line)}",
        f"_tyro_jaxrnn jaxrnn '{words[-1]}' '{words[-2]}'",
        'echo "${COMPREPLY[@]}"',
        "complete -p jaxrnn",
    ]
    command = ["bash", "--norc", "-c", "\n".join(lines)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found, how = result.stdout.splitlines()
    assert set(found.split()) == completed
    assert how == "complete -o default -F _tyro_jaxrnn jaxrnn"


def test_every_shell(call):
    for shell in SHELLS:
        assert "jaxrnn" in call(commands.main, "jaxrnn", "completion", shell).stdout


@pytest.mark.parametrize("words", ["completion bsh", "--tyro-print-completion bsh"])
def test_an_unknown_shell(call, words):
    result = call(commands.main, "jaxrnn", *words.split())
    said = "error: the shell must be bash, zsh or fish, not 'bsh'; did you mean bash?\n"
    assert (result.returncode, result.stderr) == (2, said)
