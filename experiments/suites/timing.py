"""Timing of calls and whole processes, several systems in turn."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PRODUCT = "matmul"
"""The measure of the machine's matmul rate."""


@dataclass(frozen=True)
class Row:
    """One system in one measurement, relative to the first system of that measurement.

    Attributes:
      suite: the suite.
      case: the sizes.
      measure: what was measured.
      system: the system.
      min_s: the shortest time in seconds.
      median_s: the median time; like `min_s`, None if memory was measured.
      ratio: time relative to the first system in the same turn (the median of a burst), as the
        median over turns: 2 means half as fast as the first. For memory, the ratio of bytes.
      ratio_low: the first quartile of the ratio.
      ratio_high: the third quartile.
      of_product: its highest rate of floating-point operations, as a fraction of the machine's rate
        in a large matmul; None if the operations were not counted.
      bytes: the memory that a compiled program allocates besides its arguments and results.
    """

    suite: str
    case: str
    measure: str
    system: str
    min_s: float | None
    median_s: float | None
    ratio: float
    ratio_low: float
    ratio_high: float
    of_product: float | None = None
    bytes: int | None = None


def timed(function: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """Call a function and wait for its results.

    Returns:
      the results, and the seconds until all of them were ready.
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
) -> dict[str, np.ndarray]:
    """Time several systems in turn, A B A B, so that a slow moment of the machine affects all.

    Each is called once before, which is not counted.

    Args:
      systems: functions to call, by name.
      repeats: turns of each.
      burst: calls per turn. Use more than one for calls of milliseconds: the first one finds the
        processor's caches filled by another system.
      own_clock: whether the systems return the seconds to count.

    Returns:
      the seconds of each call, [repeats, burst] for each system.
    """

    def call(system: Callable[[], Any]) -> float:
        result, seconds = timed(system)
        return result if own_clock else seconds

    for system in systems.values():
        call(system)
    seconds: dict[str, list[list[float]]] = {name: [] for name in systems}
    for _ in range(repeats):
        for name, system in systems.items():
            seconds[name].append([call(system) for _ in range(burst)])
    return {name: np.array(turns) for name, turns in seconds.items()}


def rows(
    suite: str,
    case: str,
    measure: str,
    seconds: Mapping[str, np.ndarray],
    flops: float | None = None,
    rate: float | None = None,
) -> list[Row]:
    """Convert the seconds from `interleave` to rows.

    Args:
      suite: the suite.
      case: the sizes.
      measure: what was timed.
      seconds: by system, [repeats, burst].
      flops: floating-point operations per call; None if not counted.
      rate: the machine's operations per second, from `product`.

    Returns:
      a row for each system, in the same order.
    """
    first = next(iter(seconds.values()))
    made = []
    for system, taken in seconds.items():
        turns = np.median(taken, axis=1) / np.median(first, axis=1)
        share = None if flops is None or rate is None else flops / taken.min() / rate
        quartiles = np.quantile(turns, [0.5, 0.25, 0.75])
        figures = taken.min(), np.median(taken), *quartiles
        made.append(Row(suite, case, measure, system, *map(float, figures), of_product=share))
    return made


def memory_rows(suite: str, case: str, measure: str, taken: Mapping[str, int]) -> list[Row]:
    """Convert bytes by system to rows; they are measured once, so they have no spread."""
    first = next(iter(taken.values()))
    ratios = {system: each / max(first, 1) for system, each in taken.items()}
    return [
        Row(suite, case, measure, system, None, None, *(ratios[system],) * 3, bytes=each)
        for system, each in taken.items()
    ]


def product(suite: str, size: int = 2048, repeats: int = 5) -> tuple[list[Row], float]:
    """Measure the machine's rate in a product of two square float32 matrices.

    Args:
      suite: the suite that the measurement is for.
      size: rows and columns.
      repeats: products that are counted.

    Returns:
      the measurement, and the operations per second of the fastest product.
    """
    matrix, flops = jnp.ones((size, size)), 2.0 * size**3
    multiply = jax.jit(jnp.matmul)
    seconds = interleave({"jax.numpy": lambda: multiply(matrix, matrix)}, repeats)
    rate = flops / float(seconds["jax.numpy"].min())
    return rows(suite, f"{size} x {size}", PRODUCT, seconds, flops, rate), rate


def run_python(
    *arguments: str,
    folder: Path,
    cache: Path | None = None,
    limit: float | None = None,
    **settings: str,
) -> None:
    """Run `python *arguments` in a new process, as a user does.

    Args:
      arguments: the script, or "-c" and its text, and its arguments.
      folder: the working directory.
      cache: the user's cache directory, which holds compiled programs; None for a new one.
      limit: the seconds after which it is killed; None for no limit.
      **settings: more environment variables.

    Raises:
      ChildProcessError: if it fails, with the last line of its standard error.
      subprocess.TimeoutExpired: if it was killed.
    """
    environment = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    environment |= {"XDG_CACHE_HOME": str(cache or tempfile.mkdtemp(dir=folder))} | settings
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, timeout=limit, capture_output=True, text=True
    )
    if done.returncode:
        *_, message = ["no message", *done.stderr.splitlines()]
        raise ChildProcessError(f"python exited with code {done.returncode}: {message}")


def table(measured: Sequence[Row]) -> str:
    """Format one measurement, from `rows` or `memory_rows`, as a plain-text table.

    >>> seconds = {"ours": np.array([[2.0], [1.0]]), "theirs": np.array([[1.0], [1.0]])}
    >>> print(table(rows("calls", "B=1", "all", seconds)))
    calls: B=1, all                                      min      median   relative (quartiles)
      ours                                            1.00 s      1.50 s   1.00
      theirs                                          1.00 s      1.00 s   0.75 (0.62 to 0.88)
    """
    first, *_ = measured
    title = f"{first.suite}: {first.case}, {first.measure}"
    shares = any(row.of_product is not None for row in measured)
    heads = f"{'min':>12}{'median':>12}" if first.bytes is None else f"{'':>12}{'memory':>12}"
    lines = [f"{title:<44}{heads}   relative (quartiles)"]
    lines[0] += "  of matmul rate" * shares
    for row in measured:
        spread = "" if row is first else f" ({row.ratio_low:.2f} to {row.ratio_high:.2f})"
        share = "" if row.of_product is None else f"{row.of_product:>15.0%}"
        line = f"  {row.system:<42}{_figures(row)}   {row.ratio:.2f}{spread if row.min_s else ''}"
        lines.append(f"{line:<94}{share}".rstrip())
    return "\n".join(lines)


def _figures(row: Row) -> str:
    if row.bytes is not None:
        return f"{'':>12}{row.bytes / 2**20:>8.1f} MiB"
    assert row.min_s is not None and row.median_s is not None
    return f"{_amount(row.min_s):>12}{_amount(row.median_s):>12}"


def _amount(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.2f} {unit}"
    return f"{seconds * 1e9:.2f} ns"
