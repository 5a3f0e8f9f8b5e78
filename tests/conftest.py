"""Strict settings for every test, and shared fixtures."""

import collections
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import html_pages
import jax
import pytest
from jax._src import compiler

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_num_cpu_devices", 4)  # whatever the machine has, for tests of meshes

collect_ignore_glob = ["goldens/*.py"]  # need the libraries whose numbers they record

LONGEST = (
    *("runs/test_processes.py", "runs/test_killed.py", "experiments/test_settings.py"),
    *("docs/test_tutorial.py", "runs/test_sweep.py", "experiments/test_benchmark.py"),
)
"""The files that take longest begin first, or a worker of pytest-xdist ends with them alone."""

QUICK = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}
"""What XLA does without where a test is not marked `optimized`, besides its optimizations."""

EXPERIMENTS = Path(__file__).parent.parent / "experiments"

Run = Callable[..., subprocess.CompletedProcess[str]]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Optimizations())
    config.addinivalue_line(
        "markers", "optimized: XLA optimizes what the test compiles, as it does for users"
    )
    config.addinivalue_line(
        "markers", "sampled(n): of the test's cases one in n runs by default; the others are slow"
    )


@pytest.hookimpl(tryfirst=True)  # before `-m` deselects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the pages of docs/ as slow, and all but each n-th case of a test marked `sampled(n)`.

    So the default run and `-m slow` together run each case once. Long files come first.
    """
    tests = Path(__file__).parent
    first = {tests / name: n for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path, len(first)))
    seen = collections.Counter[str]()
    for item in items:
        if tests.parent / "docs" in item.path.parents:
            item.add_marker("slow")
        if mark := item.get_closest_marker("sampled"):
            test, _, _ = item.nodeid.partition("[")
            if seen[test] % mark.args[0]:
                item.add_marker("slow")
            seen[test] += 1


@pytest.hookimpl(tryfirst=True)  # before fixtures are made
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not has_gpu():
        pytest.skip("needs a GPU")


def has_gpu() -> bool:
    return jax.default_backend() == "gpu"


def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: one worker per processor that this process may use.

    xdist's own choice counts physical cores where psutil is installed, and ignores affinity.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Optimizations:
    """Turn XLA's optimizations off, but for tests marked `optimized`.

    Most of the tests' time is spent compiling small programs, and without optimizations that takes
    a third as long. A wrong equation is wrong either way. Tests of bits, memory, time or compiled
    text need what users run, and so do the goldens.

    JAX's in-memory caches ignore this setting, so they are cleared when it changes. A hook does
    this, not a fixture, because it must come before module fixtures that compile. It is a plugin,
    because a conftest.py's own hooks do not see the doctests of other folders.
    """

    on = True  # JAX's default; its config does not say

    def __init__(self) -> None:
        """Let programs that are not optimized also do without XLA's slower code generator.

        And without splitting code between threads, which takes a fifth more processor time.
        """
        module: Any = compiler
        usual = module.get_compile_options

        def get_compile_options(*args: Any, **options: Any) -> Any:
            if not self.on:
                overrides = options.get("env_options_overrides") or {}
                options["env_options_overrides"] = QUICK | overrides
            return usual(*args, **options)

        module.get_compile_options = get_compile_options  # jax.config has no such setting

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        settings: Any = jax.config
        if settings.jax_compilation_cache_dir is not None:  # an earlier test switched it on
            jax.config.update("jax_compilation_cache_dir", None)
        optimized = item.get_closest_marker("optimized") is not None
        if self.on != optimized:
            self.on = optimized
            jax.clear_caches()
            jax.config.update("jax_disable_most_optimizations", not optimized)


@pytest.fixture(autouse=True)
def full_precision(request: pytest.FixtureRequest) -> Iterator[None]:
    """Products of float32 in float32 on a GPU, which would round their factors to TF32.

    It is set for all threads, as a context would not be.
    """
    on_gpu = request.node.get_closest_marker("gpu") is not None
    jax.config.update("jax_default_matmul_precision", "highest" if on_gpu else None)
    yield
    jax.config.update("jax_default_matmul_precision", None)


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(20)


@pytest.fixture(scope="session")
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compilation cache for the session, shared by its workers; the user's is left alone.

    Tests that damage or count its entries make a cache of their own.
    """
    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        directory = directory.parent  # each worker has a directory of its own below this one
    cache = directory / "cache"
    cache.mkdir(exist_ok=True)
    return cache


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """A user's environment: without JAX settings, and without what importing JAX sets here."""
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
def browse(tmp_path: Path) -> Callable[..., tuple[dict[str, Any], html_pages.Parsed]]:
    """Open a page in a browser, as `html_pages.browse` does; skips the test without a browser."""
    return partial(html_pages.browse, tmp_path)


@pytest.fixture
def call(
    tmp_path: Path,
    cache_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run a command line as `run` does, but in this process, which saves the imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))
    monkeypatch.setenv("COLUMNS", "80")  # scripts set these three for their process
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
