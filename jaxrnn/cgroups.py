"""What Linux lets this process use of the machine: the limits of its container or Slurm job.

Version 2 of control groups: a limit of a group also holds for the groups in it.
https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

import contextlib
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def cpus() -> float | None:
    """Return how many CPUs' time this process may take; None without a limit."""
    found = []
    for folder in _groups():
        with contextlib.suppress(OSError, ValueError):  # ValueError: "max"
            quota, period = map(int, (folder / "cpu.max").read_text().split())
            found.append(quota / period)
    return min(found, default=None)


def free_memory() -> int | None:
    """Return the bytes that this process may still allocate; None without a limit.

    Cached files that nobody has used for a while count as free: Linux drops them first.
    """
    found = []
    for folder in _groups():
        with contextlib.suppress(OSError, ValueError, KeyError):  # ValueError: "max"
            limit, used = (
                int((folder / name).read_text()) for name in ("memory.max", "memory.current")
            )
            lines = (folder / "memory.stat").read_text().splitlines()
            cached = int(dict(line.split() for line in lines)["inactive_file"])
            found.append(max(limit - used + cached, 0))
    return min(found, default=None)


def _groups() -> list[Path]:
    """Return the folders of this process's group and of those around it."""
    with contextlib.suppress(OSError):
        for line in MEMBERSHIP.read_text().splitlines():
            if line.startswith("0::/"):
                names = Path(line.removeprefix("0::/")).parts
                return [MOUNT.joinpath(*names[:n]) for n in range(len(names) + 1)]
    return []
