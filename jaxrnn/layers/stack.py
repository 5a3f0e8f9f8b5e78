"""Layers made of layers: both directions of time, and one above the other.

`Recurrent`, `Bidirectional` and `Stack` are called alike, so each can stand where another does:

    outputs, carry = layer(inputs, initial_carry, lengths=lengths, resets=resets)
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.checks import check_axes, check_rate, describe, drops
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.types import Carry

Path = tuple[str, ...]


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
        check_layers((self.forward, self.backward))
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
        check_layers(self.layers)
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
        named = hasattr(first, "_fields")  # the carry of one layer
        if named or not isinstance(first, tuple | list) or len(first) != len(self.layers):
            wanted = f"a tuple of {len(self.layers)}, one a layer"
            raise ValueError(f"initial_carry must be {wanted}, not {describe(first)}")
        drops(self, self.dropout, deterministic)
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


def check_layers(layers: Sequence[nn.Module]) -> None:
    """Refuse, with a ValueError, what is no layer, and layers that share a cell."""
    for layer in layers:
        if not isinstance(layer, nn.Module) or isinstance(layer, nn.RNNCellBase):
            name = type(layer).__name__
            raise ValueError(f"a layer must be one such as Recurrent(cell), not of type {name}")
    cells = [id(part.cell) for layer in layers for _, part in recurrent_layers(layer)]
    if len(set(cells)) < len(cells):
        raise ValueError("every layer must have a cell object of its own, or they share parameters")


def recurrent_layers(module: nn.Module) -> Iterator[tuple[Path, Recurrent]]:
    """The `Recurrent` layers in a module, from the input up, forward before backward.

    Args:
      module: `Recurrent`, `Bidirectional`, `Stack`, `SequenceModel`, or any Flax module that holds
        them in its attributes.

    Yields:
      where the layer's parameters are in the module's, and the layer.

    >>> from jaxrnn.cells import LSTMCell
    >>> both = Bidirectional(Recurrent(LSTMCell(4)), Recurrent(LSTMCell(4), reverse=True))
    >>> [path for path, _ in recurrent_layers(Stack((Recurrent(LSTMCell(4)), both)))]
    [('layers_0',), ('layers_1', 'forward'), ('layers_1', 'backward')]
    """
    if isinstance(module, Recurrent):
        yield (), module
        return
    for field in dataclasses.fields(module):
        value = getattr(module, field.name) if field.name != "parent" else None
        parts = [(field.name, value)]
        if isinstance(value, tuple | list):  # named as Flax names them
            parts = [(f"{field.name}_{n}", part) for n, part in enumerate(value)]
        for name, part in parts:
            if isinstance(part, nn.Module):
                yield from (((name, *path), layer) for path, layer in recurrent_layers(part))
