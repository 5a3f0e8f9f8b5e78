"""Strictness for every test, and the fixtures that several share."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

collect_ignore_glob = ["goldens/*.py"]  # they need the systems whose numbers they record

EXPERIMENTS = Path(__file__).parent.parent / "experiments"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def cache_as_it_was() -> Iterator[None]:
    """What a test switches on of JAX's compilation cache stays its own."""
    settings: Any = jax.config
    before = settings.jax_compilation_cache_dir
    yield
    if settings.jax_compilation_cache_dir != before:
        jax.config.update("jax_compilation_cache_dir", before)


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
