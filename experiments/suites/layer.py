"""One layer, forward and backward, in jaxrnn and its peers."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

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
    for kind in GATES:
        for batch, steps, hidden in sizes:
            case = f"{kind.upper()}, B={batch}, T={steps}, H={hidden}"
            systems = dict(ready(kind, batch, steps, hidden))
            flops = product_flops(kind, batch * steps, hidden)
            yield from times("layer", case, systems, repeats, flops, rate)
            compiling = {
                name: np.array([[each.compile_s]])
                for name, each in systems.items()
                if each.compile_s is not None
            }
            yield rows("layer", case, "compiling both, once", compiling)


def product_flops(kind: str, tokens: int, hidden: int) -> float:
    """Count the operations of a forward pass's products with inputs and h; F = H."""
    return 2.0 * tokens * (2 * hidden) * GATES[kind] * hidden


def times(
    suite: str,
    case: str,
    systems: dict[str, System],
    repeats: int,
    flops: float,
    rate: float,
) -> Iterator[list[Row]]:
    """Compare the systems' results, then time forward, and forward and backward.

    Args:
      suite: the suite.
      case: the sizes.
      systems: what to time, by name.
      repeats: turns of each system.
      flops: operations of the forward pass; the backward pass has twice as many.
      rate: the machine's operations per second, from `product`.
    """
    compare(case, systems)
    burst = max(1, min(10, int(1e10 / flops)))
    for measure, passes, calls in (
        ("forward", 1, {name: each.forward for name, each in systems.items()}),
        ("forward+backward", 3, {name: each.both for name, each in systems.items()}),
    ):
        seconds = interleave(calls, repeats, max(1, burst // passes))
        yield rows(suite, case, measure, seconds, passes * flops, rate)


def ready(kind: str, batch: int, steps: int, hidden: int) -> Iterator[tuple[str, System]]:
    """Yield jaxrnn's layer, fused and scanned, and its peers, with the same weights and inputs."""
    layer, *data = arrays(kind, batch, steps, hidden)
    yield from ours(layer, *data)
    yield from on_all_devices(layer, *data)
    yield from peers(layer, *data)


def on_all_devices(
    layer: Recurrent, params: Params, inputs: jax.Array, gradient: jax.Array
) -> Iterator[tuple[str, System]]:
    """Yield a layer whose rows are spread over all devices, if there are several, evenly."""
    devices = jax.device_count()
    if devices == 1 or inputs.shape[0] % devices:
        return
    mesh = jax.make_mesh((devices,), ("rows",), (AxisType.Auto,))
    inputs, gradient = jax.device_put((inputs, gradient), NamedSharding(mesh, P("rows")))
    params = jax.device_put(params, NamedSharding(mesh, P()))
    yield f"jaxrnn, {devices} devices", compiled(partial(outputs, layer), params, inputs, gradient)


def arrays(
    kind: str, batch: int, steps: int, hidden: int
) -> tuple[Recurrent, Params, jax.Array, jax.Array]:
    """Return a layer, and its parameters, inputs and gradient of the outputs, [B, T, H] both."""
    keys = jax.random.split(jax.random.key(0), 3)
    inputs, gradient = jax.random.normal(keys[0], (2, batch, steps, hidden))
    layer = Recurrent(CELLS[kind](hidden))
    return layer, layer.init(keys[1], inputs[:, :1])["params"], inputs, gradient


def ours(
    layer: Recurrent,
    params: Params,
    inputs: jax.Array,
    gradient: jax.Array,
    **options: jax.Array,
) -> Iterator[tuple[str, System]]:
    """Yield a layer, fused and scanned; `options` are lengths or resets."""
    scanned = layer.clone(implementation="scan")
    for name, each in (("jaxrnn", layer), ("jaxrnn, nn.scan", scanned)):
        yield name, compiled(partial(outputs, each), params, inputs, gradient, **options)


def outputs(layer: Recurrent, params: Params, inputs: jax.Array, **options: jax.Array) -> jax.Array:
    """[B, T, F] -> [B, T, H]."""
    given: Any = options  # the names are checked by the call
    return layer.apply({"params": params}, inputs, **given)[0]


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
