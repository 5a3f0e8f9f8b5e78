"""The axis letters, and the types that every other module shares.

Shapes in comments and docstrings are written with these letters:

    B  batch rows          V  vocabulary (classes of the readout)
    T  time steps          N  training steps (optimizer updates)
    F  input features      S  seeds (independent runs)
    H  hidden units
"""

from typing import Any, NamedTuple

import jax

Arrays = Any
"""A pytree of the arrays that a task samples its batches from; None if it generates them."""

Params = Any
"""A nested dictionary of parameter arrays, as returned by Flax's `init`."""

Carry = Any
"""A recurrent layer's state: a pytree of [B, H] arrays whose structure depends on the cell."""

Metrics = dict[str, jax.Array]
"""The metrics of one step, by name."""


class Batch(NamedTuple):
    """The input of one training step.

    >>> import jax.numpy as jnp
    >>> batch = Batch(jnp.ones((2, 3, 1)), jnp.zeros((2, 3), int), jnp.ones((2, 3)))
    >>> batch.inputs.shape, batch.masks()
    ((2, 3, 1), {'lengths': None})
    """

    inputs: jax.Array  # [B, T, F] float; or [B, T] int, for a model that embeds them
    targets: jax.Array  # [B, T] int to classify, float to regress; [B, T, V] float for V of 0 or 1
    weights: jax.Array  # [B, T] float: the weight of each step in the loss, 0 for padding
    lengths: jax.Array | None = None  # [B] int: the number of steps of each row before padding
    resets: jax.Array | None = None  # [B, T] bool: True where a new sequence starts in the row

    def masks(self) -> dict[str, Any]:
        """The batch's `lengths` and `resets` as keyword arguments of a model's call.

        `resets` is left out if it is None, so a model without that argument can be trained.
        """
        given = {"lengths": self.lengths}
        return given if self.resets is None else given | {"resets": self.resets}
