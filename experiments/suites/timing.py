"""Timing: several systems side by side, calls or whole processes."""

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

PRODUCT = "matrix product"
"""The measure of the machine's own rate."""


@dataclass(frozen=True)
class Row:
    """One system in one measurement, beside the first system of that measurement.

    Attributes:
      suite: what the measurement belongs to.
      case: the sizes.
      measure: what was timed.
      system: who did it.
      min_s: the least seconds.
      median_s: their median; of both None where memory was measured, not time.
      ratio: what it took as a multiple of what the first system took in the same turn, of which a
        turn's burst gives the median; over the turns, the median. So 2 stands for a system that is
        half as fast as the first. Of the memory likewise.
      ratio_low: the first quartile of that multiple.
      ratio_high: the third quartile.
      of_product: the share that it reaches, at its fastest, of the machine's own rate for a large
        product of matrices; None where the work was not counted.
      bytes: the memory that a compiled program sets aside besides its arguments and results.
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
) -> dict[str, np.ndarray]:
    """Time several systems in turn, A B A B, so that a slow moment of the machine hits all.

    Each is called once uncounted first.

    Args:
      systems: by name, what to call.
      repeats: how many turns each gets.
      burst: how many calls a turn has. More than one for calls of milliseconds, of which the
        first finds the caches, and the second core, still taken up by the system before.
      own_clock: whether a system returns the seconds that count, as only a part of the call does.

    Returns:
      the seconds of each call, [repeats, burst] a system.
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
    """What `interleave` measured, the first system standing as 1.

    Args:
      suite: what the measurement belongs to.
      case: the sizes.
      measure: what was timed.
      seconds: by system, [repeats, burst].
      flops: the floating-point operations of a call, if they were counted.
      rate: the machine's own, in operations a second, as `product` returns it.

    Returns:
      a row a system, in their order.
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
    """As `rows`, of bytes by system in place of seconds: counted once, so without a spread."""
    first = next(iter(taken.values()))
    ratios = {system: each / max(first, 1) for system, each in taken.items()}
    return [
        Row(suite, case, measure, system, None, None, *(ratios[system],) * 3, bytes=each)
        for system, each in taken.items()
    ]


def product(suite: str, size: int = 2048, repeats: int = 5) -> tuple[list[Row], float]:
    """The machine's own rate, by a product of two square float32 matrices.

    Args:
      suite: what is measured against it, in the same run.
      size: rows and columns.
      repeats: counted products.

    Returns:
      the measurement, and operations a second of the fastest.
    """
    matrix, flops = jnp.ones((size, size)), 2.0 * size**3
    multiply = jax.jit(jnp.matmul)
    seconds = interleave({"jax.numpy": lambda: multiply(matrix, matrix)}, repeats)
    rate = flops / float(seconds["jax.numpy"].min())
    return rows(suite, f"{size} x {size}", PRODUCT, seconds, flops, rate), rate


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


def table(measured: Sequence[Row]) -> str:
    """A plain-text table of one measurement, as `rows` or `memory_rows` gives it.

    >>> seconds = {"ours": np.array([[2.0], [1.0]]), "theirs": np.array([[1.0], [1.0]])}
    >>> print(table(rows("calls", "B=1", "all", seconds)))
    calls: B=1, all                                      min      median   x the first (quartiles)
      ours                                            1.00 s      1.50 s   1.00
      theirs                                          1.00 s      1.00 s   0.75 (0.62 to 0.88)
    """
    first, *_ = measured
    title = f"{first.suite}: {first.case}, {first.measure}"
    shares = any(row.of_product is not None for row in measured)
    heads = f"{'min':>12}{'median':>12}" if first.bytes is None else f"{'':>12}{'memory':>12}"
    lines = [f"{title:<44}{heads}   x the first (quartiles)"]
    lines[0] += "  of the product's rate" * shares
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
