"""Parity check: whether the number of ones is odd."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxrnn.tasks.regular.base import RegularTask


@dataclass(frozen=True)
class Parity(RegularTask):
    """Symbols 0 and 1, F=2; the answer is the number of ones modulo 2, V=2.

    The memoryless loss is ln 2 and chance accuracy 1/2: each symbol flips the answer or not, with
    equal probability.

    Source: Delétang et al. (2023), "parity check". Settings: see `RegularTask`.

    >>> symbols = jnp.array([[1, 0, 1, 1]])
    >>> Parity().answers(symbols).tolist()
    [[1, 1, 0, 1]]
    """

    input_size = 2
    output_size = 2

    def answers(self, symbols: jax.Array) -> jax.Array:
        """Symbols [B, T] -> the parity of each prefix, [B, T]."""
        return jnp.cumsum(symbols, axis=1, dtype=jnp.int32) % 2
