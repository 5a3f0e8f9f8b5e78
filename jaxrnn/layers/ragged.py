"""Loops over rows of several lengths that leave most of the padding out.

Rows are sorted, the longest first, so that the rows still running at a step are the first ones.
A loop then has four levels: all rows, until the shortest quarter has ended; then the first three
quarters; then half of them; then a quarter. The shapes are static, and only the numbers of
steps depend on the lengths. Of rows with lengths uniform in 1..T, this leaves out three quarters of
the padding; more levels leave out more of it, but take longer to compile.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

LEVELS = 4
CHUNK_STEPS = 16
"""`fold` takes as many steps in one product."""
MIN_PRODUCTS = 2**25
"""With fewer multiplications in a layer, the time saved is not worth that to compile more loops."""


class Order(NamedTuple):
    """The rows sorted by length."""

    rows: jax.Array  # [B] int: which row comes first, second, ...; the longest first
    places: jax.Array  # [B] int: where each row went
    ends: jax.Array  # [levels] int: the step before which each level ends

    def sort(self, arrays: Any) -> Any:
        """Arrays [B, ...] with the longest row first."""
        return jax.tree.map(lambda array: _take(array, self.rows, self.places), arrays)

    def unsort(self, arrays: Any) -> Any:
        """Undo `sort`."""
        return jax.tree.map(lambda array: _take(array, self.places, self.rows), arrays)


def pays(shape: tuple[Any, ...], products: int) -> bool:
    """Whether to sort the rows of a layer.

    Not on a GPU, which has not been measured; and not under a mesh over whose devices the rows may
    be sharded, which would have to exchange them.

    Args:
      shape: B, T; one of them may be symbolic, in `jax.export`.
      products: the number of multiplications per row and step.
    """
    if not all(isinstance(size, int) for size in shape):
        return False
    batch, steps = shape
    mesh = jax.sharding.get_abstract_mesh()
    sharded = any(
        size > 1 and kind != AxisType.Manual
        for size, kind in zip(mesh.axis_sizes, mesh.axis_types, strict=True)
    )
    large = batch >= 2 * LEVELS and batch * steps * products >= MIN_PRODUCTS
    return large and not sharded and jax.default_backend() == "cpu"


def sort_rows(valid: jax.Array) -> Order:
    """Sort rows by their length, where valid [B, T] is False at the padding after each row."""
    lengths = valid.sum(axis=1, dtype=jnp.int32)
    rows = jnp.argsort(lengths, descending=True)
    lengths = lengths[rows]
    _, *fewer = _level_rows(len(rows))
    ends = jnp.stack([*(lengths[count] for count in fewer), lengths[0]])
    return Order(rows, jnp.argsort(rows), ends)


def scan(
    step: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    xs: Any,
    ends: jax.Array,
    *,
    reverse: bool,
) -> tuple[Any, Any]:
    """Like `jax.lax.scan` over sorted rows: `step` gets fewer and fewer of them.

    Args:
      step: (carry, the xs of a step) -> (carry, ys), for any number of rows; all [rows, ...].
      carry: each [B, ...].
      xs: each [T, B, ...].
      ends: of `Order`.
      reverse: whether to run backwards in time, with more and more rows.

    Returns:
      the carry after each row's last step, and ys, [T, B, ...] each: zero where no step was taken.
    """
    steps, batch = jax.tree.leaves(xs)[0].shape[:2]
    ys = _zeros(steps, jax.eval_shape(step, carry, jax.tree.map(lambda x: x[0], xs))[1])
    levels = [*_levels(ends, batch)]

    for rows, start, end in levels[::-1] if reverse else levels:

        def body(n: jax.Array, state: Any, rows=rows, start=start, end=end) -> Any:
            carry, ys = state
            now = start + end - 1 - n if reverse else n
            carry, y = step(carry, _part(xs, now, None, rows))
            return carry, jax.tree.map(lambda all, one: _write(all, one[None], now), ys, y)

        part = jax.tree.map(lambda leaf, rows=rows: leaf[:rows], carry)
        part, ys = jax.lax.fori_loop(start, end, body, (part, ys))
        carry = jax.tree.map(lambda all, part: _write(all, part, 0), carry, part)
    return carry, ys


def fold(
    add: Callable[[Any, Any], tuple[Any, Any]], total: Any, xs: Any, ends: jax.Array
) -> tuple[Any, Any]:
    """Sum something over sorted rows, several steps at once.

    Args:
      add: (total, xs of some steps and rows, [steps, rows, ...]) -> (new total, ys, likewise).
      total: before the first step.
      xs: each [T, B, ...].
      ends: of `Order`.

    Returns:
      the total, and ys, [T, B, ...] each: zero where nothing was computed.
    """
    steps, batch = jax.tree.leaves(xs)[0].shape[:2]
    first = steps % CHUNK_STEPS  # the rest are whole chunks
    part = jax.tree.map(lambda x: x[:1], xs)
    ys = _zeros(steps, jax.tree.map(_without_time, jax.eval_shape(add, total, part)[1]))
    if first:
        total, y = add(total, jax.tree.map(lambda x: x[:first], xs))
        ys = jax.tree.map(lambda all, part: _write(all, part, 0), ys, y)
    if first == steps:
        return total, ys
    chunks = jnp.clip(-(-(ends - first) // CHUNK_STEPS), 0)
    for rows, start, end in _levels(chunks, batch):

        def body(n: jax.Array, state: Any, rows=rows) -> Any:
            total, ys = state
            now = first + n * CHUNK_STEPS
            total, y = add(total, _part(xs, now, CHUNK_STEPS, rows))
            return total, jax.tree.map(lambda all, part: _write(all, part, now), ys, y)

        total, ys = jax.lax.fori_loop(start, end, body, (total, ys))
    return total, ys


def without_ends_under_vmap(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of (ends, arrays...) run without ends where `vmap` has several.

    A loop with as many steps as the longest of several networks needs would select, at each step,
    which networks' arrays to change. So `ends` is None for the function under such a `vmap`.
    """

    def call(ends: jax.Array | None, *arrays: Any) -> Any:
        if ends is None:
            return function(None, *arrays)
        mapped = jax.custom_batching.custom_vmap(function)

        @mapped.def_vmap
        def rule(size: int, batched: Any, ends: Any, *arrays: Any) -> tuple[Any, Any]:
            shared = None if batched[0] else ends
            axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, [*batched[1:]])
            results = jax.vmap(partial(function, shared), tuple(axes), axis_size=size)(*arrays)
            return results, jax.tree.map(lambda _: True, results)

        return mapped(ends, *arrays)

    return call


@jax.custom_vjp
def _take(array: jax.Array, rows: jax.Array, places: jax.Array) -> jax.Array:
    """Array [B, ...] in the order of rows [B]; of places [B], to undo it.

    The gradient is taken in the opposite order, instead of the slow scatter of indexing.
    """
    del places
    return array.at[rows].get(unique_indices=True, mode="promise_in_bounds")


_take.defvjp(
    lambda array, rows, places: (_take(array, rows, places), (rows, places)),
    lambda saved, gradient: (_take(gradient, saved[1], saved[0]), None, None),
)


def _level_rows(batch: int) -> list[int]:
    """How many rows each level has."""
    levels = min(LEVELS, batch)
    return [-(-batch * left // levels) for left in range(levels, 0, -1)]


def _levels(ends: jax.Array, batch: int) -> Iterator[tuple[int, Any, jax.Array]]:
    """Each level's rows, its first step, and the step before which it ends."""
    starts = [jnp.zeros_like(ends[0]), *ends[:-1]]
    yield from zip(_level_rows(batch), starts, ends, strict=True)


def _zeros(steps: int, rows: Any) -> Any:
    return jax.tree.map(lambda row: jnp.zeros((steps, *row.shape), row.dtype), rows)


def _without_time(part: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(part.shape[1:], part.dtype)


def _part(arrays: Any, start: Any, steps: int | None, rows: int) -> Any:
    """The first rows of some steps of arrays [T, B, ...]; of one step without its axis, if None."""

    def part(array: jax.Array) -> jax.Array:
        sizes = (steps or 1, rows, *array.shape[2:])
        some = jax.lax.dynamic_slice(array, _from(start, array), sizes)
        return some[0] if steps is None else some

    return jax.tree.map(part, arrays)


def _write(array: jax.Array, part: jax.Array, start: Any) -> jax.Array:
    """The array with a part of it changed, from index `start` of its first axis."""
    return jax.lax.dynamic_update_slice(array, part, _from(start, array))


def _from(start: Any, array: jax.Array) -> list[Any]:
    """The index where a part of an array begins, in int32 like `start`."""
    return [jnp.asarray(start, jnp.int32), *[np.int32(0)] * (array.ndim - 1)]
