"""Cycle navigation: the place on a circle where a walk ends."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.errors import SettingError
from jaxrnn.tasks.regular.base import RegularTask


@dataclass(frozen=True)
class CycleNavigation(RegularTask):
    """A walk on a circle of 5 places from place 0; the answer is the last place, V=5.

    Symbols 0, 1 and 2, F=3, mean a step back, no step, and a step forward. The memoryless loss is
    slightly below ln 5, because short walks end near the start; chance accuracy is 1/5.

    Source: Delétang et al. (2023), "cycle navigation".

    Attributes:
      num_places: V, at least 2.

    The others are those of `RegularTask`.

    >>> symbols = jnp.array([[2, 0, 1, 0, 0]])  # forward, back, stay, back, back
    >>> CycleNavigation().answers(symbols).tolist()
    [[1, 0, 0, 4, 3]]
    """

    input_size = 3

    num_places: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.num_places, int) or self.num_places < 2:
            raise SettingError("num places must be a whole number from 2")

    @property
    def output_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """V, the places."""
        return self.num_places

    def answers(self, symbols: jax.Array) -> jax.Array:
        """Symbols [B, T] -> the place after each step, [B, T]."""
        return jnp.cumsum(symbols - 1, axis=1, dtype=jnp.int32) % self.num_places

    def shares(self, length: int) -> np.ndarray:
        """The distribution of the place after a random walk, [V]."""
        here = np.eye(self.num_places)
        step = (here + np.roll(here, 1, axis=0) + np.roll(here, -1, axis=0)) / 3
        return np.linalg.matrix_power(step, length)[:, 0]
