"""Even pairs: whether the number of 01 and 10 in a string is odd."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.tasks.regular.base import RegularTask


@dataclass(frozen=True)
class EvenPairs(RegularTask):
    """Symbols 0 and 1, F=2; the answer is how many pairs 01 or 10 there are, modulo 2, V=2.

    This is whether the last symbol differs from the first, since each such pair is a change. The
    memoryless loss is slightly below ln 2, because a single symbol has no pair; chance accuracy is
    1/2.

    Source: Delétang et al. (2023), "even pairs". Settings: see `RegularTask`.

    >>> symbols = jnp.array([[0, 0, 1, 1, 0]])
    >>> EvenPairs().answers(symbols).tolist()
    [[0, 0, 1, 1, 0]]
    """

    input_size = 2
    output_size = 2

    def answers(self, symbols: jax.Array) -> jax.Array:
        """Symbols [B, T] -> for each prefix, whether its ends differ, [B, T]."""
        return (symbols != symbols[:, :1]).astype(jnp.int32)

    def shares(self, length: int) -> np.ndarray:
        """Equal, but for a single symbol, [V]."""
        return np.array([1.0, 0.0] if length == 1 else [0.5, 0.5])
