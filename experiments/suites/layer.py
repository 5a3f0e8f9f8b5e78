"""One layer, forward and backward, in jaxrnn and its peers."""

from collections.abc import Iterator
from functools import partial

import jax
import numpy as np

from jaxrnn.cells import CELLS
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.types import Params
from suites.peers import System, compiled, peers, to_numpy
from suites.timing import Row, interleave, product, rows

SIZES = (
    *((1, 6, 5), (32, 64, 64), (64, 64, 128), (64, 128, 256)),
    *((64, 64, 512), (128, 32, 1024), (1, 1024, 256), (16, 512, 128)),
)
"""B, T, and H = F."""

TOLERANCE = 1e-4
"""Tolerance of outputs and input gradients, relative to their largest value."""

GATES = {"lstm": 4, "gru": 3}


def layer(repeats: int, sizes: tuple[tuple[int, int, int], ...] = SIZES) -> Iterator[list[Row]]:
    """Time forward, forward and backward, and compiling."""
    measured, rate = product("layer")
    yield measured
    for kind, gates in GATES.items():
        for batch, steps, hidden in sizes:
            case = f"{kind.upper()}, B={batch}, T={steps}, H={hidden}"
            systems = dict(ready(kind, batch, steps, hidden))
            compare(case, systems)
            # Products with the inputs and with h; the backward pass has twice as many.
            flops = 2.0 * batch * steps * (2 * hidden) * gates * hidden
            burst = max(1, min(10, int(1e10 / flops)))
            for measure, times, calls in (
                ("forward", 1, {name: each.forward for name, each in systems.items()}),
                ("forward+backward", 3, {name: each.both for name, each in systems.items()}),
            ):
                seconds = interleave(calls, repeats, max(1, burst // times))
                yield rows("layer", case, measure, seconds, times * flops, rate)
            compiling = {
                name: np.array([[each.compile_s]])
                for name, each in systems.items()
                if each.compile_s is not None
            }
            yield rows("layer", case, "compiling both, once", compiling)


def ready(kind: str, batch: int, steps: int, hidden: int) -> Iterator[tuple[str, System]]:
    """Yield jaxrnn's layer, fused and scanned, and its peers, with the same weights and inputs."""
    keys = jax.random.split(jax.random.key(0), 3)
    inputs, gradient = jax.random.normal(keys[0], (2, batch, steps, hidden))
    ours = {
        "jaxrnn": Recurrent(CELLS[kind](hidden)),
        "jaxrnn, nn.scan": Recurrent(CELLS[kind](hidden), implementation="scan"),
    }
    params = ours["jaxrnn"].init(keys[1], inputs[:, :1])["params"]
    for name, each in ours.items():
        yield name, compiled(partial(outputs, each), params, inputs, gradient)
    yield from peers(ours["jaxrnn"], params, inputs, gradient)


def outputs(layer: Recurrent, params: Params, inputs: jax.Array) -> jax.Array:
    """[B, T, F] -> [B, T, H]."""
    return layer.apply({"params": params}, inputs)[0]


def compare(case: str, systems: dict[str, System]) -> None:
    """Raise AssertionError if the systems compute different numbers."""
    for name, error in errors(systems).items():
        if not error < TOLERANCE:
            raise AssertionError(
                f"{case}: {name} differs from {next(iter(systems))} by {error:.2g}"
            )


def errors(systems: dict[str, System]) -> dict[str, float]:
    """Return how far each system's outputs and input gradients are from the first system's.

    It is the greatest difference, relative to the largest value.
    """
    results = {
        name: [to_numpy(system.forward()), to_numpy(system.both()[1])]
        for name, system in systems.items()
    }
    first = next(iter(results.values()))
    return {
        name: max(
            float(np.abs(right - other).max() / np.abs(right).max())
            for right, other in zip(first, found, strict=True)
        )
        for name, found in results.items()
    }
