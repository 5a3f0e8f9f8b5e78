"""The command line's lines and exit codes, in environments that users have."""

import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn.cli import entry
from jaxrnn.training import processes


@dataclass(frozen=True)
class Config:
    """Do something."""

    size: int = 3
    """How large it is, which takes a long sentence to explain."""


def refusal(capsys: pytest.CaptureFixture[str], error: BaseException) -> tuple[object, str]:
    with pytest.raises(SystemExit) as stop, entry.exit_cleanly():
        raise error
    return stop.value.code, capsys.readouterr().err


def test_too_little_memory_is_reported_in_the_words_of_who_found_it(capsys):
    said = "the program needs 9 GB, but only 2 GB is free: use a vmap size of at most 4"
    assert refusal(capsys, MemoryError(said)) == (2, f"error: {said}\n")
    usual = "error: not enough memory for this many seeds, steps, characters or hidden units\n"
    assert refusal(capsys, MemoryError()) == (2, usual)
    with pytest.raises(MemoryError) as numpys:
        np.zeros((10**6, 10**6, 10**3))
    assert refusal(capsys, numpys.value) == (2, usual)
    exhausted = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")
    assert refusal(capsys, exhausted) == (2, usual)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_nan_that_jax_finds_counts_as_divergence(capsys, compiled):
    divide = jax.jit(lambda x: x / x)
    if compiled:  # raises an exception that JAX does not export
        divide = divide.lower(np.float32(0)).compile()
    with (
        pytest.raises(SystemExit) as stop,
        jax.debug_nans(True),
        entry.exit_cleanly(),
    ):
        divide(jnp.float32(0))
    assert stop.value.code == 3
    found = "error: JAX_DEBUG_NANS or JAX_DEBUG_INFS found a number that is not finite\n"
    assert capsys.readouterr().err == found


@pytest.mark.parametrize("kind", [jax.errors.JaxRuntimeError, ValueError])
def test_an_error_of_gloo_says_that_another_process_has_died(kind, monkeypatch):
    """Of whatever type; alone it is a bug."""
    error = kind("UNKNOWN: Gloo AllGather failed: Connection closed by peer [127.0.0.1]:5015")
    with pytest.raises(kind), entry.exit_cleanly():
        raise error
    monkeypatch.setattr(processes, "are_several", lambda: True)
    monkeypatch.setattr(processes, "end", lambda message: sys.exit(message))
    with pytest.raises(SystemExit, match=processes.LOST), entry.exit_cleanly():
        raise error


def test_other_errors_of_arithmetic_are_bugs():
    with pytest.raises(FloatingPointError), entry.exit_cleanly():
        raise FloatingPointError("a bug")


def test_help_is_readable_in_a_narrow_terminal(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    shown = call(lambda: entry.run_command(Config, print), "program", "--help")
    assert shown.returncode == 0
    assert "How large it is, which" in shown.stdout
    assert os.environ["COLUMNS"] == "20"


def test_closed_streams_are_replaced(monkeypatch, capfd):
    """Python has None in their place."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(SystemExit) as stop, entry.exit_cleanly():
        print("to nobody")
        raise MemoryError
    assert stop.value.code == 2
    assert sys.stdout is not None
    assert sys.stderr is not None
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [("--help", 0, ""), ("resume --nope", 2, "error: "), ("", 2, "error: ")],
)
def test_with_a_closed_stdout(tmp_path, environment, arguments, code, error):
    result = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m jaxrnn {arguments} >&-"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(Path(entry.__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == code, result.stderr
    assert result.stderr.count("\n") == bool(error)
    assert result.stderr.startswith(error)


def test_matplotlib_does_not_tell_where_its_caches_are(caplog):
    with entry.exit_cleanly():
        logging.getLogger("matplotlib").warning("created a temporary cache directory")
    assert not caplog.records


def test_a_script_whose_path_cannot_be_decoded(call):
    script = "스크립트.py".encode().decode("ascii", "surrogateescape")  # as an ASCII locale has it
    refused = call(lambda: entry.run_command(Config, print), script)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "스크립트.py cannot be used in this locale: set PYTHONUTF8=1" in refused.stderr
