"""Facts about the machine: devices, processor, memory."""

import contextlib
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxrnn import cgroups
from jaxrnn.training.mesh import usable_cpus

CPUINFO = Path("/proc/cpuinfo")
_MODEL = ("cpu family", "model", "stepping", "CPU implementer", "CPU variant", "CPU part")
_VECTORS = ("sse4", "avx", "amx", "fma", "f16c", "asimd", "sve", "bf16")


def output_of(
    *command: str, environment: dict[str, str] | None = None, timeout: float = 5.0
) -> bytes | None:
    """Run a command and return what it prints; None if it is missing, fails or takes too long.

    Args:
      command: the program and its arguments.
      environment: its environment variables; this process's own if None.
      timeout: in seconds.
    """
    try:
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def devices() -> dict[str, Any]:
    """Describe JAX's devices, those of all processes, in JSON values.

    Raises:
      RuntimeError: if JAX_PLATFORMS names a kind of device that is not there.
    """
    found = jax.devices()
    return {
        "platform": found[0].platform,
        "kind": ", ".join(sorted({device.device_kind for device in found})),
        "count": len(found),
        "runtime": getattr(found[0].client, "platform_version", None),
    }


def cpu() -> dict[str, Any]:
    """Describe the processor in JSON values: model, vector instructions, number of usable CPUs.

    Cloud machines of several generations can share one model name, so the model includes family,
    model and stepping numbers.
    """
    facts = cpuinfo()
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


def memory() -> Memory:
    """Return the machine's total memory, and what is available of it to this process."""
    import psutil  # not at the top, because most commands do not need it

    found, free = psutil.virtual_memory(), cgroups.free_memory()
    return Memory(found.total, found.available if free is None else min(found.available, free))


def cpuinfo() -> dict[str, str]:
    """Read the first processor's entry in Linux's /proc/cpuinfo; empty on other systems."""
    facts = {}
    with (
        contextlib.suppress(OSError),
        CPUINFO.open(encoding="utf-8", errors="replace") as file,
    ):
        for line in file:
            name, colon, value = line.partition(":")
            if not colon:
                break  # the other processors are the same
            facts[name.strip()] = value.strip()
    return facts
