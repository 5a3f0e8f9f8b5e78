"""One recurrent layer: a cell scanned over time."""

from functools import partial
from typing import Any

import chex
import jax
from flax import linen as nn

from jaxrnn.types import Params


class Recurrent(nn.Module):
    """A cell applied to every time step in turn, with the same parameters at each.

    Attributes:
      cell: the recurrence, e.g. `CELLS["lstm"](hidden_size)`.

    >>> from jaxrnn.cells import CELLS
    >>> layer = Recurrent(CELLS["lstm"](4))
    >>> inputs = jax.random.normal(jax.random.key(0), (2, 7, 3))  # [B, T, F]
    >>> outputs, carry = layer.apply(layer.init(jax.random.key(1), inputs), inputs)
    >>> outputs.shape, carry.c.shape
    ((2, 7, 4), (2, 4))
    """

    cell: nn.RNNCellBase

    def __call__(self, inputs: jax.Array, initial_carry: Any = None) -> tuple[jax.Array, Any]:
        """Run the cell from the first time step to the last.

        Args:
          inputs: [B, T, F].
          initial_carry: the carry before the first step; zeros if None.

        Returns:
          outputs [B, T, H] and the carry after the last step, so that a long sequence given in
          pieces, each started from the carry of the one before, equals the whole.

        Raises:
          AssertionError: if `inputs` has not three axes.
        """
        chex.assert_rank(inputs, 3)
        if initial_carry is None:
            # Zeros: the key that Flax's cells ask for is not used.
            initial_carry = self.cell.initialize_carry(jax.random.key(0), inputs[:, 0].shape)
        scan = nn.scan(
            lambda cell, carry, x: cell(carry, x),
            variable_broadcast="params",
            variable_axes={"intermediates": 1},
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
            # The check traces the cell once more; it is needed only where parameters are made.
            check_constancy_invariants=self.is_initializing(),
        )
        carry, outputs = scan(self.cell, initial_carry, inputs)
        self.sow("intermediates", "h", outputs)
        return outputs, carry


@partial(jax.jit, static_argnums=0)
def read_gates(model: nn.Module, params: Params, inputs: jax.Array) -> dict[str, jax.Array]:
    """The gates and states of a model's recurrent layer at every time step.

    Args:
      model: a module with a `Recurrent` layer named `recurrent`, such as `SequenceModel`.
      params: the model's parameters.
      inputs: [B, T, F].

    Returns:
      By name, [B, T, H] each: the hidden state h, and what the cell sows besides. An LSTM: the
      gates i, f, o (0 to 1), the candidate g (-1 to 1) and the cell state c.
    """
    _, variables = model.apply({"params": params}, inputs, mutable=["intermediates"])
    sown: dict[str, Any] = dict(variables["intermediates"]["recurrent"])
    sown |= sown.pop("cell", {})
    return {name: values for name, (values,) in sown.items()}
