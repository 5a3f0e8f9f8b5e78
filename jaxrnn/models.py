"""Models: input -> recurrent layer -> readout."""

import jax
from flax import linen as nn

from jaxrnn.cells import CELLS
from jaxrnn.recurrent import Recurrent


class SequenceModel(nn.Module):
    """A recurrent layer from a zero carry, read out to class scores at every time step.

    Attributes:
      cell: a name in `CELLS`.
      hidden_size: H.
      output_size: V.
    """

    cell: str
    hidden_size: int
    output_size: int

    def setup(self) -> None:
        """Name the two parts; Flax calls this."""
        self.recurrent = Recurrent(CELLS[self.cell](self.hidden_size))
        self.readout = nn.Dense(self.output_size, kernel_init=nn.initializers.glorot_uniform())

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """inputs [B, T, F] -> logits [B, T, V]."""
        hidden, _ = self.recurrent(inputs)  # [B, T, H]
        return self.readout(hidden)
