"""The command `jaxrnn doctor`: what a bug report needs, and whether JAX computes correctly here."""

import contextlib
import functools
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import platformdirs

import jaxrnn
from jaxrnn.cli.miscompile_check import miscompile_checks
from jaxrnn.runs import machine, provenance, repository
from jaxrnn.text.characters import escape_unprintable

BAD_VERSIONS = {
    "0.10.2": "gives wrong numbers on the CPU (jax issue 39103)",
    "0.11.1": "makes long loops slow (jax issue 40101)",
}
"""The versions of jax and jaxlib that pyproject.toml excludes."""

_PREFIXES = ("JAX_", "XLA_", "TF_CPP")
_PRINT_SETTINGS = """
import jax, json
print(json.dumps({name: repr(value) for name, value in jax.config.values.items()}))
"""


class Diagnosis(NamedTuple):
    """The doctor's report."""

    text: str  # lines to print
    healthy: bool  # whether JAX passed all checks


def report() -> Diagnosis:
    """Report versions, machine, settings, compilation cache, and checks of this process.

    Only environment variables that configure JAX are shown. It takes a few seconds.
    """
    checks, healthy = _checks()
    sections: dict[str, Iterable[str]] = {
        "Versions": _versions(),
        "Machine": _machine(),
        "Devices": _devices(),
        "JAX settings that are not at their default": _settings(),
        "Environment": _environment(),
        "Compilation cache": _cache(),
        "Checks": checks,
    }
    lines = []
    for title, facts in sections.items():
        lines += [title, *(f"  {escape_unprintable(fact)}" for fact in list(facts) or ["none"])]
    return Diagnosis(_without_home("\n".join(lines)), healthy)


def _checks() -> tuple[list[str], bool]:
    """Return a line for each check, and whether all of them passed."""
    lines, healthy = [], True
    versions = provenance.versions()
    for name in ("jax", "jaxlib"):
        if versions[name] in BAD_VERSIONS:
            bad = BAD_VERSIONS[str(versions[name])]
            lines.append(f"BAD VERSION: {name} {versions[name]} {bad}; install another")
            healthy = False
    try:
        results = miscompile_checks()
    except Exception as error:  # any error is worth reporting
        return [*lines, f"JAX FAILED: {_first_line(error)}"], False
    wrong = [str(result) for result in results if not result.passed]
    lines += wrong or [f"jit and eager agree in {len(results)} computations"]
    return lines, healthy and not wrong


def _versions() -> Iterator[str]:
    yield f"python {platform.python_version()}"
    for name, version in provenance.versions().items():
        yield f"{name} {version or 'is not installed'}"
    root = repository.root_of(Path(jaxrnn.__file__).resolve())
    state = root and repository.state_of(root)
    if state:
        changed = ", with uncommitted changes" if state["dirty"] else ""
        yield f"jaxrnn is a checkout at {state['commit']}{changed}"


def _machine() -> Iterator[str]:
    with contextlib.suppress(OSError, KeyError):  # Linux only
        yield platform.freedesktop_os_release()["PRETTY_NAME"]
    yield platform.platform()
    cpu = machine.cpu()
    yield f"CPU: {cpu['model']}; {cpu['usable']} usable"
    if cpu["vectors"]:
        yield f"vector instructions: {cpu['vectors']}"
    total, available = machine.memory()
    if total:
        yield f"memory: {_size(total)}" + (f", {_size(available)} available" if available else "")


def _devices() -> Iterator[str]:
    try:
        devices = jax.devices()
    except Exception as error:  # RuntimeError; AssertionError of some versions of JAX
        yield f"NO DEVICE: {_first_line(error)}"
        return
    for device in devices:
        stats: Any = device.memory_stats() or {}
        memory = f", {_size(stats['bytes_limit'])} for JAX" if "bytes_limit" in stats else ""
        yield f"{device.id}: {device.device_kind} ({device.platform}){memory}"


def _settings() -> Iterator[str]:
    defaults = _default_settings()
    if defaults is None:
        yield "unknown: a Python process that imports jax failed"
        return
    for name, value in sorted(jax.config.values.items()):
        if repr(value) != defaults.get(name):
            yield f"{name} = {value!r} (default {defaults.get(name)})"


@functools.cache
def _default_settings() -> dict[str, str] | None:
    """Read JAX's defaults in a process without the environment variables that change them."""
    names = set(jax.config.values)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name.lower() not in names and not name.startswith("JAX_")
    }
    printed = machine.output_of(
        *(sys.executable, "-P", "-c", _PRINT_SETTINGS), environment=environment, timeout=60.0
    )
    return None if printed is None else json.loads(printed)


def _environment() -> Iterator[str]:
    for name, value in sorted(os.environ.items()):
        if name.startswith(_PREFIXES) or name in provenance.VARIABLES:
            yield f"{name}={value}"


def _cache() -> Iterator[str]:
    settings: Any = jax.config
    chosen = settings.jax_compilation_cache_dir
    on = "on" if settings.jax_enable_compilation_cache else "off"
    directory = chosen or platformdirs.user_cache_dir("jaxrnn")
    yield f"{on}, {'set to' if chosen else 'in'} {directory}"
    if "://" in directory:  # cloud storage
        return
    folder = Path(directory)
    sizes = [size for entry in folder.rglob("*-cache") if (size := _size_of(entry)) is not None]
    yield f"{len(sizes)} entries, {_size(sum(sizes))}"
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not os.access(nearest, os.W_OK):
        yield f"it cannot be written: {nearest} is read-only"


def _size_of(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:  # another process removed it
        return None


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ").splitlines()[0]


def _without_home(text: str) -> str:
    """Replace the home directory by ~, because it contains the user's name."""
    try:
        home = str(Path.home())
    except RuntimeError:
        return text
    return re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text) if len(home) > 1 else text
