"""Strictness for every test, and the fixtures that several share."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

collect_ignore_glob = ["goldens/*.py"]  # they need the systems whose numbers they record

EXPERIMENTS = Path(__file__).parent.parent / "experiments"

Run = Callable[..., subprocess.CompletedProcess[str]]

OPTIMIZED = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "optimized(yes): whether XLA optimizes what the test runs")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Compile in half the time where a test asks for numbers alone: `optimized(False)`.

    Most of the tests' time is XLA's, on programs that run for a thousandth of it. A wrong equation
    is wrong without optimisation, too. But a test of bits, memory, compiled text or time is of what
    users run, and so has what users have, which is the default. The closest mark counts, a test's
    before its module's.

    JAX's caches of compiled functions do not know of this setting, so they are emptied with it; and
    it is done in this hook because fixtures of modules, which compile as well, are made after it.
    """
    settings: Any = jax.config
    if settings.jax_compilation_cache_dir is not None:  # what a test switched on stays its own
        jax.config.update("jax_compilation_cache_dir", None)
    mark = item.get_closest_marker("optimized")
    optimized = mark is None or mark.args[0]
    if item.config.stash.get(OPTIMIZED, True) != optimized:
        item.config.stash[OPTIMIZED] = optimized
        jax.clear_caches()
        jax.config.update("jax_disable_most_optimizations", not optimized)


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(20)


@pytest.fixture(scope="session")
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache directory of the tests' own: the user's is neither read nor written."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """A user's environment: without settings of JAX, and without what importing it has set here."""
    ours = ("JAX_", "TF_CPP_MIN_LOG_LEVEL")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@pytest.fixture
def run(tmp_path: Path, cache_home: Path, environment: dict[str, str]) -> Run:
    """Run a script of experiments/ as a user does, in an empty working directory."""

    def run(script: str, *arguments: str | bytes, **settings: str):
        return subprocess.run(
            [sys.executable, str(EXPERIMENTS / script), *arguments],
            cwd=tmp_path,
            env=environment | {"XDG_CACHE_HOME": str(cache_home)} | settings,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def call(
    tmp_path: Path,
    cache_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Start a command line as `run` does, but in this process, where all is imported already."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))
    monkeypatch.setenv("COLUMNS", "80")  # these three are set by a script for its process
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(gc, "freeze", lambda: None)

    def call(start: Callable[[], object], program: str, *arguments: str | bytes):
        monkeypatch.setattr(sys, "argv", [program, *map(os.fsdecode, arguments)])
        code: Any = 0
        try:
            start()
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(sys.argv, code, out, err)

    return call
