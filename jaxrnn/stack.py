"""Layers made of layers: both directions of time, and one above the other.

`Recurrent`, `Bidirectional` and `Stack` are called alike, so each can stand where another does:

    outputs, carry = layer(inputs, initial_carry, lengths=lengths, resets=resets)
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.checks import check_axes, check_rate, check_static, describe
from jaxrnn.recurrent import Recurrent, recurrent_layers
from jaxrnn.types import Carry


class BidirectionalCarry(NamedTuple):
    """The carries of the two directions."""

    forward: Carry  # after each row's last step
    backward: Carry  # after its first


class Bidirectional(nn.Module):
    """Two layers over the same inputs, one forwards and one backwards in time.

    Since the backward one starts at the end, a long sequence cannot be given in pieces.

    Source: Schuster and Paliwal (1997), section II.

    Attributes:
      forward: a layer with `reverse=False`.
      backward: a layer with `reverse=True`.
      merge: "concat": outputs side by side, forward first, [B, T, H + H']; "sum": added up.

    Raises:
      ValueError: if a direction or `merge` is another, or both have one cell object (they would
        share its parameters).
    """

    forward: Recurrent
    backward: Recurrent
    merge: Literal["concat", "sum"] = "concat"

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        _check_layers((self.forward, self.backward))
        if self.forward.reverse or not self.backward.reverse:
            raise ValueError("forward must have reverse=False, and backward reverse=True")
        if self.merge not in ("concat", "sum"):
            raise ValueError(f"merge must be concat or sum, not {self.merge!r}")
        super().__post_init__()

    def __call__(
        self,
        inputs: jax.Array,
        initial_carry: BidirectionalCarry | None = None,
        *,
        lengths: jax.Array | None = None,
        resets: jax.Array | None = None,
        deterministic: bool = True,
    ) -> tuple[jax.Array, BidirectionalCarry]:
        """Run both directions; as `Recurrent`, with a `BidirectionalCarry`.

        Raises:
          TypeError, ValueError: as `Recurrent`; and if the carry is no `BidirectionalCarry`, or
            the outputs to sum have not the same H.
        """
        first = BidirectionalCarry(None, None) if initial_carry is None else initial_carry
        if not isinstance(first, BidirectionalCarry):
            raise ValueError(f"initial_carry must be a BidirectionalCarry, not {describe(first)}")
        options = {"lengths": lengths, "resets": resets, "deterministic": deterministic}
        forward, last = self.forward(inputs, first.forward, **options)
        backward, start = self.backward(inputs, first.backward, **options)
        carry = BidirectionalCarry(last, start)
        if self.merge == "concat":
            return jnp.concatenate([forward, backward], axis=-1), carry
        check_axes("the backward outputs to sum", backward, "BTH", H=forward.shape[-1])
        return forward + backward, carry


class Stack(nn.Module):
    """Layers one above the other, each of its own cell and size.

    Attributes:
      layers: `Recurrent`, `Bidirectional` or `Stack`, from the input up; each of a cell object
        of its own.
      dropout: the share of each layer's inputs that is dropped, from the second layer on, at each
        step anew: Zaremba et al. (2014), section 3.2.
      one_mask_a_sequence: drop the same inputs at all steps of a row: Gal and Ghahramani (2016).
      residual: add each layer's inputs to its outputs, from the second layer on: Wu et al. (2016),
        eq. 6.

    Raises:
      ValueError: if there are no layers, two have one cell object (they would share its
        parameters), or the dropout is out of range.
    """

    layers: tuple[nn.Module, ...]
    dropout: float = 0.0
    one_mask_a_sequence: bool = False
    residual: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if not isinstance(self.layers, tuple | list) or not self.layers:
            raise ValueError("layers must be a tuple of one layer or more")
        object.__setattr__(self, "layers", tuple(self.layers))
        _check_layers(self.layers)
        check_rate("dropout", self.dropout)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        inputs: jax.Array,
        initial_carry: tuple[Carry, ...] | None = None,
        *,
        lengths: jax.Array | None = None,
        resets: jax.Array | None = None,
        deterministic: bool = True,
    ) -> tuple[jax.Array, tuple[Carry, ...]]:
        """Run the layers from the lowest to the highest; as `Recurrent`, with a carry for each.

        Raises:
          TypeError, ValueError: as `Recurrent`; and if there is not one initial carry a layer, or
            a residual layer has not the same H as F.
        """
        first = (None,) * len(self.layers) if initial_carry is None else initial_carry
        if not isinstance(first, tuple | list) or len(first) != len(self.layers):
            wanted = f"a tuple of {len(self.layers)}, one a layer"
            raise ValueError(f"initial_carry must be {wanted}, not {describe(first)}")
        if self.dropout:
            check_static("deterministic", deterministic)
        options = {"lengths": lengths, "resets": resets, "deterministic": deterministic}
        drop = nn.Dropout(self.dropout, broadcast_dims=(1,) if self.one_mask_a_sequence else ())
        hidden, carries = inputs, []
        for n, (layer, carry) in enumerate(zip(self.layers, first, strict=True)):
            below = hidden
            if n and self.dropout:
                hidden = drop(hidden, deterministic=deterministic)
            try:
                hidden, carry = layer(hidden, carry, **options)
            except (TypeError, ValueError) as error:
                error.add_note(f"in layer {n + 1} of {len(self.layers)}")
                raise
            if n and self.residual:
                check_axes(f"the outputs of layer {n + 1}", hidden, "BTH", H=below.shape[-1])
                hidden = hidden + below
            carries.append(carry)
        return hidden, tuple(carries)


def _check_layers(layers: Sequence[nn.Module]) -> None:
    """Refuse what is no layer, and layers that share a cell."""
    for layer in layers:
        if not isinstance(layer, nn.Module) or isinstance(layer, nn.RNNCellBase):
            raise ValueError(f"a layer must be one such as Recurrent(cell), not {layer!r}")
    cells = [id(part.cell) for layer in layers for _, part in recurrent_layers(layer)]
    if len(set(cells)) < len(cells):
        raise ValueError("every layer must have a cell object of its own, or they share parameters")
