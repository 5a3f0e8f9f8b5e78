"""A cell over the time steps: in turn, all at once, or in chunks that keep memory small.

The functions here are what `recurrent.Recurrent` is made of. They share one signature:

    (cell, carry, steps, mask) -> (carry after the last step, outputs [B, T, H])

A row's padding needs no case of its own: a step that does not count leaves the carry as it was,
so the carry arrives unchanged at the row's first step when time runs backwards, and stays
unchanged after its last one when time runs forwards.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.cells import LinearCell
from jaxrnn.types import Carry


class Steps(NamedTuple):
    """What each time step brings. Fields that have nothing to say are None."""

    inputs: jax.Array  # [B, T, F]
    counts: jax.Array | None  # [B, T] bool: whether the step belongs to the row, or is padding
    anew: jax.Array | None  # [B, T] bool: whether the carry is fresh again before this step


class Part(NamedTuple):
    """Some steps of a linear recurrence joined to one: h -> decay * h + drive."""

    decay: jax.Array  # [B, T, H]
    drive: jax.Array  # [B, T, H]
    cut: jax.Array | None  # [B, T, 1] bool: whether h is fresh, zero, at one of them; None: never


Unroll = Callable[
    [nn.RNNCellBase, Carry, Steps, jax.Array | None],
    tuple[Carry, jax.Array],
]


def make_steps(
    inputs: jax.Array, lengths: jax.Array | None, resets: jax.Array | None, reverse: bool
) -> Steps:
    """The steps of padded rows, some of them packed.

    Args:
      inputs: [B, T, F].
      lengths: [B] int, how many steps of each row count; None: all.
      resets: [B, T] bool, where a sequence of its own starts inside a row; None: nowhere.
      reverse: whether time will run backwards. Then the carry starts anew one step later in time:
        at the last step of the sequence that ends where another starts.
    """
    counts = anew = None
    if lengths is not None:
        counts = jnp.arange(inputs.shape[1])[None] < lengths[:, None]
        inputs = jnp.where(counts[..., None], inputs, 0)  # so that nothing there can do harm
    if resets is not None:
        anew = resets if counts is None else resets & counts
        if reverse:
            anew = jnp.pad(anew[:, 1:], ((0, 0), (0, 1)))
    return Steps(inputs, counts, anew)


def fresh_carry(cell: nn.RNNCellBase, inputs: jax.Array) -> Carry:
    """The carry that a sequence starts from, zeros of [B, H], for inputs [B, T, F].

    A Flax cell's `carry_init` can say otherwise. One that draws at random draws the same here at
    every call: randomness comes in with an initial carry.
    """
    return cell.initialize_carry(jax.random.key(0), inputs[:, 0].shape)


def scan_cell(
    cell: nn.RNNCellBase, carry: Carry, steps: Steps, mask: jax.Array | None, *, reverse: bool
) -> tuple[Carry, jax.Array]:
    """One step after the other, with `nn.scan`: for any cell, and the reference for the others."""
    fresh = jax.tree.map(_as, fresh_carry(cell, steps.inputs), carry)

    def step(cell: nn.RNNCellBase, carry: Carry, now: Steps) -> tuple[Carry, jax.Array]:
        if now.anew is not None:
            carry = jax.tree.map(partial(_where, now.anew), fresh, carry)
        new, output = cell(carry, now.inputs) if mask is None else cell(carry, now.inputs, mask)
        new = jax.tree.map(_as, new, carry)
        if now.counts is not None:
            new = jax.tree.map(partial(_where, now.counts), new, carry)
            output = _where(now.counts, output, jnp.zeros_like(output))
        return new, output

    scan = nn.scan(
        step,
        variable_broadcast="params",
        variable_axes={"intermediates": 1},
        split_rngs={"params": False, "dropout": True},  # a cell's own dropout: a mask a step
        in_axes=1,
        out_axes=1,
        reverse=reverse,
        # The check traces the cell once more; it is needed only where parameters are made.
        check_constancy_invariants=cell.is_initializing(),
    )
    return scan(cell, carry, steps)


def associative_scan_cell(
    cell: LinearCell, carry: jax.Array, steps: Steps, mask: None, *, reverse: bool
) -> tuple[jax.Array, jax.Array]:
    """Every step of a linear recurrence together, with `jax.lax.associative_scan`.

    Two steps h -> d_1 h + e_1 and h -> d_2 h + e_2 are one step h -> d_2 d_1 h + (d_2 e_1 + e_2);
    joined in pairs, pairs of pairs and so on, all T take about 2 log2(T) rounds.
    """
    del mask
    decay, drive = (_as(part, carry) for part in cell.coefficients(steps.inputs))
    if steps.counts is not None:
        decay = jnp.where(steps.counts[..., None], decay, 1.0)
        drive = jnp.where(steps.counts[..., None], drive, 0.0)

    def join(first: Part, second: Part) -> Part:
        decay, drive = second.decay * first.decay, second.decay * first.drive + second.drive
        if second.cut is None or first.cut is None:
            return Part(decay, drive, None)
        # Chosen, not multiplied by zero: a NaN before the cut must not come through it.
        decay, drive = (
            jnp.where(second.cut, new, joined)
            for new, joined in ((second.decay, decay), (second.drive, drive))
        )
        return Part(decay, drive, first.cut | second.cut)

    cut = None if steps.anew is None else steps.anew[..., None]
    part = jax.lax.associative_scan(join, Part(decay, drive, cut), axis=1, reverse=reverse)
    states = part.decay * carry[:, None] + part.drive
    if part.cut is not None:
        states = jnp.where(part.cut, part.drive, states)
    last = states[:, 0 if reverse else -1]
    if steps.counts is not None:
        states = jnp.where(steps.counts[..., None], states, 0.0)
    return last, states


def remat_chunks(unroll: Unroll, chunk: int, *, reverse: bool) -> Unroll:
    """The same, keeping for the backward pass only the carries between chunks of time.

    The steps inside a chunk are computed a second time when their gradients are wanted (Chen et
    al. 2016). Chunks of about the square root of T need the least memory: that many carries, and
    the residuals of that many steps, in place of the residuals of all T; what grows with T itself
    is then only the inputs and outputs.

    Args:
      unroll: a function of this module.
      chunk: time steps of a chunk. If T is no multiple of it, padding makes it one.
      reverse: whether time runs backwards.
    """

    def chunked(
        cell: nn.RNNCellBase, carry: Carry, steps: Steps, mask: jax.Array | None
    ) -> tuple[Carry, jax.Array]:
        batch, length, _ = steps.inputs.shape
        padding = -length % chunk
        if padding:
            counts = jnp.ones((batch, length), bool) if steps.counts is None else steps.counts
            steps = steps._replace(counts=counts)
            steps = jax.tree.map(lambda x: jnp.pad(x, _at_end_of_time(x, padding)), steps)
        steps = jax.tree.map(lambda x: x.reshape(batch, -1, chunk, *x.shape[2:]), steps)
        scan = nn.scan(
            nn.remat(
                lambda cell, carry, steps: unroll(cell, carry, steps, mask), prevent_cse=False
            ),
            variable_broadcast="params",
            split_rngs={"params": False, "dropout": True},
            in_axes=1,
            out_axes=1,
            reverse=reverse,
            check_constancy_invariants=False,
        )
        carry, outputs = scan(cell, carry, steps)  # outputs [B, chunks, chunk, H]
        return carry, outputs.reshape(batch, -1, outputs.shape[-1])[:, :length]

    return chunked


def _where(condition: jax.Array, yes: jax.Array, no: jax.Array) -> jax.Array:
    """Choose whole rows: condition [B], the rest [B, ...]."""
    return jnp.where(jnp.expand_dims(condition, range(1, yes.ndim)), yes, no)


def _as(new: jax.Array, old: jax.Array) -> jax.Array:
    """A carry's new value in the type of its old one, which must be able to hold it."""
    if jnp.promote_types(new.dtype, old.dtype) != old.dtype:
        raise TypeError(
            f"the carry is {old.dtype}, but a step makes it {new.dtype}: give the cell"
            f" param_dtype={new.dtype} and parameters of that type, or inputs of another type"
        )
    return new.astype(old.dtype)


def _at_end_of_time(array: jax.Array, padding: int) -> list[tuple[int, int]]:
    """How `jnp.pad` adds steps to [B, T, ...]."""
    return [(0, padding if axis == 1 else 0) for axis in range(array.ndim)]
