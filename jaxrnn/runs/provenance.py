"""Provenance: the code, versions, settings and machine behind a run, which can change its bits.

A new run records it in manifest.json. `resume` and `verify` compare it with the current process.
"""

import datetime
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import jax

import jaxrnn
from jaxrnn import rng
from jaxrnn.runs import machine, repository
from jaxrnn.runs.files import sha256_of
from jaxrnn.text.characters import escape_unprintable

PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "chex", "numpy", "orbax-checkpoint"),
    *("jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu"),
)
VARIABLES = (
    *("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE"),
    *("NPROC", "PJRT_NPROC"),  # override the number of XLA's threads
)
SETTINGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_random_seed_offset",
    "jax_high_dynamic_range_gumbel",
    "jax_numpy_dtype_promotion",
    "jax_softmax_custom_jvp",
    "jax_use_direct_linearize",
    "jax_default_device",
    "jax_disable_jit",
    "jax_disable_most_optimizations",
    "jax_optimization_level",
)
"""JAX's settings that change what is computed, or in which order."""

_COMPARED = ("code", "versions", "variables", "settings", "devices", "cpu", "system")
_HARMLESS = {("versions", "chex"), ("versions", "orbax-checkpoint"), ("system", "name")}
_NAMES = {
    ("code", "script"): "the script's repository",
    ("code", "script_sha256"): "the script's SHA-256",
    ("code", "jaxrnn"): "jaxrnn's repository",
    ("settings", "prng"): "the random number generator",
    ("devices", "platform"): "the platform",
    ("devices", "kind"): "the kind of device",
    ("devices", "count"): "the number of devices",
    ("devices", "runtime"): "the devices' runtime",
    ("cpu", "model"): "the CPU",
    ("cpu", "vectors"): "the CPU's set of vector instructions",
    ("cpu", "usable"): "the number of usable CPUs",
    ("system", "libc"): "the C library",
}
_NOTHING = {"versions": "not installed", "variables": "not set", "settings": "not set"}
_MISSING = object()


def collect(script: Path | None = None) -> dict[str, Any]:
    """Collect the provenance of this process as JSON values; unknown facts are None.

    Args:
      script: the script that defines the experiment; None if there is none.

    Raises:
      RuntimeError: if JAX_PLATFORMS names a kind of device that is not there.
    """
    return {
        "command": [sys.executable, *sys.argv],
        "python": platform.python_version(),
        "code": code(script),
        "versions": versions(),
        "variables": {name: os.environ.get(name) for name in VARIABLES},
        "settings": settings(),
        "devices": machine.devices(),
        "cpu": machine.cpu(),
        "system": {
            "name": platform.platform(),
            "libc": " ".join(filter(None, platform.libc_ver())) or None,
        },
    }


def differences(then: Any, now: dict[str, Any]) -> list[str]:
    """List the differences that can change a run's bits, one short phrase each.

    Without any, a run gives the same bits in both environments. Python, chex and Orbax may differ,
    because none of them computes. The number of usable CPUs may not: XLA splits work by it.

    Args:
      then: what an earlier process collected. Missing or malformed facts count as different.
      now: from `collect`.

    >>> then = {"versions": {"jax": "0.10.1", "jaxlib": "0.10.1", "chex": "0.1.91"}}
    >>> now = {"versions": {"jax": "0.10.1", "jaxlib": "0.12.0", "chex": "0.1.92"}}
    >>> differences(then, now)
    ['jaxlib was 0.10.1, is 0.12.0']
    """
    old, new = _facts(then), _facts(now)
    phrases = []
    for fact in dict.fromkeys((*new, *old)):
        before, after = old.get(fact, _MISSING), new.get(fact, _MISSING)
        if before != after and fact not in _HARMLESS:
            name = _NAMES.get(fact, escape_unprintable(fact[1]))
            phrases.append(f"{name} was {_format(fact, before)}, is {_format(fact, after)}")
    return phrases


def code(script: Path | None) -> dict[str, Any]:
    """Identify the code that runs, as JSON values.

    Returns:
      "script_sha256": the checksum of the script, which git may not track;
      "script", "jaxrnn": the states of their git repositories (see `repository.state_of`); None
      outside a repository.
    """
    files = {"script": script, "jaxrnn": Path(jaxrnn.__file__)}
    roots = {name: file and repository.root_of(file.resolve()) for name, file in files.items()}
    states = {root: root and repository.state_of(root) for root in set(roots.values())}
    try:
        checksum = script and sha256_of(script)
    except OSError:
        checksum = None
    return {"script_sha256": checksum} | {name: states[root] for name, root in roots.items()}


def versions() -> dict[str, str | None]:
    """Return the versions of jaxrnn and `PACKAGES`; None for a package that is not installed."""
    found: dict[str, str | None] = {"jaxrnn": jaxrnn.__version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def settings() -> dict[str, Any]:
    """Return JAX's `SETTINGS` as JSON values, and "prng", the random number generator of runs.

    A setting that this version of JAX lacks is None.
    """
    values = {name: jax.config.values.get(name) for name in SETTINGS}
    generator = []  # read while tracing, which compiles nothing
    jax.eval_shape(lambda: generator.append(str(jax.random.key_impl(rng.root_key(0)))))
    partitionable = "partitionable" if values["jax_threefry_partitionable"] else "not partitionable"
    plain = (bool, int, float, type(None))
    return {
        name: value if isinstance(value, plain) else str(value) for name, value in values.items()
    } | {"prng": f"{generator[0]}, {partitionable}"}


def utc_now() -> str:
    """Return the time in UTC to the millisecond, such as 2026-01-31T12:34:56.789Z."""
    now = datetime.datetime.now(datetime.UTC)
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _facts(collected: Any) -> dict[tuple[str, str], Any]:
    """Select the facts to compare, by section and name."""
    sections = collected if isinstance(collected, dict) else {}
    return {
        (section, name): value
        for section in _COMPARED
        if isinstance(sections.get(section), dict)
        for name, value in sections[section].items()
    }


def _format(fact: tuple[str, str], value: Any) -> str:
    if value is _MISSING:
        return "not recorded"
    if value is None:
        return _NOTHING.get(fact[0], "unknown")
    if isinstance(value, dict) and {"commit", "dirty", "changes"} <= set(value):
        commit, changes = (str(value[name])[:12] for name in ("commit", "changes"))
        value = f"at {commit}" + (f" with uncommitted changes {changes}" if value["dirty"] else "")
    return escape_unprintable(str(value)) or "empty"
