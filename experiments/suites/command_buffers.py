"""The loop over time inside XLA's command buffers, which are CUDA graphs on an NVIDIA GPU.

By default XLA records sequences of kernels in command buffers, but launches a loop's body once for
each step. `+WHILE` adds loops to what it records. The flags are read when a process starts, so
each setting has a process of its own, which also keeps a crash away from the other measurements.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from suites.timing import Row, interleave, rows, run_python

WHILE = (
    "--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL,+DYNAMIC_SLICE_COPY_FUSION"
    " --xla_gpu_graph_min_graph_size=1"
)
SETTINGS = {
    "XLA's default": "",
    "loop in a command buffer": WHILE,
    "the same, unrolled": f"{WHILE} --xla_gpu_command_buffer_unroll_loops=true",
}
"""XLA's flags, for each setting. A loop is recorded only if all of its body can be."""

IMPLEMENTATIONS = ("fused", "scan")
LIMIT = 60.0  # seconds for a process
TOLERANCE = 0.01  # of the last outputs and first input gradients, relative to the largest


def compare(repeats: int, size: tuple[int, int, int]) -> Iterator[list[Row] | str]:
    """Time an LSTM layer in float32 with each setting; the settings do not take turns.

    Args:
      repeats: turns in each process.
      size: B, T, and H = F.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for setting, flags in SETTINGS.items():
            file = folder / f"{len(found)}.npz"
            try:
                run_python(
                    *("-c", "from suites import command_buffers; command_buffers.main()"),
                    *(str(file), str(repeats), *map(str, size)),
                    folder=folder,
                    limit=LIMIT,
                    PYTHONPATH=os.pathsep.join(paths),
                    XLA_FLAGS=f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
                    XLA_PYTHON_CLIENT_PREALLOCATE="false",  # this process has taken most of it
                )
            except (ChildProcessError, subprocess.TimeoutExpired) as error:
                yield f"{setting}: {str(error)[-300:]}"
                continue
            with np.load(file) as results:
                found[setting] = dict(results)
    if not found:
        return
    first = next(iter(found.values()))
    case = "LSTM, float32, " + ", ".join(f"{n}={s}" for n, s in zip("BTH", size, strict=True))
    for program in (name for name in first if not name.startswith("result")):
        seconds = {setting: results[program] for setting, results in found.items()}
        yield rows("gpu", case, program, seconds)
    wrong = [
        f"{setting}, {name}"
        for setting, results in found.items()
        for name in results
        if name.startswith("result") and not _is_close(results[name], first[name])
    ]
    yield f"results other than by default: {', '.join(wrong) or 'none'}"


def _is_close(result: np.ndarray, wanted: np.ndarray) -> bool:
    return bool(np.abs(result - wanted).max() < TOLERANCE * np.abs(wanted).max())


def main() -> None:
    """Measure in this process; the arguments are a file to write, the repeats, and B, T, H."""
    from suites import gpu, layer, peers

    file, *numbers = sys.argv[1:]
    repeats, *size = map(int, numbers)
    found: Any = {}
    for name in IMPLEMENTATIONS:
        made = gpu.make_layer("LSTM", "float32", size[-1], name)
        data = gpu.arrays(made, "float32", (size[0], size[1], size[2]))
        system = peers.compiled(partial(layer.outputs, made), *data)
        calls = {"forward": system.forward, "forward+backward": system.both}
        for measure, call in calls.items():
            taken = interleave({name: call}, repeats, gpu.BURST)
            found[f"{name}, {measure}"] = taken[name]
        # What depends on every step: the last outputs, and the gradients of the first inputs.
        last, first = system.forward()[:, -1], system.both()[1][:, 0]
        found[f"result, outputs of {name}"] = peers.to_numpy(last)
        found[f"result, gradients of {name}"] = peers.to_numpy(first)
    np.savez(file, **found)
