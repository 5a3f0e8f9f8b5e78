"""Layers made of layers: both directions of time, and several layers on top of each other.

`Recurrent`, `Bidirectional` and `Stack` are called in the same way, so they can be nested:

    outputs, carry = layer(inputs, initial_carry, lengths=lengths, resets=resets)
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.cells.base import register_carry
from jaxrnn.checks import check_axes, check_rate, describe_carry, drops
from jaxrnn.choices import check_choice
from jaxrnn.dtypes import promote
from jaxrnn.layers.dropout import Dropout
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.scan import sequence_axes
from jaxrnn.types import Carry

Path = tuple[str, ...]
"""The keys that lead to a layer's parameters in its model's."""


@register_carry
class BidirectionalCarry(NamedTuple):
    """The carries of the two directions, each a cell's pytree of [B, H] arrays."""

    forward: Carry  # after each row's last step
    backward: Carry  # after each row's first step


class Bidirectional(nn.Module):
    """Two layers over the same inputs, one forwards and one backwards in time.

    The backward layer starts at the end, so a long sequence cannot be split into pieces.

    Source: Schuster and Paliwal (1997), section II.

    Attributes:
      forward: a layer with `reverse=False`.
      backward: a layer with `reverse=True`.
      merge: "concat" concatenates the outputs, forward first, to [B, T, H + H']; "sum" adds them.

    Raises:
      ValueError: if a layer has the wrong direction, `merge` is unknown, or both layers have the
        same cell object (they would share its parameters).

    >>> from jaxrnn.cells import LSTMCell
    >>> layer = Bidirectional(Recurrent(LSTMCell(4)), Recurrent(LSTMCell(5), reverse=True))
    >>> inputs = jnp.ones((2, 7, 3))  # [B, T, F]
    >>> (outputs, carry), _ = layer.init_with_output(jax.random.key(0), inputs)
    >>> outputs.shape, carry.forward.h.shape, carry.backward.h.shape
    ((2, 7, 9), (2, 4), (2, 5))
    """

    forward: Recurrent
    backward: Recurrent
    merge: Literal["concat", "sum"] = "concat"

    def __post_init__(self) -> None:
        """Check the attributes."""
        check_layers((self.forward, self.backward))
        if self.forward.reverse or not self.backward.reverse:
            raise ValueError("forward must have reverse=False, and backward reverse=True")
        check_choice("merge", self.merge, ("concat", "sum"))
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
        """Run both directions over inputs [B, T, F].

        Arguments and results are as for `Recurrent`, with a `BidirectionalCarry`.

        Raises:
          TypeError, ValueError: as `Recurrent`; also if the carry is not a `BidirectionalCarry`,
            or `merge` is "sum" and the outputs differ in H.
        """
        first = BidirectionalCarry(None, None) if initial_carry is None else initial_carry
        if not isinstance(first, BidirectionalCarry):
            given = describe_carry(first)
            raise ValueError(f"initial_carry must be a BidirectionalCarry, not {given}")
        options = {"lengths": lengths, "resets": resets, "deterministic": deterministic}
        forward, last = self.forward(inputs, first.forward, **options)
        backward, start = self.backward(inputs, first.backward, **options)
        forward, backward = promote(forward, backward)
        carry = BidirectionalCarry(last, start)
        if self.merge == "concat":
            return jnp.concatenate([forward, backward], axis=-1), carry
        check_axes(
            "the backward outputs to sum",
            backward,
            sequence_axes(forward.ndim - 2, "H"),
            H=forward.shape[-1],
        )
        return forward + backward, carry


class Stack(nn.Module):
    """Layers on top of each other; their cells and sizes may differ.

    Attributes:
      layers: `Recurrent`, `Bidirectional` or `Stack` layers, the input's first. Each needs its own
        cell object.
      dropout: dropout rate between layers, with a new mask at each step: Zaremba et al. (2014),
        section 3.2.
      variational_dropout: use one dropout mask for all steps of a row: Gal and Ghahramani (2016).
      residual: add each layer's inputs to its outputs, from the second layer on: Wu et al. (2016),
        eq. 6.

    Raises:
      ValueError: if there are no layers, two have the same cell object (they would share its
        parameters), or `dropout` is out of range.

    >>> from jaxrnn.cells import GRUCell, LSTMCell
    >>> stack = Stack((Recurrent(LSTMCell(4)), Recurrent(GRUCell(5))))
    >>> inputs = jnp.ones((2, 7, 3))  # [B, T, F]
    >>> (outputs, (lstm_carry, gru_carry)), _ = stack.init_with_output(jax.random.key(0), inputs)
    >>> outputs.shape, lstm_carry.h.shape, gru_carry.shape
    ((2, 7, 5), (2, 4), (2, 5))
    """

    layers: tuple[nn.Module, ...]
    dropout: float = 0.0
    variational_dropout: bool = False
    residual: bool = False

    def __post_init__(self) -> None:
        """Check the attributes."""
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
        """Run the layers over inputs [B, T, F], the first layer first.

        Arguments and results are as for `Recurrent`, with a tuple of carries, one per layer.

        Raises:
          TypeError, ValueError: as `Recurrent`; also if the number of carries is not that of the
            layers, or the inputs and outputs of a residual layer differ in size.
        """
        first = (None,) * len(self.layers) if initial_carry is None else initial_carry
        named = hasattr(first, "_fields")  # a single layer's carry, such as LSTMCarry
        if named or not isinstance(first, tuple | list) or len(first) != len(self.layers):
            wanted = f"a tuple of {len(self.layers)}, one per layer"
            raise ValueError(f"initial_carry must be {wanted}, not {describe_carry(first)}")
        dropped = drops(self, self.dropout, deterministic)
        options = {"lengths": lengths, "resets": resets, "deterministic": deterministic}
        drop = Dropout(self.dropout, broadcast_dims=(1,) if self.variational_dropout else ())
        hidden, carries = inputs, []
        for n, (layer, carry) in enumerate(zip(self.layers, first, strict=True)):
            below = hidden
            if n and dropped:
                hidden = drop(hidden, deterministic=deterministic)
            try:
                hidden, carry = layer(hidden, carry, **options)
            except (TypeError, ValueError) as error:
                error.add_note(f"in layer {n + 1} of {len(self.layers)}")
                raise
            if n and self.residual:
                check_axes(
                    f"the outputs of layer {n + 1}",
                    hidden,
                    sequence_axes(below.ndim - 2, "H"),
                    H=below.shape[-1],
                )
                hidden, below = promote(hidden, below)
                hidden = hidden + below
            carries.append(carry)
        return hidden, tuple(carries)


def check_layers(layers: Sequence[nn.Module]) -> None:
    """Check that these are layers, each with its own cell object.

    Raises:
      ValueError: if something is not a layer, or two layers share a cell.
    """
    for layer in layers:
        if not isinstance(layer, nn.Module) or isinstance(layer, nn.RNNCellBase):
            name = type(layer).__name__
            raise ValueError(f"a layer must be one such as Recurrent(cell), not of type {name}")
    cells = [id(part.cell) for layer in layers for _, part in recurrent_layers(layer)]
    if len(set(cells)) < len(cells):
        raise ValueError("every layer needs its own cell object, or layers would share parameters")


def recurrent_layers(module: nn.Module) -> Iterator[tuple[Path, Recurrent]]:
    """The `Recurrent` layers in a module, the input's first, forward before backward.

    Args:
      module: `Recurrent`, `Bidirectional`, `Stack`, `SequenceModel`, or any Flax module that has
        them as attributes.

    Yields:
      the path of the layer's parameters in the module's, and the layer.

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
        if isinstance(value, tuple | list):  # Flax's names for them
            parts = [(f"{field.name}_{n}", part) for n, part in enumerate(value)]
        for name, part in parts:
            if isinstance(part, nn.Module):
                yield from (((name, *path), layer) for path, layer in recurrent_layers(part))
