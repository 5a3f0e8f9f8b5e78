"""Modular arithmetic, without brackets: the value of an expression such as 1+2*3."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.errors import SettingError
from jaxrnn.tasks.regular.base import RegularTask


@dataclass(frozen=True)
class ModularArithmetic(RegularTask):
    """Digits and operators take turns; the answer is the value modulo 5, V=5.

    Symbols, F=8: the digits 0 to 4 are themselves, then come +, - and *. A product is computed
    before sums. All digits and all operators are equally likely. A string starts and ends with a
    digit, so its length is odd: one less than the drawn length if that is even. With `every_step`,
    an operator's answer is the value of what stands before it.

    The memoryless loss is below ln 5, because products with 0 make 0 more likely; chance accuracy
    is 1/5.

    Source: Delétang et al. (2023), "modular arithmetic (simple)".

    Attributes:
      modulus: V, at least 2.

    The others are those of `RegularTask`.

    >>> symbols = jnp.array([[1, 5, 2, 7, 3, 6, 4]])  # 1+2*3-4
    >>> ModularArithmetic().answers(symbols).tolist()
    [[1, 1, 3, 3, 2, 2, 3]]
    """

    modulus: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.modulus, int) or not 2 <= self.modulus <= 1000:
            raise SettingError("modulus must be a whole number from 2 to 1000")

    @property
    def input_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """F, the digits and the operators."""
        return self.modulus + 3

    @property
    def output_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """V, the digits."""
        return self.modulus

    def valid_lengths(self, lengths: Any) -> Any:
        """The largest odd numbers not above the lengths."""
        return lengths - (lengths + 1) % 2

    def symbols(self, key: jax.Array, shape: tuple[int, int]) -> jax.Array:
        """A digit at every even step, counted from 0, and an operator at every odd step."""
        k_digits, k_operators = jax.random.split(key)
        digits = jax.random.randint(k_digits, shape, 0, self.modulus, jnp.int32)
        operators = jax.random.randint(k_operators, shape, 0, 3, jnp.int32)
        return jnp.where(jnp.arange(shape[1])[None] % 2 == 0, digits, self.modulus + operators)

    def answers(self, symbols: jax.Array) -> jax.Array:
        """Symbols [B, T] -> the value up to each step, [B, T].

        The value is `total + term`, where `term` is the last summand, perhaps not yet complete.
        """
        plus, minus, times = range(self.modulus, self.modulus + 3)

        def read(carry: Any, symbol: jax.Array) -> Any:
            total, term, operator = carry  # [B] each
            is_product = operator == times
            finished = jnp.where(is_product, total, (total + term) % self.modulus)
            signed = jnp.where(operator == minus, -symbol, symbol)
            extended = jnp.where(is_product, term * symbol, signed) % self.modulus
            is_digit = symbol < self.modulus
            total = jnp.where(is_digit, finished, total)
            term = jnp.where(is_digit, extended, term)
            operator = jnp.where(is_digit, operator, symbol)
            return (total, term, operator), (total + term) % self.modulus

        zeros = jnp.zeros(len(symbols), jnp.int32)
        _, values = jax.lax.scan(read, (zeros, zeros, zeros + plus), symbols.T)
        return values.T

    def shares(self, length: int) -> np.ndarray:
        """The distribution of the value, [V], from the one of total and term."""
        m, digits = self.modulus, np.arange(self.modulus)
        times = np.zeros((m, m))  # from a term to its product with a random digit
        np.add.at(times, (digits[:, None], np.outer(digits, digits) % m), 1 / m)
        joint = np.zeros((m, m))  # of total and term
        joint[0] = 1 / m

        def values() -> np.ndarray:  # of total + term, [V]
            return joint[digits[:, None], digits - digits[:, None]].sum(axis=0)

        for _ in range((length - 1) // 2):  # times, plus or minus, then a digit
            joint = (joint @ times + 2 / m * values()[:, None]) / 3
        return values()
