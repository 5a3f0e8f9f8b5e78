"""LSTM and GRU layers whose gates are computed together, and whose backward pass is written out.

The same parameters, values and gradients as step by step with the cell (`unroll.in_turn`), but for
rounding, in fewer and larger products:

- the products with the inputs of all time steps are made before the loop, unless they are large;
- in a step, the gates' products with h are one, [B, H] x [H, kH], for k gates;
- the backward loop makes only the gradients of the gates; those of the weights, biases and inputs
  are one product each over all time steps after it, where differentiating the loop would add up
  a product a step.

Appleyard, Kocisky and Blunsom (2016), "Optimizing Performance of Recurrent Neural Networks on
GPUs", sections 3.1.1 and 3.1.4, have the first two. Backward the equations are those of Graves
(2012), section 4.6, without peepholes.

Like every function with a derivative of its own, these have none in forward mode (`jax.jvp`,
`jax.jacfwd`, `jax.hessian`): for that, a layer takes `implementation="scan"`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.cells import GRUCell, LSTMCell
from jaxrnn.cells.lstm import LSTMCarry
from jaxrnn.layers.scan import Steps
from jaxrnn.types import Carry

Parts = tuple[jax.Array, ...]  # [B, H] each, one a gate

CACHE = 2**23  # bytes, of the products with all inputs


class Weights(NamedTuple):
    """A cell's parameters, the gates' side by side."""

    kernel: jax.Array  # [F, kH]
    bias: jax.Array  # [kH]
    recurrent: jax.Array  # [H, kH]
    hidden_bias: jax.Array | None  # [kH]: added to the product with h, where that is a difference


class Masks(NamedTuple):
    """What is not as in the plain case; None where it is."""

    counts: jax.Array | None  # [T, B, 1] bool: whether the step belongs to the row
    anew: jax.Array | None  # [T, B, 1] bool: whether the carry is zero again before it
    hidden: jax.Array | None  # [B, H]: multiplies the h that the gates see


class FusedCell(NamedTuple):
    """One step of a recurrence and its derivative, once the products are made."""

    gates: str  # in their order side by side
    bias: str  # which dense layers have their biases: those over "h", or those over "i", the inputs
    # (products with x, products with h, carry) -> (new carry, what `backward` needs)
    forward: Callable[[Parts, Parts, Any], tuple[Any, Parts]]
    # (what `forward` kept, old carry, new carry, gradient of the new carry) -> gradients of the
    # products with x, of those with h, and of the old carry, but for its way through the products
    backward: Callable[[Parts, Any, Any, Any], tuple[Parts, Parts, Any]]


def is_supported(cell: nn.RNNCellBase, carry: Carry, inputs: jax.Array) -> bool:
    """Whether a layer of this cell can be computed here: all of one type, and nothing unusual."""
    if type(cell) is LSTMCell:
        usual = not cell.peepholes and not cell.layer_norm
    elif type(cell) is GRUCell:
        usual = cell.reset_after
    else:
        return False
    gates = FUSED_CELLS[type(cell)].gates
    usual &= cell.gate_fn is nn.sigmoid and cell.activation_fn is nn.tanh
    usual &= cell.carry_init is nn.initializers.zeros
    types = {leaf.dtype for leaf in jax.tree.leaves((carry, cell.variables, inputs))}
    same = len(types) == 1 and cell.dtype in (None, inputs.dtype)
    params = cell.variables.get("params", {})
    there = {side + gate for side in "ih" for gate in gates} == params.keys()
    return bool(usual) and same and there  # of missing parameters the cell itself says so


def fused(
    cell: nn.RNNCellBase, carry: Carry, steps: Steps, mask: jax.Array | None, *, reverse: bool
) -> tuple[Carry, jax.Array]:
    """A layer over time, where this one `applies`; called as the functions of `unroll`.

    Args:
      cell: with its parameters bound.
      carry: before the first step, [B, H] each.
      steps: inputs [B, T, F], and which of them count and where the carry is zero again.
      mask: [B, H], what the h that the gates see is multiplied by; None for 1.
      reverse: whether time runs backwards.

    Returns:
      the last carry, and outputs [B, T, H].
    """
    rule = FUSED_CELLS[type(cell)]
    counts, anew = _time_first(steps.counts), _time_first(steps.anew)
    weights, inputs = concat_gates(rule, cell.variables["params"]), steps.inputs.swapaxes(0, 1)
    unrolled: Any = _unrolled  # its type does not tell what it returns
    carry, outputs = unrolled(rule, reverse, weights, carry, inputs, Masks(counts, anew, mask))
    if counts is not None:
        outputs = jnp.where(counts, outputs, 0)
    return carry, outputs.swapaxes(0, 1)


def concat_gates(rule: FusedCell, params: Any) -> Weights:
    """A cell's parameters, the gates' side by side; of a GRU the last gate has a second bias."""
    kernel, recurrent = (
        jnp.concatenate([params[side + gate]["kernel"] for gate in rule.gates], axis=1)
        for side in "ih"
    )
    bias = jnp.concatenate([params[rule.bias + gate]["bias"] for gate in rule.gates])
    if rule.bias == "h":
        return Weights(kernel, bias, recurrent, None)
    last = params["h" + rule.gates[-1]]["bias"]
    return Weights(kernel, bias, recurrent, jnp.pad(last, (bias.size - last.size, 0)))


def _lstm_forward(x: Parts, h: Parts, carry: LSTMCarry) -> tuple[LSTMCarry, Parts]:
    i, f, g, o = (a + b for a, b in zip(x, h, strict=True))
    i, f, g, o = nn.sigmoid(i), nn.sigmoid(f), jnp.tanh(g), nn.sigmoid(o)
    c = f * carry.c + i * g
    return LSTMCarry(c, o * jnp.tanh(c)), (i, f, g, o)


def _lstm_backward(
    kept: Parts, carry: LSTMCarry, new: LSTMCarry, d: LSTMCarry
) -> tuple[Parts, Parts, LSTMCarry]:
    i, f, g, o = kept
    squashed = jnp.tanh(new.c)
    dc = d.c + d.h * o * (1 - squashed * squashed)
    do = d.h * squashed * (o * (1 - o))
    di, df, dg = dc * g * (i * (1 - i)), dc * carry.c * (f * (1 - f)), dc * i * (1 - g * g)
    gates = di, df, dg, do
    return gates, gates, LSTMCarry(dc * f, jnp.zeros_like(d.h))


def _gru_forward(x: Parts, h: Parts, carry: jax.Array) -> tuple[jax.Array, Parts]:
    r, z = nn.sigmoid(x[0] + h[0]), nn.sigmoid(x[1] + h[1])
    n = jnp.tanh(x[2] + r * h[2])
    return (1 - z) * n + z * carry, (r, z, n, h[2])


def _gru_backward(
    kept: Parts, carry: jax.Array, new: jax.Array, d: jax.Array
) -> tuple[Parts, Parts, jax.Array]:
    del new
    r, z, n, hn = kept
    dn = d * (1 - z) * (1 - n * n)
    dz = d * (carry - n) * (z * (1 - z))
    dr = dn * hn * (r * (1 - r))
    return (dr, dz, dn), (dr, dz, dn * r), d * z


FUSED_CELLS: dict[type[nn.RNNCellBase], FusedCell] = {
    LSTMCell: FusedCell("ifgo", "h", _lstm_forward, _lstm_backward),
    GRUCell: FusedCell("rzn", "i", _gru_forward, _gru_backward),
}


def _hidden(carry: Carry) -> jax.Array:
    return carry.h if isinstance(carry, LSTMCarry) else carry


def _with_hidden(carry: Carry, h: jax.Array) -> Carry:
    return carry._replace(h=h) if isinstance(carry, LSTMCarry) else h


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _unrolled(
    rule: FusedCell, reverse: bool, weights: Weights, carry: Carry, inputs: jax.Array, masks: Masks
) -> tuple[Carry, jax.Array]:
    """Inputs [T, B, F] -> the last carry, and every step's h [T, B, H]."""
    (carry, states), _ = _forward(rule, reverse, weights, carry, inputs, masks)
    return carry, states


def _forward(
    rule: FusedCell, reverse: bool, weights: Weights, carry: Carry, inputs: jax.Array, masks: Masks
) -> tuple[tuple[Carry, jax.Array], Any]:
    hidden = _hidden(carry).shape[-1]
    before = _before_the_loop(inputs, weights.kernel)

    def products(x: jax.Array) -> Parts:
        """Of inputs [..., F], each gate's [..., H]: apart, as of slices XLA makes slow loops."""
        sides = zip(_split(weights.kernel, hidden), _split(weights.bias, hidden), strict=True)
        return tuple(x @ kernel + bias[(None,) * (x.ndim - 1)] for kernel, bias in sides)

    def step(carry: Carry, now: tuple[Any, Masks]) -> tuple[Carry, Any]:
        x, masks_now = now
        if not before:
            x = _split(x @ weights.kernel + weights.bias[None], hidden)
        carry = _anew(carry, masks_now.anew)
        h = _seen(carry, masks.hidden) @ weights.recurrent
        if weights.hidden_bias is not None:
            h = h + weights.hidden_bias[None]
        new, kept = rule.forward(x, _split(h, hidden), carry)
        if masks_now.counts is not None:
            new = jax.tree.map(partial(jnp.where, masks_now.counts), new, carry)
        return new, (new, kept)

    last, (carries, kept) = jax.lax.scan(
        step,
        carry,
        (products(inputs) if before else inputs, masks._replace(hidden=None)),
        reverse=reverse,
    )
    return (last, _hidden(carries)), (weights, carry, inputs, masks, carries, kept)


def _backward(rule: FusedCell, reverse: bool, saved: Any, gradient: Any) -> tuple[Any, ...]:
    weights, first, inputs, masks, carries, kept = saved
    d_last, d_states = gradient

    def before(start: jax.Array, states: jax.Array) -> jax.Array:
        """The carry that each step began with, [T, B, H]."""
        if reverse:
            return jnp.concatenate([states[1:], start[None]])
        return jnp.concatenate([start[None], states[:-1]])

    old = _anew(jax.tree.map(before, first, carries), masks.anew)

    # Turned round once, behind a barrier: XLA would else do it in every step's product.
    back = jax.lax.optimization_barrier(weights.recurrent.T)

    def step(d: Carry, now: Any) -> tuple[Carry, tuple[jax.Array, jax.Array | None]]:
        d_state, kept, old, new, masks_now = now
        d = _with_hidden(d, _hidden(d) + d_state)
        past = None
        if masks_now.counts is not None:  # where it does not count, the carry went by unchanged
            past = jax.tree.map(lambda leaf: jnp.where(masks_now.counts, 0, leaf), d)
            d = jax.tree.map(lambda leaf: jnp.where(masks_now.counts, leaf, 0), d)
        dx, dh, d_old = rule.backward(kept, old, new, d)
        same = dx is dh
        dh, d_old = jax.lax.optimization_barrier((dh, d_old))
        d_products = jax.lax.optimization_barrier(jnp.concatenate(dh, axis=-1))
        through = _times(d_products @ back, masks.hidden)
        d_old = _with_hidden(d_old, _hidden(d_old) + through)
        d_old = _anew(d_old, masks_now.anew)
        if past is not None:
            d_old = jax.tree.map(jnp.add, d_old, past)
        return d_old, (d_products, None if same else jnp.concatenate(dx, axis=-1))

    d_first, (d_hidden, d_inputs) = jax.lax.scan(
        step,
        d_last,
        (d_states, kept, old, carries, masks._replace(hidden=None)),
        reverse=not reverse,
    )
    d_inputs = d_hidden if d_inputs is None else d_inputs
    d_weights = Weights(
        _flat(inputs).T @ _flat(d_inputs),
        d_inputs.sum((0, 1)),
        _flat(_seen(old, masks.hidden)).T @ _flat(d_hidden),
        None if weights.hidden_bias is None else d_hidden.sum((0, 1)),
    )
    d_mask = None
    if masks.hidden is not None:
        d_mask = ((d_hidden @ weights.recurrent.T) * _hidden(old)).sum(0)
    d_x = (_flat(d_inputs) @ weights.kernel.T).reshape(inputs.shape)
    return d_weights, d_first, d_x, Masks(None, None, d_mask)


_unrolled.defvjp(_forward, _backward)


def _before_the_loop(inputs: jax.Array, kernel: jax.Array) -> bool:
    """Whether the products with all inputs [T, B, F] are made before the loop over time.

    Each of them is then larger; but what a processor's caches do not hold until the loop comes to
    it is slower to fetch than to compute (docs/performance.md). Under `vmap` each network counts by
    itself.
    """
    steps, batch, _ = inputs.shape
    needed = steps * batch * kernel.shape[1] * kernel.dtype.itemsize
    return needed < CACHE or jax.default_backend() != "cpu"


def _time_first(flags: jax.Array | None) -> jax.Array | None:
    """[B, T] -> [T, B, 1]."""
    return None if flags is None else flags.T[..., None]


def _flat(steps: jax.Array) -> jax.Array:
    """[T, B, ...] -> [T * B, ...]: of two axes in one, XLA makes one product."""
    return steps.reshape(-1, steps.shape[-1])


def _split(concat_gates: jax.Array, hidden: int) -> Parts:
    return tuple(jnp.split(concat_gates, concat_gates.shape[-1] // hidden, axis=-1))


def _anew(carry: Carry, anew: jax.Array | None) -> Carry:
    """The carry, zero where a sequence starts; its gradient likewise."""
    if anew is None:
        return carry
    return jax.tree.map(lambda leaf: jnp.where(anew, 0, leaf), carry)


def _seen(carry: Carry, mask: jax.Array | None) -> jax.Array:
    """The h that the gates see."""
    return _times(_hidden(carry), mask)


def _times(h: jax.Array, mask: jax.Array | None) -> jax.Array:
    return h if mask is None else h * (mask if h.ndim == mask.ndim else mask[None])
