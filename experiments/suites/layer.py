"""One layer, forward and backward, beside the same layer in other systems."""

from collections.abc import Iterator
from functools import partial

import jax
import numpy as np

from jaxrnn.cells import CELLS
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.types import Params
from suites.peers import System, compiled, peers
from suites.timing import Row, interleave, product, rows

SIZES = (
    *((1, 6, 5), (32, 64, 64), (64, 64, 128), (64, 128, 256)),
    *((64, 64, 512), (128, 32, 1024), (1, 1024, 256), (16, 512, 128)),
)
"""B, T, and H, which F is, too."""

SAME = 1e-4
"""How far outputs, and gradients of the inputs, may lie apart: a share of their largest."""

GATES = {"lstm": 4, "gru": 3}


def layer(repeats: int, sizes: tuple[tuple[int, int, int], ...] = SIZES) -> Iterator[list[Row]]:
    """Forward alone, forward and backward, and the seconds that compiling took."""
    measured, rate = product("layer")
    yield measured
    for kind, gates in GATES.items():
        for batch, steps, hidden in sizes:
            case = f"{kind.upper()}, B={batch}, T={steps}, H={hidden}"
            systems = dict(ready(kind, batch, steps, hidden))
            compare(case, systems)
            # The products with the inputs and with h; backward has twice as many.
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
    """The layer as it comes, step by step, and its peers: same weights, inputs and gradient."""
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
    """Refuse to time systems that do not compute the same."""
    first = None
    for name, system in systems.items():
        found = [np.asarray(system.forward()), np.asarray(system.both()[1])]
        first = found if first is None else first
        for ours, theirs in zip(first, found, strict=True):
            apart = np.abs(ours - theirs).max() / np.abs(ours).max()
            if not apart < SAME:
                raise AssertionError(f"{case}: {name} lies {apart:.2g} from {next(iter(systems))}")
