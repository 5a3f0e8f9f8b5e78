"""The report of the doctor: what it tells, what it keeps to itself, and that it can find an ill."""

import importlib.metadata
from typing import ClassVar

import flax
import jax
import numpy as np
import optax
import pytest

from jaxrnn.cli import doctor
from jaxrnn.runs import provenance

TITLES = [
    "Versions",
    "Machine",
    "Devices",
    "JAX settings that are not at their default",
    "Environment",
    "Compilation cache",
    "Checks",
]


def read(text):
    """The report's sections, each a list of lines."""
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines) if not line.startswith("  ")]
    assert [lines[i] for i in starts] == TITLES
    ends = [*starts[1:], len(lines)]
    sections = {
        lines[i]: [line.strip() for line in lines[i + 1 : end]]
        for i, end in zip(starts, ends, strict=True)
    }
    assert all(sections.values()), "a section says nothing, not even that there is nothing"
    return sections


@pytest.fixture
def home(monkeypatch, tmp_path):
    """The home of a user whose name should not be told, with the cache in it."""
    monkeypatch.setenv("HOME", str(tmp_path / "alexandra"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(doctor, "_default_settings", dict)
    return tmp_path / "alexandra"


def test_the_report_has_versions_machine_and_checks():
    text, healthy = doctor.report()
    report = read(text)
    for module in (jax, flax, np, optax):
        assert f"{module.__name__} {module.__version__}" in report["Versions"]
    assert f"jaxlib {importlib.metadata.version('jaxlib')}" in report["Versions"]
    assert any(line.startswith("CPU: ") for line in report["Machine"])
    assert len(report["Devices"]) == len(jax.devices())
    assert jax.devices()[0].device_kind in report["Devices"][0]
    assert report["Checks"] == ["jit and eager agree in 6 computations"]
    assert healthy


def test_settings_off_their_defaults_are_shown():
    """The tests themselves run with one that is not (conftest.py)."""
    shown = "jax_numpy_rank_promotion = 'raise' (default 'allow')"
    assert shown in read(doctor.report().text)[TITLES[3]]
    with jax.default_matmul_precision("float32"), jax.numpy_rank_promotion("allow"):
        settings = read(doctor.report().text)[TITLES[3]]
    assert "jax_default_matmul_precision = 'float32' (default None)" in settings
    assert not any("rank_promotion" in line or "enable_x64" in line for line in settings)


def test_defaults_ignore_the_environment(monkeypatch):
    settings = {"JAX_NUMPY_RANK_PROMOTION": "warn", "JAX_ENABLE_X64": "1", "CHECK_VMA": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    ask = doctor._default_settings.__wrapped__  # past what it remembers
    defaults = ask() or {}
    assert [defaults[name] for name in ("jax_numpy_rank_promotion", "jax_enable_x64")] == [
        "'allow'",
        "False",
    ]
    assert defaults.get("check_vma") in (None, "False")
    monkeypatch.setattr(doctor.sys, "executable", "/no/python")
    assert ask() is None


def test_only_jaxs_environment_variables_are_shown(monkeypatch, home):
    shown = {
        "JAX_LOG_COMPILES": "0",
        "XLA_FLAGS": f"--xla_dump_to={home}/dump\n",
        "TF_CPP_MAX_VLOG_LEVEL": "2",
        "NPROC": "3",
    }
    hidden = {"AWS_SECRET_ACCESS_KEY": "hunter2", "MY_JAX_TOKEN": "hunter2", "jax_pass": "hunter2"}
    for name, value in (shown | hidden).items():
        monkeypatch.setenv(name, value)
    text = doctor.report().text
    environment = read(text)["Environment"]
    assert "JAX_LOG_COMPILES=0" in environment
    assert r"XLA_FLAGS=--xla_dump_to=~/dump\n" in environment
    assert "TF_CPP_MAX_VLOG_LEVEL=2" in environment
    assert "NPROC=3" in environment
    assert "hunter2" not in text
    assert "alexandra" not in text


def test_the_cache_is_found_and_counted(monkeypatch, home):
    def cache():
        return read(doctor.report().text)["Compilation cache"]

    monkeypatch.setattr(doctor.platformdirs, "user_cache_dir", lambda name: f"{home}/cache/{name}")
    assert cache() == ["on, in ~/cache/jaxrnn", "0 entries, 0.0 MiB"]
    for n, folder in enumerate(("one", "two", "two")):
        (home / "cache/jaxrnn" / folder).mkdir(parents=True, exist_ok=True)
        (home / f"cache/jaxrnn/{folder}/{n}-cache").write_bytes(bytes((n + 1) * 2**20))
    (home / "cache/jaxrnn/checked").write_bytes(bytes(2**22))
    (home / "cache/jaxrnn/gone-cache").symlink_to("nowhere")
    assert cache() == ["on, in ~/cache/jaxrnn", "3 entries, 6.0 MiB"]
    monkeypatch.setattr(doctor.os, "access", lambda place, mode: "cache" not in str(place))
    assert cache()[2] == "it cannot be written: ~/cache/jaxrnn is read-only"


def test_the_cache_may_be_off_or_remote(monkeypatch, home):
    class Settings:
        jax_enable_compilation_cache = False
        jax_compilation_cache_dir = "gs://bucket/cache"
        values: ClassVar = {}

    monkeypatch.setattr(doctor.jax, "config", Settings)
    assert list(doctor._cache()) == ["off, set to gs://bucket/cache"]


def test_a_compiler_with_wrong_numbers_is_reported(monkeypatch, home):
    real = jax.jit

    def wrong(function):
        return lambda rows: real(function)(rows).at[-1].set(1071645696.0)

    monkeypatch.setattr(jax, "jit", wrong)
    text, healthy = doctor.report()
    assert not healthy
    first, *others = read(text)["Checks"]
    sums = "WRONG NUMBERS: sums of squares of products: number 32768 is"
    assert first.startswith(f"{sums} 1071645696 under jit and 1073741824 without")
    assert all(line.startswith("WRONG NUMBERS: ") for line in others)


@pytest.mark.parametrize("package", ["jax", "jaxlib"])
@pytest.mark.parametrize("version", doctor.BAD_VERSIONS)
def test_an_excluded_version_is_reported(monkeypatch, home, package, version):
    versions = provenance.versions() | {package: version}
    monkeypatch.setattr(provenance, "versions", lambda: versions)
    text, healthy = doctor.report()
    assert not healthy
    line, miscompile_check = read(text)["Checks"]
    assert line.startswith(f"BAD VERSION: {package} {version} ")
    assert miscompile_check == "jit and eager agree in 6 computations"


def test_the_excluded_versions_are_those_of_pyproject():
    for requirement in importlib.metadata.requires("jaxrnn") or []:
        if requirement.startswith(("jax>", "jax<", "jax!", "jaxlib")):
            for version in doctor.BAD_VERSIONS:
                assert f"!={version}" in requirement
            assert requirement.count("!=") == len(doctor.BAD_VERSIONS)


@pytest.mark.parametrize("error", [RuntimeError("no cuda\nhere"), AssertionError()])
def test_without_a_device_it_still_reports(monkeypatch, home, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.setattr(doctor, "miscompile_checks", fail)
    text, healthy = doctor.report()
    said = {"RuntimeError": "RuntimeError: no cuda"}.get(type(error).__name__, "AssertionError")
    assert read(text)["Devices"] == [f"NO DEVICE: {said}"]
    assert read(text)["Checks"] == [f"JAX FAILED: {said}"]
    assert not healthy


def test_a_devices_memory_is_shown_if_known(monkeypatch, home):
    class Device:
        id, device_kind, platform = 3, "Wafer", "gpu"

        def memory_stats(self):
            return {"bytes_limit": 3 * 2**30}

    monkeypatch.setattr(jax, "devices", lambda: [Device()])
    assert read(doctor.report().text)["Devices"] == ["3: Wafer (gpu), 3.0 GiB for JAX"]
