"""A small case of each experiment under JAX settings and environments that users have."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parent.parent.parent / "experiments"
TEXT = "the rain in Spain stays mainly in the plain. 안녕하세요\n" * 30
COMMANDS = {
    "hihello": "hihello.py --steps 3 --cell cifg --projection-size 3 --seeds 2",
    "hihello, one step": "hihello.py --text abc --steps 1 --cell rnn --hidden-size 2",
    "char_lm": "char_lm.py --text text.txt --steps 3 --hidden-size 8 --batch-size 3"
    " --sequence-length 10 --seeds 2 --vmap-size 1 --dropout 0.2",
}
CHECKS = {
    "JAX_DEBUG_NANS": "1",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_CHECK_TRACER_LEAKS": "1",
    "JAX_DEFAULT_MATMUL_PRECISION": "highest",
    "PYTHONWARNINGS": "error",
}
"""They only raise, each by an error of its own, or are more precise: one run has them all."""

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NARROW = {"TERM": "dumb", "COLUMNS": "20"}
FASTER = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # to compile
CASES = [
    ("all checks", CHECKS, "hihello"),
    ("all checks", CHECKS, "char_lm"),
    ("x64", {"JAX_ENABLE_X64": "1"}, "hihello"),
    ("x64", {"JAX_ENABLE_X64": "1"}, "char_lm"),
    ("no jit", {"JAX_DISABLE_JIT": "1"}, "hihello, one step"),  # the loop is the same for all
    ("two devices", {"JAX_NUM_CPU_DEVICES": "2"}, "hihello"),  # two seeds in one `vmap`
    ("two devices", {"JAX_NUM_CPU_DEVICES": "2"}, "char_lm"),  # one after the other
    ("python -O", {"PYTHONOPTIMIZE": "1"}, "char_lm"),  # it runs more of the modules
    ("C locale", ASCII, "char_lm"),  # its text is not ASCII
    ("narrow dumb terminal", NARROW, "hihello"),  # it prints a table and text
    ("narrow dumb terminal", NARROW, "char_lm"),  # and samples
]


def run(command: str, folder: Path, environment: dict[str, str], **options):
    (folder / "text.txt").write_text(TEXT)
    script, *arguments = COMMANDS[command].split()
    return subprocess.run(
        [sys.executable, str(EXPERIMENTS / script), *arguments],
        cwd=folder,
        env=environment | FASTER,
        stderr=subprocess.PIPE,
        text=True,
        timeout=600,
        check=False,
        **options,
    )


def assert_finished(result) -> None:
    known = ("note: ", "step ")
    lines = result.stderr.splitlines()
    assert result.returncode == 0, result.stderr[-2000:]
    assert all(line.startswith(known) for line in lines), result.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "command"),
    [pytest.param(*case, id=f"{name}-{case[1]}") for name, *case in CASES],
)
def test_scripts_run(command, settings, tmp_path, cache_home, environment):
    environment = environment | {"XDG_CACHE_HOME": str(cache_home)} | settings
    assert_finished(run(command, tmp_path, environment, stdout=subprocess.PIPE))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("home", "command"), [("missing", "hihello"), ("read-only", "char_lm"), ("unset", "hihello")]
)
def test_without_a_usable_home(command, home, tmp_path, environment):
    """The caches are lost, which is said in a note, and nothing else.

    All scripts make their caches in one place; both draw, so that Matplotlib wants one, too.
    """
    place = tmp_path / "home"
    if home == "read-only":
        place.mkdir()
        place.chmod(stat.S_IRUSR | stat.S_IXUSR)
        if os.access(place, os.W_OK):
            place.rmdir()  # root may write anywhere, but not below a file
            place.write_text("")
    elif home == "missing":
        place = Path("/dev/null/home")
    without = {name: value for name, value in environment.items() if not name.startswith("XDG_")}
    without.pop("HOME", None)
    given = {} if home == "unset" else {"HOME": str(place)}
    assert_finished(run(command, tmp_path, without | given, stdout=subprocess.PIPE))


@pytest.mark.slow
@pytest.mark.parametrize("command", ["hihello", "char_lm"])
def test_with_a_closed_stdout(command, tmp_path, cache_home, environment):
    environment = environment | {"XDG_CACHE_HOME": str(cache_home)}
    (tmp_path / "text.txt").write_text(TEXT)
    script, *arguments = COMMANDS[command].split()
    words = " ".join([sys.executable, str(EXPERIMENTS / script), *arguments, ">&-"])
    result = subprocess.run(
        ["/bin/sh", "-c", words],
        cwd=tmp_path,
        env=environment | FASTER,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert "Traceback" not in result.stderr, result.stderr
    assert list(tmp_path.glob("runs/*/0001/curves.png")) or command == "hihello"


@pytest.mark.slow
def test_arguments_of_an_ascii_locale_are_decoded(tmp_path, cache_home, environment):
    settings = {"XDG_CACHE_HOME": str(cache_home)} | ASCII | FASTER
    result = subprocess.run(
        [
            sys.executable,
            str(EXPERIMENTS / "hihello.py"),
            "--text",
            "안녕",
            "--quiet",
            "--no-plots",
        ],
        cwd=tmp_path,
        env=environment | settings,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(r"Learned '\ub155': correct from step ")
