"""Running a cell over time: step by step, by associative scan, or in chunks that save memory.

`Recurrent` is built from these functions. They share one signature:

    (cell, carry, steps, mask) -> (carry after the last step, outputs [B, T, H])

Padding needs no special case: a padded step leaves the carry unchanged. So the last carry is that
after each row's last valid step, and in reverse the initial carry reaches each row's last valid
step.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.cells import LinearCell
from jaxrnn.checks import check_axes, check_kind, check_lengths
from jaxrnn.dtypes import promote
from jaxrnn.types import Carry


class Steps(NamedTuple):
    """The inputs of every time step, and optional masks (None if unused)."""

    inputs: jax.Array  # [B, T, F]
    valid: jax.Array | None  # [B, T] bool: False at padding
    resets: jax.Array | None  # [B, T] bool: whether the carry is reset before this step


class LinearStep(NamedTuple):
    """One or more steps of a linear recurrence combined: h -> decay * h + drive."""

    decay: jax.Array  # [B, T, H], real or complex
    drive: jax.Array  # [B, T, H]
    reset: jax.Array | None  # [B, T, 1] bool: whether h is zeroed in between; None if never


Unroll = Callable[
    [nn.RNNCellBase, Carry, Steps, jax.Array | None],
    tuple[Carry, jax.Array],
]


def sequence_axes(feature_axes: int, last: str) -> str:
    """Return the axis letters of a sequence: "BTF", or with more feature axes "BTXF", "BTXYF"."""
    return "BT" + "XYZUVW"[: feature_axes - 1] + last


def check_sequence(
    inputs: Any, lengths: Any, resets: Any, feature_axes: int = 1
) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
    """Return inputs [B, T, F], lengths [B] and resets [B, T] as arrays, or raise.

    Args:
      inputs: [B, T, F]; with more feature axes [B, T, X, F] or [B, T, X, Y, F].
      lengths: [B] int, or None.
      resets: [B, T] bool, or None.
      feature_axes: the number of feature axes.

    Raises:
      TypeError: if `inputs` is not float, `lengths` not int, or `resets` not bool.
      ValueError: if shapes do not match, T is 0, or a length is out of range.
    """
    inputs = jnp.asarray(inputs)
    sizes = check_axes("inputs", inputs, sequence_axes(feature_axes, "F"))
    check_kind("inputs", inputs, jnp.floating, "embed integers, or make them one-hot, first")
    if not sizes["T"]:
        raise ValueError("inputs must have at least one time step, but T = 0")
    if lengths is not None:
        lengths = check_lengths(lengths, sizes["B"], sizes["T"])
    if resets is not None:
        resets = jnp.asarray(resets)
        check_axes("resets", resets, "BT", B=sizes["B"], T=sizes["T"])
        check_kind("resets", resets, jnp.bool_)
    return inputs, lengths, resets


def make_steps(
    inputs: jax.Array, lengths: jax.Array | None, resets: jax.Array | None, reverse: bool
) -> Steps:
    """Turn lengths and resets into masks.

    Args:
      inputs: [B, T, F].
      lengths: [B] int, number of steps in each row; None for T.
      resets: [B, T] bool, where a new sequence starts inside a row; None for nowhere.
      reverse: whether to run backwards in time. A sequence is then entered at its last step, so
        the carry is reset there: one step before the next sequence starts.
    """
    valid = starts = None
    if lengths is not None:
        valid = valid_steps(lengths, inputs.shape[1])
        inputs = _where(valid, inputs, jnp.zeros_like(inputs))  # so a NaN there has no effect
    if resets is not None:
        starts = resets if valid is None else resets & valid
        if reverse:
            starts = jnp.pad(starts[:, 1:], ((0, 0), (0, 1)))
    return Steps(inputs, valid, starts)


def valid_steps(lengths: jax.Array, length: int) -> jax.Array:
    """Return which of T steps are not padding, [B, T] bool; lengths [B] int."""
    steps = jnp.arange(length)
    return steps[None] < lengths.astype(steps.dtype)[:, None]


def fresh_carry(cell: nn.RNNCellBase, inputs: jax.Array) -> Carry:
    """The initial carry for inputs [B, T, F]: zeros [B, H], unless the cell's `carry_init` differs.

    A random `carry_init` gives the same numbers at every call: for random starts, pass an initial
    carry.
    """
    return cell.initialize_carry(jax.random.key(0), inputs[:, 0].shape)


def scan_cell(
    cell: nn.RNNCellBase, carry: Carry, steps: Steps, mask: jax.Array | None, *, reverse: bool
) -> tuple[Carry, jax.Array]:
    """Run any cell step by step with `nn.scan`; the reference for the other functions."""
    fresh = jax.tree.map(_as, fresh_carry(cell, steps.inputs), carry)

    def step(cell: nn.RNNCellBase, carry: Carry, now: Steps) -> tuple[Carry, jax.Array]:
        if now.resets is not None:
            carry = jax.tree.map(partial(_where, now.resets), fresh, carry)
        new, output = cell(carry, now.inputs) if mask is None else cell(carry, now.inputs, mask)
        new = jax.tree.map(_as, new, carry)
        if now.valid is not None:
            new = jax.tree.map(partial(_where, now.valid), new, carry)
            output = _where(now.valid, output, jnp.zeros_like(output))
        return new, output

    scan = nn.scan(
        step,
        variable_broadcast="params",
        variable_axes={"intermediates": 1},
        split_rngs={
            "params": False,
            "dropout": True,
        },  # dropout inside a cell: a new mask each step
        in_axes=1,
        out_axes=1,
        reverse=reverse,
        # The check traces the cell once more; it is only needed to create parameters.
        check_constancy_invariants=cell.is_initializing(),
    )
    return scan(cell, carry, steps)


def associative_scan_cell(
    cell: LinearCell, carry: Carry, steps: Steps, mask: None, *, reverse: bool
) -> tuple[Carry, jax.Array]:
    """Run all steps of a linear recurrence in parallel with `jax.lax.associative_scan`.

    The steps h -> d_1 h + e_1 and h -> d_2 h + e_2 combine to h -> d_2 d_1 h + (d_2 e_1 + e_2).
    Combining pairs, then pairs of pairs and so on takes about 2 log2(T) rounds.
    """
    del mask
    first = cell.to_state(carry)
    decay, drive = (_as(part, first) for part in cell.coefficients(steps.inputs))
    if steps.valid is not None:
        decay = jnp.where(steps.valid[..., None], decay, 1.0)
        drive = jnp.where(steps.valid[..., None], drive, 0.0)

    def combine(first: LinearStep, second: LinearStep) -> LinearStep:
        decay, drive = second.decay * first.decay, second.decay * first.drive + second.drive
        if second.reset is None or first.reset is None:
            return LinearStep(decay, drive, None)
        # Selected, not multiplied by zero: a NaN before the reset must not pass it.
        decay, drive = (
            jnp.where(second.reset, new, combined)
            for new, combined in ((second.decay, decay), (second.drive, drive))
        )
        return LinearStep(decay, drive, first.reset | second.reset)

    reset = None if steps.resets is None else steps.resets[..., None]
    total = jax.lax.associative_scan(
        combine, LinearStep(decay, drive, reset), axis=1, reverse=reverse
    )
    states = total.decay * first[:, None] + total.drive
    if total.reset is not None:
        states = jnp.where(total.reset, total.drive, states)
    last = cell.to_carry(states[:, 0 if reverse else -1])
    outputs = cell.read_out(states, steps.inputs)
    if steps.valid is not None:
        outputs = jnp.where(steps.valid[..., None], outputs, 0.0)
    return last, outputs


def remat_chunks(unroll: Unroll, chunk_size: int, *, reverse: bool) -> Unroll:
    """Wrap `unroll` so that only the carries between chunks of time are kept for the backward pass.

    The backward pass computes the steps inside a chunk a second time (Chen et al. 2016). Chunks of
    about sqrt(T) steps need the least memory: sqrt(T) carries, and the residuals of sqrt(T) steps
    rather than of all T. Only inputs and outputs then still grow with T.

    Args:
      unroll: a function of this module.
      chunk_size: time steps per chunk. If T is not a multiple of it, T is padded.
      reverse: whether to run backwards in time.
    """

    def chunked(
        cell: nn.RNNCellBase, carry: Carry, steps: Steps, mask: jax.Array | None
    ) -> tuple[Carry, jax.Array]:
        batch, length = steps.inputs.shape[:2]
        chunks = -(-length // chunk_size)  # also of a symbolic T, as `jax.export` has
        padding = chunks * chunk_size - length
        if not isinstance(padding, int) or padding:
            valid = jnp.ones((batch, length), bool) if steps.valid is None else steps.valid
            steps = steps._replace(valid=valid)
            steps = jax.tree.map(lambda x: jnp.pad(x, _pad_time(x, padding)), steps)
        steps = jax.tree.map(lambda x: x.reshape(batch, chunks, chunk_size, *x.shape[2:]), steps)
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
        carry, outputs = scan(cell, carry, steps)  # outputs [B, chunks, chunk_size, H]
        outputs = outputs.reshape(batch, chunks * chunk_size, *outputs.shape[3:])
        return carry, outputs[:, :length]

    return chunked


def _where(condition: jax.Array, yes: jax.Array, no: jax.Array) -> jax.Array:
    """Select whole rows or steps: condition [B] or [B, T], the others [B, ...] or [B, T, ...]."""
    return jnp.where(jnp.expand_dims(condition, range(condition.ndim, yes.ndim)), yes, no)


def _as(new: jax.Array, old: jax.Array) -> jax.Array:
    """Cast a carry's new value to the dtype of the old one; refuse to lose precision."""
    wide, _ = promote(new, old)
    if wide.dtype != old.dtype:
        raise TypeError(
            f"the carry is {old.dtype}, but a step makes it {new.dtype}: give the cell"
            f" param_dtype={new.dtype} and parameters of that type, or inputs of another type"
        )
    return wide


def _pad_time(array: jax.Array, padding: int) -> list[tuple[int, int]]:
    """Padding for `jnp.pad` that adds steps at the end of [B, T, ...]."""
    return [(0, padding if axis == 1 else 0) for axis in range(array.ndim)]
