"""A model with one output per sequence."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.choices import check_choice
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional, Stack, check_layers
from jaxrnn.models.sequence import check_sizes, readout
from jaxrnn.types import Carry


class SequenceClassifier(nn.Module):
    """Recurrent layers, one vector for the whole sequence, and a dense readout: outputs [B, 1, V].

    Attributes:
      recurrent: `Recurrent`, `Bidirectional` or `Stack`.
      output_size: V.
      pool: how the last layer's outputs [B, T, H] become one vector per row.

        - "last": each direction's output after it has read the whole row: at the row's last step,
          and for the backward direction at its first.
        - "mean": the mean over the row's steps.
        - "flatten": all of them, [B, T * H], zero past a row's length. So the parameters fix T.

    Raises:
      ValueError: if `recurrent` is not a recurrent layer, `pool` is unknown, or it is "last" and
        the last layer sums its directions.
      SettingError: if `output_size` is not a whole number from 1.

    >>> from jaxrnn import Bidirectional, GRUCell, Recurrent, SequenceClassifier
    >>> both = Bidirectional(Recurrent(GRUCell(6)), Recurrent(GRUCell(6), reverse=True))
    >>> model = SequenceClassifier(both, output_size=10, pool="flatten")
    >>> inputs = jnp.ones((2, 40, 1))  # [B, T, F]
    >>> variables = model.init(jax.random.key(0), inputs)
    >>> logits, carry = model.apply(variables, inputs)
    >>> logits.shape, variables["params"]["readout"]["kernel"].shape
    ((2, 1, 10), (480, 10))
    """

    recurrent: nn.Module
    output_size: int
    pool: Literal["last", "mean", "flatten"] = "last"

    def __post_init__(self) -> None:
        """Check the attributes."""
        check_layers((self.recurrent,))
        check_sizes(self, "output_size")
        check_choice("pool", self.pool, ("last", "mean", "flatten"))
        last = last_layer(self.recurrent)
        if self.pool == "last" and isinstance(last, Bidirectional) and last.merge == "sum":
            raise ValueError('pool="last" needs the outputs of each direction: use merge="concat"')
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
        """Inputs [B, T, F] float -> logits [B, 1, V], and the layers' carry.

        The other arguments are as for `Recurrent`. A row of length 0 is read as zeros.

        Raises:
          TypeError, ValueError: as `Recurrent`; also if the readout's parameters do not fit.
        """
        hidden, carry = self.recurrent(
            inputs, initial_carry, lengths=lengths, resets=resets, deterministic=deterministic
        )
        pooled = getattr(self, f"_{self.pool}")(hidden, lengths)
        return readout(self, pooled[:, None], self.output_size), carry

    def _flatten(self, hidden: jax.Array, lengths: jax.Array | None) -> jax.Array:
        del lengths  # past a row's length, hidden is zero
        return hidden.reshape(hidden.shape[0], -1)

    def _mean(self, hidden: jax.Array, lengths: jax.Array | None) -> jax.Array:
        total = jnp.sum(hidden, axis=1)
        if lengths is None:
            return total / hidden.shape[1]
        return total / jnp.maximum(jnp.asarray(lengths), 1)[:, None].astype(total.dtype)

    def _last(self, hidden: jax.Array, lengths: jax.Array | None) -> jax.Array:
        at_start, at_end = hidden[:, 0], hidden[:, -1]
        if lengths is not None:
            ends = jnp.clip(jnp.asarray(lengths) - 1, 0, hidden.shape[1] - 1)
            at_end = jnp.take_along_axis(hidden, ends[:, None, None], axis=1)[:, 0]
        last = last_layer(self.recurrent)
        if isinstance(last, Bidirectional):
            cell: Any = last.forward.cell
            size = getattr(cell, "projection_size", None) or cell.features
            return jnp.concatenate([at_end[:, :size], at_start[:, size:]], axis=-1)
        return at_start if isinstance(last, Recurrent) and last.reverse else at_end


def last_layer(layer: nn.Module) -> nn.Module:
    """The layer whose outputs are those of the whole."""
    while isinstance(layer, Stack):
        layer = layer.layers[-1]
    return layer
