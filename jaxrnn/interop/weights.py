"""Reading another system's dictionary of arrays: every array once, with its shape checked."""

from collections.abc import Mapping

import numpy as np

from jaxrnn.interop.structure import Weights


class WeightReader:
    """Takes arrays out of a dictionary by name, and can tell which were never taken."""

    def __init__(self, weights: Weights) -> None:
        """Check that `weights` is a dictionary; raises ValueError if not."""
        if not isinstance(weights, Mapping):
            name = type(weights).__name__
            raise ValueError(f"weights must be a dictionary of arrays by name, not a {name}")
        self._left = dict(weights)

    def __contains__(self, name: str) -> bool:
        """Whether there is an array of this name that was not taken yet."""
        return name in self._left

    def take(self, name: str, axes: str, shape: tuple[int | None, ...]) -> np.ndarray:
        """Take an array.

        Args:
          name: its name.
          axes: the names of its axes, for the message, such as "4H, F".
          shape: their sizes; None if an axis may have any size.

        Raises:
          ValueError: if the array is missing or has another shape.
        """
        if name not in self._left:
            left = ", ".join(map(str, self._left)) or "none"
            raise ValueError(f"weights must have {name}; those left are: {left}")
        array = np.asarray(self._left.pop(name))
        fits = len(shape) == array.ndim and all(
            want in (None, size) for want, size in zip(shape, array.shape, strict=False)
        )
        if not fits:
            sizes = ", ".join("any" if size is None else str(size) for size in shape)
            raise ValueError(f"{name} must be [{axes}], that is [{sizes}], not {list(array.shape)}")
        return array

    def take_or_zeros(self, name: str, axes: str, shape: tuple[int, ...]) -> np.ndarray:
        """Like `take`, but zeros if the array is missing, as optional biases may be."""
        return self.take(name, axes, shape) if name in self else np.zeros(shape)

    def finish(self) -> None:
        """Check that every array was taken; raises ValueError if the layer has no place for one."""
        if self._left:
            raise ValueError(f"the layer has no place for {', '.join(map(str, self._left))}")
