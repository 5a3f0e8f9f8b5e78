"""A check for compilers that give wrong numbers; jaxlib 0.10.2 on the CPU fails it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

ROWS = 32769
"""One more than a power of two: the last row is a remainder in every blocked loop."""


class MiscompileCheck(NamedTuple):
    """The results of a function that a compiler has got wrong, or could get wrong alike."""

    name: str
    expected: np.ndarray
    eager: np.ndarray  # the same, operation by operation
    compiled: np.ndarray  # the same, compiled by jit

    @property
    def passed(self) -> bool:
        """Whether all numbers are correct."""
        return all(np.array_equal(self.expected, given) for given in (self.eager, self.compiled))

    def __str__(self) -> str:
        if self.passed:
            return f"{self.name}: jit and eager are correct"
        expected, eager, compiled = (
            each.ravel() for each in (self.expected, self.eager, self.compiled)
        )
        n = int(np.flatnonzero((eager != expected) | (compiled != expected))[-1])
        return (
            f"WRONG NUMBERS: {self.name}: number {n} is {compiled[n]:.10g} under jit and"
            f" {eager[n]:.10g} without, but {expected[n]:.10g} is correct. Do not"
            " trust this JAX on this device; install another version of jax and jaxlib"
        )


def miscompile_checks() -> list[MiscompileCheck]:
    """Compute whole numbers, which have no rounding, in NumPy, and with and without jit.

    The first two are jax issues 39103 (jaxlib 0.10.2 on the CPU gives 1071645696 for the last sum,
    and 1073741824 is correct) and 39336 (a GPU scales the product but not the bias).
    """
    index = np.arange(ROWS, dtype=np.float32)
    small = np.stack([(index * step) % 13 - 6 for step in (1, 5, 7)], axis=1)  # [rows, 3]
    return [
        _check("sums of squares of products", _sums_of_squares, index, index**2),
        _check("scaled products with a bias", _scaled, small, 2 * (small @ _MATRIX + _BIAS)),
        _check(
            "reductions over rows",
            lambda rows: jnp.stack(
                [
                    (rows * rows).sum(1),
                    (rows - 1).max(1),
                    (rows + 1).min(1),
                    jnp.argmax(rows * 2, 1).astype(rows.dtype),
                    jnp.abs(rows).prod(1),
                ]
            ),
            small,
            np.stack(
                [
                    (small * small).sum(1),
                    (small - 1).max(1),
                    (small + 1).min(1),
                    np.argmax(small * 2, 1),
                    np.abs(small).prod(1),
                ]
            ),
        ),
        _check(
            "reductions over columns",
            lambda rows: jnp.stack([(rows * rows).sum(0), (rows - 1).max(0), (rows + 1).min(0)]),
            small,
            np.stack([(small * small).sum(0), (small - 1).max(0), (small + 1).min(0)]),
        ),
        _check("gradients of weights", _gradient, small, small.T @ (2 * (small @ _MATRIX))),
        _check(
            "stacked outputs of a scan", _running_sums, small[:99], np.cumsum(small[:99], axis=0)
        ),
    ]


_MATRIX = np.array([[1, 2, 0], [0, -1, 3], [2, 1, 1]], np.float32)
_BIAS = np.array([1, -2, 3], np.float32)


def _check(
    name: str, function: Callable[[jax.Array], jax.Array], rows: np.ndarray, expected: np.ndarray
) -> MiscompileCheck:
    with jax.default_matmul_precision("highest"):  # exact
        eager, compiled = (
            np.asarray(run(jnp.asarray(rows))) for run in (function, jax.jit(function))
        )
    return MiscompileCheck(name, expected.astype(np.float32), eager, compiled)


def _sums_of_squares(index: jax.Array) -> jax.Array:
    rows = jnp.stack((index, jnp.zeros_like(index), jnp.zeros_like(index)), axis=1)
    matrix = jnp.eye(3, dtype=index.dtype)
    return jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2))(rows)


def _scaled(rows: jax.Array) -> jax.Array:
    return 2 * (rows @ jnp.asarray(_MATRIX) + jnp.asarray(_BIAS)[None])


def _gradient(rows: jax.Array) -> jax.Array:
    return jax.grad(lambda matrix: jnp.sum((rows @ matrix) ** 2))(jnp.asarray(_MATRIX))


def _running_sums(rows: jax.Array) -> jax.Array:
    def step(total: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        return total + row, total + row

    return jax.lax.scan(step, jnp.zeros_like(rows[0]), rows)[1]
