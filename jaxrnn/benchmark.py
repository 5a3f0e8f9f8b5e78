"""Timing: several systems side by side, calls or whole processes."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax


def timed(function: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """Call a function and wait for its results.

    Returns:
      the results, and the seconds until the last of them was ready.
    """
    start = time.perf_counter()
    results = jax.block_until_ready(function(*args))
    return results, time.perf_counter() - start


def interleave(
    systems: Mapping[str, Callable[[], Any]],
    repeats: int,
    burst: int = 1,
    *,
    own_clock: bool = False,
) -> dict[str, list[float]]:
    """Time several systems in turn, A B A B, so that a slow moment of the machine hits all.

    Each is called once uncounted first.

    Args:
      systems: by name, what to call.
      repeats: how many turns each gets.
      burst: how many calls a turn has. More than one for calls of milliseconds, of which the
        first finds the caches, and the second core, still taken up by the system before.
      own_clock: whether a system returns the seconds that count, as only a part of the call does.

    Returns:
      the seconds of each call, [repeats * burst] a system.
    """

    def call(system: Callable[[], Any]) -> float:
        result, seconds = timed(system)
        return result if own_clock else seconds

    for system in systems.values():
        call(system)
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(repeats):
        for name, system in systems.items():
            seconds[name] += [call(system) for _ in range(burst)]
    return seconds


def run_python(*arguments: str, folder: Path, cache: Path | None = None) -> None:
    """Run a Python process of its own, as a user does: `python *arguments`.

    Args:
      arguments: the script, or "-c" and its text, and what it is given.
      folder: the working directory.
      cache: the user's cache directory, where compiled programs are kept; a new one if None.

    Raises:
      ChildProcessError: if it fails, with the last line that it said.
    """
    environment = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    environment["XDG_CACHE_HOME"] = str(cache or tempfile.mkdtemp(dir=folder))
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        *_, said = ["nothing was said", *done.stderr.splitlines()]
        raise ChildProcessError(f"python ended with code {done.returncode}: {said}")


def table(title: str, seconds: Mapping[str, list[float]], against: str) -> str:
    """A plain-text table: minimum, median, and the ratio of medians to one of the systems.

    Args:
      title: stands above the names of the systems.
      seconds: by system, as `interleave` returns them.
      against: the system that stands as 1.0x.

    >>> print(table("a call", {"ours": [0.002, 0.001], "theirs": [3.0, 3.0]}, against="theirs"))
    a call                                               min      median   median, ratio
      ours                                           1.00 ms     1.50 ms          0.001x
      theirs                                          3.00 s      3.00 s          1.000x
    """
    median = {name: statistics.median(values) for name, values in seconds.items()}
    lines = [f"{title:<44}{'min':>12}{'median':>12}{'median, ratio':>16}"]
    for name, values in seconds.items():
        figures = f"{_amount(min(values)):>12}{_amount(median[name]):>12}"
        lines.append(f"  {name:<42}{figures}{median[name] / median[against]:>15.3f}x")
    return "\n".join(lines)


def _amount(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"
