"""What the machine is: devices, processor, memory."""

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

_MODEL = ("cpu family", "model", "stepping", "CPU implementer", "CPU variant", "CPU part")
_VECTORS = ("sse4", "avx", "amx", "fma", "f16c", "asimd", "sve", "bf16")


def output_of(
    *command: str, environment: dict[str, str] | None = None, patience: float = 5.0
) -> bytes | None:
    """What a command prints; None if it is not there, fails or takes too long.

    Args:
      command: the program and its arguments.
      environment: the variables it gets; this process's own if None.
      patience: how many seconds it may take.
    """
    try:
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=patience,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def devices() -> dict[str, Any]:
    """The devices that JAX computes on, of all processes, as JSON values.

    Raises:
      RuntimeError: if JAX has none of the kind that it was told to use.
    """
    found = jax.devices()
    return {
        "platform": found[0].platform,
        "kind": ", ".join(sorted({device.device_kind for device in found})),
        "count": len(found),
        "runtime": getattr(found[0].client, "platform_version", None),
    }


def cpu() -> dict[str, Any]:
    """The processor, as JSON values: its model, its vector instructions, how many may be used.

    Cloud machines of several generations can share one model name, so what tells them apart is in
    the model, too.
    """
    facts = _first_processor()
    model = [facts["model name"]] if "model name" in facts else []
    model += [f"{name} {facts[name]}" for name in _MODEL if name in facts]
    if not model and sys.platform == "darwin":
        brand = output_of("sysctl", "-n", "machdep.cpu.brand_string") or b""
        model = [brand.decode("utf-8", "replace").strip()]
    flags = facts.get("flags", facts.get("Features", "")).split()
    return {
        "model": ", ".join(model) or platform.processor() or platform.machine() or None,
        "vectors": " ".join(sorted(flag for flag in flags if flag.startswith(_VECTORS))) or None,
        "usable": usable_cpus(),
    }


class Memory(NamedTuple):
    """In bytes."""

    total: int
    available: int  # without swapping


def usable_cpus() -> int | None:
    """How many CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def memory() -> Memory:
    """The machine's memory."""
    import psutil  # not at the top: most starts do without

    found = psutil.virtual_memory()
    return Memory(found.total, found.available)


def _first_processor() -> dict[str, str]:
    """What Linux says of the first processor, by name; nothing elsewhere."""
    facts = {}
    for line in _lines("/proc/cpuinfo"):
        name, colon, value = line.partition(":")
        if not colon:
            break  # the next processor is the same
        facts[name.strip()] = value.strip()
    return facts


def _lines(path: str) -> Iterator[str]:
    """The lines of a file as they are asked for, none if it cannot be read."""
    with contextlib.suppress(OSError), Path(path).open(encoding="utf-8", errors="replace") as file:
        yield from file
