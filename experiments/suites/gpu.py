"""Layers, train steps and many seeds on one GPU, beside PyTorch, which calls cuDNN.

Products of float32 are in TF32, the default of JAX and of PyTorch's layers; the layer with
`implementation="cudnn"` does not round to it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.cells import CELLS
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional
from jaxrnn.runs.tuning import spread_seeds
from suites import command_buffers, lab, language, peers
from suites.layer import errors, outputs, product_flops
from suites.timing import Row, interleave, product, rows

PUBLISHED = (
    "published for an H100, an LSTM in float16, B=16, T=1024, H=768, forward, then forward and"
    " backward: cuDNN 2.0 and 5.2 ms, FlashRNN's fused LSTM 4.9 and 13.6 ms (FlashRNN,"
    " arXiv 2412.07752)"
)

LAYERS = (
    ("LSTM", "float32"),
    ("LSTM", "bfloat16"),
    ("LSTM", "float16"),
    ("bidirectional LSTM", "float32"),
    ("GRU", "float32"),
)

TOLERANCES = {"float32": 0.01, "bfloat16": 0.05, "float16": 0.01}
"""How far two systems' outputs and input gradients may differ, relative to their largest value.

On a CPU, with T=1024 and H=192, it is 0.018 in bfloat16 and 0.002 in float16, which has as many
digits as TF32.
"""

LOSSES = 1e-2
"""How far first losses may differ: TF32 rounds each factor by up to 1/2048."""

BURST = 3


@dataclass(frozen=True)
class Sizes:
    """The sizes of what is measured.

    Attributes:
      layer: B, T, and H = F, of each layer.
      product: rows and columns in the measurement of the matmul rate.
      models: layers, H and B of each language model; T is 50.
      steps: train steps of a language model per call.
      seeds: networks of hihello.
    """

    layer: tuple[int, int, int] = (16, 1024, 768)
    product: int = 8192
    models: tuple[language.Sizes, ...] = ((2, 128, 50), (1, 512, 50), (2, 1024, 50))
    steps: int = 10
    seeds: tuple[int, ...] = (1, 100, 10_000)


FULL = Sizes()


def require_device() -> None:
    """Raise SettingError without a GPU."""
    if (kind := jax.default_backend()) != "gpu":
        raise SettingError(
            f"the suite gpu needs a GPU, but JAX's default device is of the kind {kind}"
        )


def gpu(repeats: int, sizes: Sizes = FULL) -> Iterator[list[Row] | str]:
    """Time all of it; with other sizes than these it also runs on a CPU, without cuDNN."""
    yield f"on {jax.devices()[0].device_kind}, jax {jax.__version__}"
    measured, rate = product("gpu", sizes.product)
    yield measured
    for kind, dtype in LAYERS:
        yield from layer(repeats, kind, dtype, sizes.layer, rate)
    yield PUBLISHED
    yield from language.train(repeats, sizes.steps, sizes.models, LOSSES)
    yield from hihello(repeats, sizes.seeds)
    yield from command_buffers.compare(repeats, sizes.layer)


def layer(
    repeats: int, kind: str, dtype: str, size: tuple[int, int, int], rate: float
) -> Iterator[list[Row] | str]:
    """Time one kind of layer in every implementation, and say how far their results differ.

    Args:
      repeats: turns of each system.
      kind: "LSTM", "GRU" or "bidirectional LSTM".
      dtype: of inputs and parameters.
      size: B, T, and H = F.
      rate: operations per second in a matmul of float32.
    """
    batch, steps, hidden = size
    case = f"{kind}, {dtype}, B={batch}, T={steps}, H={hidden}"
    systems = dict(ready(kind, dtype, size))
    first, *others = errors(systems).items()
    found = [f"{name} {error:.2g}" for name, error in others]
    wrong = [name for name, error in others if not error < TOLERANCES[dtype]]
    yield f"{case}: relative difference from {first[0]}: {', '.join(found)}" + (
        f"; MORE THAN {TOLERANCES[dtype]}: {', '.join(wrong)}" if wrong else ""
    )
    directions = 2 if kind.startswith("bidirectional") else 1
    flops = directions * product_flops(kind.split()[-1].lower(), batch * steps, hidden)
    of = rate if dtype == "float32" else None
    forward = {name: system.forward for name, system in systems.items()}
    both = {name: system.both for name, system in systems.items()}
    yield rows("gpu", case, "forward", interleave(forward, repeats, BURST), flops, of)
    yield rows("gpu", case, "forward+backward", interleave(both, repeats, BURST), 3 * flops, of)
    compiling = {
        name: np.array([[system.compile_s]])
        for name, system in systems.items()
        if system.compile_s is not None
    }
    yield rows("gpu", case, "compiling both, once", compiling)


def ready(kind: str, dtype: str, size: tuple[int, int, int]) -> Iterator[tuple[str, peers.System]]:
    """Yield jaxrnn's implementations and PyTorch with the same weights, inputs and gradient."""
    implementations = ["fused", "scan"]
    if "LSTM" in kind and dtype == "float32" and jax.default_backend() == "gpu":
        implementations.append("cudnn")
    ours = {name: make_layer(kind, dtype, size[-1], name) for name in implementations}
    data = arrays(ours["fused"], dtype, size)
    for name, each in ours.items():
        yield f"jaxrnn, {name}", peers.compiled(partial(outputs, each), *data)
    if peers.PYTORCH not in peers.missing():
        yield peers.PYTORCH, peers.torch(ours["fused"], *data)


def make_layer(kind: str, dtype: str, hidden: int, implementation: Any) -> Any:
    """Make a layer of H hidden units in each direction."""
    cell = partial(CELLS[kind.split()[-1].lower()], hidden, param_dtype=jnp.dtype(dtype))
    one = partial(Recurrent, implementation=implementation)
    if kind.startswith("bidirectional"):
        return Bidirectional(one(cell()), one(cell(), reverse=True))
    return one(cell())


def arrays(layer: Any, dtype: str, size: tuple[int, int, int]) -> tuple[Any, jax.Array, jax.Array]:
    """Return random parameters, inputs [B, T, F] and a gradient of the outputs, [B, T, H or 2H]."""
    keys = jax.random.split(jax.random.key(0), 3)
    inputs = jax.random.normal(keys[0], size).astype(dtype)
    params = layer.init(keys[1], inputs[:, :1])["params"]
    shape = jax.eval_shape(layer.apply, {"params": params}, inputs)[0].shape
    return params, inputs, jax.random.normal(keys[2], shape).astype(dtype)


def hihello(repeats: int, seeds: tuple[int, ...]) -> Iterator[list[Row] | str]:
    """Time the 50 steps of some numbers of networks, each number in one `vmap`."""
    calls = {f"S={n}": lab.compiled(spread_seeds(lab.hihello_config(n), n)) for n in seeds}
    seconds = interleave(calls, repeats)
    yield rows("gpu", "hihello", "50 steps of all", seconds)
    rates = (n / float(np.median(taken)) for n, taken in zip(seeds, seconds.values(), strict=True))
    found = (f"{name}: {rate:,.0f}" for name, rate in zip(seconds, rates, strict=True))
    yield f"seeds per second, median: {'; '.join(found)}"
