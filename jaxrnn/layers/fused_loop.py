"""A fused cell over time: the loops and large products, and their hand-written backward pass."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.layers import fused, ragged
from jaxrnn.layers.fused import FusedCell, GateParams, Gates
from jaxrnn.layers.scan import Steps
from jaxrnn.types import Carry

CACHE_BYTES = 2**23  # products with all inputs are computed before the loop if they fit in this


class Masks(NamedTuple):
    """Optional masks; None if unused."""

    valid: jax.Array | None  # [T, B, 1] bool: False at padding
    resets: jax.Array | None  # [T, B, 1] bool: the carry is zeroed before this step
    hidden: jax.Array | None  # [B, H]: multiplies the h that the gates see


def fused_scan(
    cell: nn.RNNCellBase, carry: Carry, steps: Steps, mask: jax.Array | None, *, reverse: bool
) -> tuple[Carry, jax.Array]:
    """Run a cell over time where `is_supported`; called like the functions in `scan`.

    Args:
      cell: with its parameters bound.
      carry: before the first step, [B, H] each.
      steps: inputs [B, T, F], which steps are valid, and where the carry is reset.
      mask: [B, H], multiplies the h that the gates see; None for no mask.
      reverse: whether to run backwards in time.

    Returns:
      the last carry, and outputs [B, T, H].
    """
    fused_cell = fused.of(cell)
    params = fused_cell.gate_params(cell.variables["params"])
    return unroll(fused_cell, params, carry, steps, mask, reverse=reverse)


def unroll(
    fused_cell: FusedCell,
    params: GateParams,
    carry: Carry,
    steps: Steps,
    mask: jax.Array | None = None,
    *,
    reverse: bool = False,
) -> tuple[Carry, jax.Array]:
    """Like `fused_scan`, from the parameters in place of a bound cell."""
    order = None
    products = params.input_kernel.size + params.recurrent_kernel.size
    if steps.valid is not None and ragged.pays(steps.valid.shape, products):
        order = ragged.sort_rows(steps.valid)
        carry, steps, mask = order.sort((carry, steps, mask))
    valid, resets = _time_first(steps.valid), _time_first(steps.resets)
    inputs = steps.inputs.swapaxes(0, 1)
    unrolled: Any = _unrolled  # custom_vjp loses the function's type
    masks = Masks(valid, resets, mask)
    ends = None if order is None else order.ends
    carry, outputs = unrolled(fused_cell, reverse, params, carry, inputs, masks, ends)
    if valid is not None:
        outputs = jnp.where(valid, outputs, 0)
    outputs = outputs.swapaxes(0, 1)
    return (carry, outputs) if order is None else order.unsort((carry, outputs))


def _hidden(carry: Carry) -> jax.Array:
    return carry.h if hasattr(carry, "h") else carry


def _with_hidden(carry: Carry, h: jax.Array) -> Carry:
    return carry._replace(h=h) if hasattr(carry, "h") else h


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _unrolled(
    fused_cell: FusedCell,
    reverse: bool,
    weights: GateParams,
    carry: Carry,
    inputs: jax.Array,
    masks: Masks,
    ends: jax.Array | None,
) -> tuple[Carry, jax.Array]:
    """Inputs [T, B, F] -> the last carry, and every step's h [T, B, H].

    With `ends` rows are sorted by length, and h is zero where a row's level has ended.
    """
    (carry, states), _ = _forward(fused_cell, reverse, weights, carry, inputs, masks, ends)
    return carry, states


def _forward(
    fused_cell: FusedCell,
    reverse: bool,
    weights: GateParams,
    carry: Carry,
    inputs: jax.Array,
    masks: Masks,
    ends: jax.Array | None,
) -> tuple[tuple[Carry, jax.Array], Any]:
    run = ragged.without_ends_under_vmap(partial(_run, fused_cell, reverse))
    last, carries, residuals = run(ends, weights, carry, inputs, masks)
    return (last, _hidden(carries)), (weights, carry, inputs, masks, ends, carries, residuals)


def _run(
    fused_cell: FusedCell,
    reverse: bool,
    ends: jax.Array | None,
    weights: GateParams,
    carry: Carry,
    inputs: jax.Array,
    masks: Masks,
) -> tuple[Carry, Carry, Gates]:
    """Run the forward loop; return the last carry, and every step's carry and residuals."""
    hidden = _hidden(carry).shape[-1]
    precomputed = ends is None and _fits_in_cache(inputs, weights.input_kernel)

    def products(x: jax.Array) -> Gates:
        """Inputs [..., F] -> [..., H] for each gate; separate, as XLA is slow on slices."""
        sides = zip(_split(weights.input_kernel, hidden), _split(weights.bias, hidden), strict=True)
        return tuple(x @ kernel + bias[(None,) * (x.ndim - 1)] for kernel, bias in sides)

    def step(carry: Carry, now: tuple[Any, Masks]) -> tuple[Carry, Any]:
        x, masks_now = now
        if not precomputed:
            x = _split(x @ weights.input_kernel + weights.bias[None], hidden)
        carry = _reset(carry, masks_now.resets)
        h = _masked(_hidden(carry), masks.hidden) @ weights.recurrent_kernel
        if weights.hidden_bias is not None:
            h = h + weights.hidden_bias[None]
        new, residuals = fused_cell.forward(x, _split(h, hidden), carry)
        if masks_now.valid is not None:
            new = jax.tree.map(partial(jnp.where, masks_now.valid), new, carry)
        return new, (new, residuals)

    xs = products(inputs) if precomputed else inputs, masks._replace(hidden=None)
    last, (carries, residuals) = _scan(step, carry, xs, ends, reverse=reverse)
    return last, carries, residuals


def _backward(fused_cell: FusedCell, reverse: bool, saved: Any, gradient: Any) -> tuple[Any, ...]:
    *arrays, ends, carries, residuals = saved
    run = ragged.without_ends_under_vmap(partial(_run_backward, fused_cell, reverse))
    return *run(ends, *arrays, carries, residuals, gradient), None


def _run_backward(
    fused_cell: FusedCell,
    reverse: bool,
    ends: jax.Array | None,
    weights: GateParams,
    first: Carry,
    inputs: jax.Array,
    masks: Masks,
    carries: Carry,
    residuals: Gates,
    gradient: tuple[Carry, jax.Array],
) -> tuple[GateParams, Carry, jax.Array, Masks]:
    """The gradients of the arguments from `weights` to `masks`."""
    d_last, d_states = gradient

    def shift(start: jax.Array, states: jax.Array) -> jax.Array:
        """The carry before each step, [T, B, H]."""
        if not reverse:
            return jnp.concatenate([start[None], states[:-1]])
        before = jnp.concatenate([states[1:], start[None]])
        if ends is None or masks.valid is None:
            return before
        entered = jnp.concatenate([masks.valid[1:], jnp.zeros_like(masks.valid[:1])])
        return jnp.where(entered, before, start[None])  # no step was taken in the padding

    old = _reset(jax.tree.map(shift, first, carries), masks.resets)

    # Transposed once, behind a barrier: XLA would otherwise do it in every step.
    transposed = jax.lax.optimization_barrier(weights.recurrent_kernel.T)

    def step(d: Carry, now: Any) -> tuple[Carry, tuple[jax.Array, jax.Array | None]]:
        d_state, residuals, old, new, masks_now = now
        d = _with_hidden(d, _hidden(d) + d_state)
        skipped = None
        if masks_now.valid is not None:  # padding passed the carry on unchanged
            skipped = jax.tree.map(lambda leaf: jnp.where(masks_now.valid, 0, leaf), d)
            d = jax.tree.map(lambda leaf: jnp.where(masks_now.valid, leaf, 0), d)
        dx, dh, d_old = fused_cell.backward(residuals, old, new, d)
        same = dx is dh
        dh, d_old = jax.lax.optimization_barrier((dh, d_old))
        d_products = jax.lax.optimization_barrier(jnp.concatenate(dh, axis=-1))
        from_products = _masked(d_products @ transposed, masks.hidden)
        d_old = _with_hidden(d_old, _hidden(d_old) + from_products)
        d_old = _reset(d_old, masks_now.resets)
        if skipped is not None:
            d_old = jax.tree.map(jnp.add, d_old, skipped)
        return d_old, (d_products, None if same else jnp.concatenate(dx, axis=-1))

    xs = d_states, residuals, old, carries, masks._replace(hidden=None)
    d_first, (d_hidden, d_inputs) = _scan(step, d_last, xs, ends, reverse=not reverse)
    d_weights, d_x = _outer_gradients(
        weights, masks.hidden, (inputs, _hidden(old), d_hidden, d_inputs), ends
    )
    d_mask = None
    if masks.hidden is not None:
        d_mask = ((d_hidden @ weights.recurrent_kernel.T) * _hidden(old)).sum(0)
    return d_weights, d_first, d_x, Masks(None, None, d_mask)


_unrolled.defvjp(_forward, _backward)


def _outer_gradients(
    weights: GateParams, mask: jax.Array | None, arrays: Any, ends: jax.Array | None
) -> tuple[GateParams, jax.Array]:
    """The gradients of weights and inputs from those of all products, after the loop.

    Args:
      weights: the parameters.
      mask: [B, H], multiplies the h that the gates see; None for no mask.
      arrays: inputs [T, B, F], h before each step [T, B, H], and the gradients of the products
        with h and with the inputs, [T, B, kH]; None if the latter are the same.
      ends: of the sorted rows' levels; None to take all steps at once.
    """

    def gradients(arrays: Any) -> tuple[GateParams, jax.Array]:
        inputs, h, d_hidden, d_inputs = arrays
        d_inputs = d_hidden if d_inputs is None else d_inputs
        d_weights = GateParams(
            input_kernel=_weight_gradient(inputs, d_inputs),
            bias=d_inputs.sum((0, 1)),
            recurrent_kernel=_weight_gradient(_masked(h, mask), d_hidden),
            hidden_bias=None if weights.hidden_bias is None else d_hidden.sum((0, 1)),
        )
        return d_weights, d_inputs @ transposed

    transposed = weights.input_kernel.T
    if ends is None:
        return gradients(arrays)
    transposed = jax.lax.optimization_barrier(transposed)  # once, not for each chunk

    def add(total: GateParams, part: Any) -> tuple[GateParams, jax.Array]:
        d_weights, d_x = gradients(part)
        return jax.tree.map(jnp.add, total, d_weights), d_x

    return ragged.fold(add, jax.tree.map(jnp.zeros_like, weights), arrays, ends)


def _scan(step: Any, carry: Carry, xs: Any, ends: jax.Array | None, *, reverse: bool) -> Any:
    if ends is None:
        return jax.lax.scan(step, carry, xs, reverse=reverse)
    return ragged.scan(step, carry, xs, ends, reverse=reverse)


def _fits_in_cache(inputs: jax.Array, kernel: jax.Array) -> bool:
    """Whether the products with all inputs [T, B, F] are small enough to compute before the loop.

    One large product is faster than many small ones. But if it does not stay in the processor's
    cache until the loop reads it, reading is slower than computing (docs/performance.md). Under
    `vmap` the size is that of one network.
    """
    steps, batch, _ = inputs.shape
    if not (isinstance(steps, int) and isinstance(batch, int)):
        return True  # symbolic, in `jax.export`
    needed = steps * batch * kernel.shape[1] * kernel.dtype.itemsize
    return needed < CACHE_BYTES or jax.default_backend() != "cpu"


def _time_first(flags: jax.Array | None) -> jax.Array | None:
    """[B, T] -> [T, B, 1]."""
    return None if flags is None else flags.T[..., None]


def _weight_gradient(inputs: jax.Array, d_outputs: jax.Array) -> jax.Array:
    """[T, B, F], [T, B, H] -> [F, H], in one product over all steps and rows.

    The two axes are not merged by a reshape: with B sharded over devices, XLA would gather all rows
    on each of them.
    """
    return jnp.tensordot(inputs, d_outputs, ((0, 1), (0, 1)))


def _split(side_by_side: jax.Array, hidden: int) -> Gates:
    return tuple(jnp.split(side_by_side, side_by_side.shape[-1] // hidden, axis=-1))


def _reset(carry: Carry, resets: jax.Array | None) -> Carry:
    """The carry, or its gradient, zeroed where a sequence starts."""
    if resets is None:
        return carry
    return jax.tree.map(lambda leaf: jnp.where(resets, 0, leaf), carry)


def _masked(h: jax.Array, mask: jax.Array | None) -> jax.Array:
    """The h [B, H] or [T, B, H] that the gates see, for the first rows that a mask [B, H] is of."""
    if mask is None:
        return h
    mask = mask[: h.shape[-2]]
    return h * (mask if h.ndim == mask.ndim else mask[None])
