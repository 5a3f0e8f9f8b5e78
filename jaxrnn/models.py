"""Models: input -> recurrent layers -> readout."""

import jax
from flax import linen as nn

from jaxrnn.stack import check_layers
from jaxrnn.types import Carry


class SequenceModel(nn.Module):
    """Recurrent layers, read out to class scores at every time step.

    Attributes:
      recurrent: `Recurrent`, `Bidirectional` or `Stack`.
      output_size: V.

    Raises:
      ValueError: if `recurrent` is no layer.
    """

    recurrent: nn.Module
    output_size: int

    def __post_init__(self) -> None:
        """Refuse what is no layer."""
        check_layers((self.recurrent,))
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        inputs: jax.Array,
        initial_carry: Carry = None,
        *,
        lengths: jax.Array | None = None,
        resets: jax.Array | None = None,
        deterministic: bool = True,
    ) -> tuple[jax.Array, Carry]:
        """inputs [B, T, F] -> logits [B, T, V], and the layers' carry.

        Arguments and errors are as for `Recurrent`.
        """
        hidden, carry = self.recurrent(
            inputs, initial_carry, lengths=lengths, resets=resets, deterministic=deterministic
        )
        glorot = nn.initializers.glorot_uniform()
        return nn.Dense(self.output_size, kernel_init=glorot, name="readout")(hidden), carry
