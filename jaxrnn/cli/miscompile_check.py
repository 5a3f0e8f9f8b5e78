"""A check for compilers that give wrong numbers; jaxlib 0.10.2 on the CPU fails it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class MiscompileCheck(NamedTuple):
    """The results of a function that a compiler is known to have got wrong."""

    expected: np.ndarray  # [32769] float32
    eager: np.ndarray  # the same, operation by operation
    compiled: np.ndarray  # the same, compiled by jit

    @property
    def passed(self) -> bool:
        """Whether all numbers are correct."""
        return all(np.array_equal(self.expected, given) for given in (self.eager, self.compiled))

    def __str__(self) -> str:
        if self.passed:
            return f"jit and eager agree ({self.expected[-1]:.0f})"
        wrong = (self.eager != self.expected) | (self.compiled != self.expected)
        row = int(np.flatnonzero(wrong)[-1])
        return (
            f"WRONG NUMBERS: row {row} is {self.compiled[row]:.10g} under jit and"
            f" {self.eager[row]:.10g} without, but {self.expected[row]:.10g} is correct. Do not"
            " trust this JAX on this device; install another version of jax and jaxlib"
        )


def miscompile_check() -> MiscompileCheck:
    """Compute sums of squares with and without jit (jax issue 39103).

    jaxlib 0.10.2 on the CPU gives 1071645696 for the last of 32769 rows; 1073741824 is correct.
    """
    index = jnp.arange(32769, dtype=jnp.float32)
    rows = jnp.stack((index, jnp.zeros_like(index), jnp.zeros_like(index)), axis=1)
    matrix = jnp.eye(3, dtype=jnp.float32)

    def squares(rows: jax.Array) -> jax.Array:
        def square(row: jax.Array) -> jax.Array:  # full precision is exact
            return jnp.sum(jnp.matmul(matrix, row, precision="highest") ** 2)

        return jax.vmap(square)(rows)

    expected = np.arange(32769, dtype=np.float32) ** 2
    return MiscompileCheck(expected, np.asarray(squares(rows)), np.asarray(jax.jit(squares)(rows)))
