"""The axis glossary, and the types that every other module shares.

Shapes in comments and docstrings are written with these letters:

    B  batch rows          V  vocabulary (classes of the readout)
    T  time steps          N  training steps (optimiser updates)
    F  input features      S  seeds (independent runs)
    H  hidden units
"""

from typing import Any, NamedTuple

import jax

Arrays = Any
"""The arrays that a task reads its batches from, in a tree; None where it draws them."""

Params = Any
"""A nested dictionary of parameter arrays, as Flax's `init` makes it."""

Carry = Any
"""What a recurrent layer remembers: [B, H] arrays, in a tree that is the cell's, or the layer's."""

Metrics = dict[str, jax.Array]
"""What one step measures, by name."""


class Batch(NamedTuple):
    """What a task hands to one training step."""

    inputs: jax.Array  # [B, T, F] float; or [B, T] int, for a model that embeds them
    targets: jax.Array  # [B, T] int: the class to say at each step; or float: the number
    weights: jax.Array  # [B, T] float: how much each step counts in the loss, 0 for padding
    lengths: jax.Array | None = None  # [B] int: the steps of each row that are no padding
    resets: jax.Array | None = None  # [B, T] bool: where another sequence starts, its carry fresh

    def masks(self) -> dict[str, Any]:
        """The arguments of a model's call that a batch has; of `resets` only if there are any."""
        given = {"lengths": self.lengths}
        return given if self.resets is None else given | {"resets": self.resets}
