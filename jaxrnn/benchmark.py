"""Timing: compilation apart from running, and several systems side by side."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax


@dataclass(frozen=True)
class Clock:
    """What a compiled program cost: once to compile, and each time to run."""

    compile_seconds: float  # tracing, lowering, and XLA's compilation or its loading from the cache
    run_seconds: float

    def __str__(self) -> str:
        run = self.run_seconds
        took = f"{run * 1e3:.1f} ms" if run < 1 else f"{run:.2f} s"
        return f"{took} after {self.compile_seconds:.2f} s of compiling"


def run_timed(function: Callable[..., Any], *args: Any) -> tuple[Any, Clock]:
    """Compile a pure function, then run it once.

    Returns:
      its results as NumPy arrays, and what they cost.
    """
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    compile_seconds = time.perf_counter() - start
    results, run_seconds = timed(compiled, *args)
    return jax.device_get(results), Clock(compile_seconds, run_seconds)


def timed(function: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """Call a function and wait for its results.

    Returns:
      the results, and the seconds until the last of them was ready.
    """
    start = time.perf_counter()
    results = jax.block_until_ready(function(*args))
    return results, time.perf_counter() - start


def interleave(
    systems: Mapping[str, Callable[[], Any]], repeats: int, burst: int = 1
) -> dict[str, list[float]]:
    """Time several systems in turn, A B A B, so that a slow moment of the machine hits all.

    Each is called once uncounted first.

    Args:
      systems: by name, what to call.
      repeats: how many turns each gets.
      burst: how many calls a turn has. More than one for calls of milliseconds, of which the
        first finds the caches, and the second core, still taken up by the system before.

    Returns:
      the seconds of each call, [repeats * burst] a system.
    """
    for system in systems.values():
        timed(system)
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(repeats):
        for name, system in systems.items():
            seconds[name] += [timed(system)[1] for _ in range(burst)]
    return seconds


def table(title: str, seconds: Mapping[str, list[float]], against: str) -> str:
    """A plain-text table: minimum, median, and the ratio of medians to one of the systems.

    Args:
      title: stands above the names of the systems.
      seconds: by system, as `interleave` returns them.
      against: the system that stands as 1.0x.
    """
    median = {name: statistics.median(values) for name, values in seconds.items()}
    lines = [f"{title:<44}{'min':>12}{'median':>12}{'median, ratio':>16}"]
    for name, values in seconds.items():
        ratio = median[name] / median[against]
        lines.append(
            f"  {name:<42}{min(values) * 1e3:>9.2f} ms{median[name] * 1e3:>9.2f} ms{ratio:>15.3f}x"
        )
    return "\n".join(lines)
