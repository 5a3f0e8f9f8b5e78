"""Matrix products by shape and transposition: run this for each version of jaxlib.

XLA:CPU hands a product to YNNPACK, unless an operand is transposed or has one row: then Eigen
computes it (`ynn_support.cc`, jaxlib 0.10.1), which may be slower. A weight's gradient, `a.T @ b`,
has a transposed operand, which XLA may copy, as the row with a barrier does in any case. The layers
compute it in the form of the third row.
"""

# pyright: reportMissingImports=false
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from suites import peers
from suites.timing import Row, interleave, product, rows

SIZES = (
    *((4096, 1024, 4096), (4096, 512, 2048), (8192, 256, 1024)),
    *((2500, 128, 512), (800, 32, 128), (1, 256, 1024)),
)
"""Rows (T * B), F and outputs of the two operands, [rows, F] and [rows, outputs]."""


def products(repeats: int, sizes: tuple[tuple[int, int, int], ...] = SIZES) -> Iterator[list[Row]]:
    """Time the gradient of a weight, [rows, F] and [rows, outputs] -> [F, outputs], and forward."""
    measured, rate = product("products")
    yield measured
    for count, features, outputs in sizes:
        keys = jax.random.split(jax.random.key(0))
        a = jax.random.normal(keys[0], (count, features))
        b = jax.random.normal(keys[1], (count, outputs))
        gradient = {
            "a.T @ b": compiled(lambda a, b: a.T @ b, a, b),
            "with a barrier": compiled(lambda a, b: jax.lax.optimization_barrier(a.T) @ b, a, b),
            "summed over T and B": compiled(sum_over_time, *map(split_time, (a, b))),
        }
        weights = gradient["a.T @ b"]()
        forward = {"a @ w": compiled(jnp.matmul, a, weights)}
        if peers.PYTORCH not in peers.missing():
            import torch

            x, y, w = (torch.from_numpy(np.array(each)) for each in (a, b, weights))
            gradient[peers.PYTORCH] = lambda x=x, y=y: x.T @ y
            forward[peers.PYTORCH] = lambda x=x, w=w: x @ w
        flops = 2.0 * count * features * outputs
        burst = max(1, min(100, int(2e9 / flops)))
        case = f"{count} rows, F={features}, {outputs} outputs"
        for measure, calls in (("weight gradient", gradient), ("forward", forward)):
            seconds = interleave(calls, repeats, burst)
            yield rows("products", case, measure, seconds, flops, rate)


def compiled(function: Callable[..., jax.Array], *args: jax.Array) -> Callable[[], Any]:
    """Compile a function for these arguments, and return a call of it."""
    executable = jax.jit(function).lower(*args).compile()
    return lambda: executable(*args)


def split_time(array: jax.Array) -> jax.Array:
    """[rows, F] -> [T, B, F], with as square a T and B as there is."""
    count = array.shape[0]
    steps = next(n for n in range(int(count**0.5), 0, -1) if count % n == 0)
    return array.reshape(steps, -1, array.shape[-1])


def sum_over_time(a: jax.Array, b: jax.Array) -> jax.Array:
    """[T, B, F], [T, B, H] -> [F, H], as the fused layers compute it."""
    return jnp.einsum("tbf,tbh->fh", a, b)
