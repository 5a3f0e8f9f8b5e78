"""The word problem of permutations: the product of all that were read."""

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.errors import SettingError
from jaxrnn.tasks.regular.base import RegularTask


@dataclass(frozen=True)
class Permutations(RegularTask):
    """Symbols are the 120 permutations of 5 things, F = V = 120; the answer is their product.

    Symbol n is the n-th permutation in lexicographic order. They are applied in the order in which
    they are read, starting from the identity. An answer is due at every step, unless `every_step`
    is False. All permutations are equally likely, so all products are: the memoryless loss is
    ln 120 and chance accuracy 1/120.

    This problem of the group S5 is complete for the complexity class NC1. So transformers and
    linear recurrences with diagonal transitions cannot solve it for all lengths with a fixed number
    of layers, unless the classes NC1 and TC0 are the same.

    Source: Merrill, Petty and Sabharwal (2024). The default lengths, 3 to 40 and 41 to 256, are
    those of other state-tracking tasks in Grazzi et al. (2025).

    Attributes:
      num_elements: how many things are permuted, from 2 to 6.

    The others are those of `RegularTask`.

    >>> task = Permutations(num_elements=3)
    >>> [list(p) for p in itertools.permutations(range(3))]
    [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
    >>> task.answers(jnp.array([[3, 3, 2]])).tolist()  # twice a cycle, then a swap
    [[3, 4, 5]]
    """

    min_length: int = 3
    test_max_length: int = 256
    every_step: bool = True
    num_elements: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.num_elements, int) or not 2 <= self.num_elements <= 6:
            raise SettingError("num elements must be a whole number from 2 to 6")

    @property
    def input_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """F, the permutations."""
        return math.factorial(self.num_elements)

    @property
    def output_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """V, the permutations."""
        return math.factorial(self.num_elements)

    @cached_property
    def table(self) -> np.ndarray:
        """The multiplication table, [V, V] int32: [p, q] is the number of "first p, then q"."""
        all_of_them = list(itertools.permutations(range(self.num_elements)))
        number = {permutation: n for n, permutation in enumerate(all_of_them)}
        rows = [[number[tuple(q[i] for i in p)] for q in all_of_them] for p in all_of_them]
        return np.array(rows, np.int32)

    def answers(self, symbols: jax.Array) -> jax.Array:
        """Symbols [B, T] -> the product up to each step, [B, T]."""
        table = jnp.asarray(self.table)

        def read(product: jax.Array, symbol: jax.Array) -> tuple[jax.Array, jax.Array]:
            product = table[product, symbol]
            return product, product

        identity = jnp.zeros(len(symbols), jnp.int32)
        return jax.lax.scan(read, identity, symbols.T)[1].T
