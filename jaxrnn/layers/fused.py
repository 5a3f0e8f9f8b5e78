"""LSTM and GRU layers that compute all gates in one product, with a hand-written backward pass.

They take the same parameters and give the same values and gradients, within rounding, as running
the cell step by step (`scan.scan_cell`), in fewer and larger matrix products:

- the products with the inputs of all time steps are computed before the loop, unless they are too
  large for the cache;
- in each step the gates' products with h are one product, [B, H] x [H, kH] for k gates;
- the backward loop computes only the gradients of the gates. The gradients of the weights, biases
  and inputs are one product each over all time steps after it; differentiating the loop would
  instead add up one product per step.

The first two are sections 3.1.1 and 3.1.4 of Appleyard, Kocisky and Blunsom (2016), "Optimizing
Performance of Recurrent Neural Networks on GPUs". The backward equations are those of Graves
(2012), section 4.6, without peepholes.

JAX cannot differentiate functions with a custom backward pass in forward mode (`jax.jvp`,
`jax.jacfwd`, `jax.hessian`): for that, use `implementation="scan"`.

To give a cell of your own a fused implementation, see `register_fused_cell`.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.cells import GRUCell, LSTMCell
from jaxrnn.cells.lstm import LSTMCarry
from jaxrnn.layers.scan import Steps
from jaxrnn.types import Carry

Gates = tuple[jax.Array, ...]  # one [B, H] array per gate

CACHE_BYTES = 2**23  # products with all inputs are computed before the loop if they fit in this


class GateParams(NamedTuple):
    """A cell's parameters, with those of its k gates concatenated along the last axis."""

    input_kernel: jax.Array  # [F, kH]
    recurrent_kernel: jax.Array  # [H, kH]
    bias: jax.Array  # [kH]: added to the product with the inputs
    hidden_bias: jax.Array | None = None  # [kH]: added to the product with h; None for no such bias


class Masks(NamedTuple):
    """Optional masks; None if unused."""

    valid: jax.Array | None  # [T, B, 1] bool: False at padding
    resets: jax.Array | None  # [T, B, 1] bool: the carry is zeroed before this step
    hidden: jax.Array | None  # [B, H]: multiplies the h that the gates see


class FusedCell(NamedTuple):
    """The forward and backward pass of one step of a cell, without its matrix products.

    Attributes:
      gate_params: (the cell's "params") -> `GateParams`. `concat_gates` does this for cells with
        one dense layer per gate.
      forward: (x, h, carry) -> (new carry, residuals). x and h hold, for each gate, the product
        with the inputs and with the hidden state, [B, H], biases included. Residuals are a tuple of
        arrays that `backward` needs.
      backward: (residuals, old carry, new carry, gradient of the new carry) -> (gradients of x,
        gradients of h, gradient of the old carry). The last one leaves out the path through h.
        Return the same tuple twice if the gradients of x and h are equal.
      supports: (bound cell) -> whether these equations are the cell's, given its options.
    """

    gate_params: Callable[[Any], GateParams]
    forward: Callable[[Gates, Gates, Any], tuple[Any, Gates]]
    backward: Callable[[Gates, Any, Any, Any], tuple[Gates, Gates, Any]]
    supports: Callable[[Any], bool] = lambda cell: True


def register_fused_cell(cell_class: type[nn.RNNCellBase], fused_cell: FusedCell) -> None:
    """Let `Recurrent` run cells of this class with `implementation="fused"` (and "auto").

    The cell's carry must start at zero, and be either its hidden state [B, H] or a NamedTuple of
    [B, H] arrays with the hidden state in field `h`. The cell's output must be that hidden state.
    Subclasses are not included: they may change the equations. docs/layers.md has an example.

    Args:
      cell_class: the Flax cell.
      fused_cell: its forward and backward pass.

    Raises:
      TypeError: if `cell_class` is not a Flax cell class, or `fused_cell` not a `FusedCell`.
      ValueError: if the class is registered already.
    """
    if not (isinstance(cell_class, type) and issubclass(cell_class, nn.RNNCellBase)):
        raise TypeError(f"cell_class must be a class of Flax cells, not {cell_class!r}")
    if not isinstance(fused_cell, FusedCell):
        raise TypeError(f"fused_cell must be a FusedCell, not {type(fused_cell).__name__}")
    if FUSED_CELLS.setdefault(cell_class, fused_cell) != fused_cell:
        raise ValueError(f"{cell_class.__name__} has a fused implementation already")


def is_supported(cell: nn.RNNCellBase, carry: Carry, inputs: jax.Array) -> bool:
    """Whether a layer of this bound cell can be fused: default options, a single dtype."""
    fused_cell = FUSED_CELLS.get(type(cell))
    # If parameters are missing, the cell's own error message is the better one.
    if fused_cell is None or not cell.variables.get("params"):
        return False
    zeros = nn.initializers.zeros
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((carry, cell.variables, inputs))}
    return (
        fused_cell.supports(cell)
        and getattr(cell, "carry_init", zeros) is zeros
        and len(dtypes) == 1
        and getattr(cell, "dtype", None) in (None, inputs.dtype)
    )


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
    fused_cell = FUSED_CELLS[type(cell)]
    if fused_cell is LSTM:
        fused_cell = _clipped_lstm(cast(Any, cell).cell_clip)
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
    valid, resets = _time_first(steps.valid), _time_first(steps.resets)
    inputs = steps.inputs.swapaxes(0, 1)
    unrolled: Any = _unrolled  # custom_vjp loses the function's type
    masks = Masks(valid, resets, mask)
    carry, outputs = unrolled(fused_cell, reverse, params, carry, inputs, masks)
    if valid is not None:
        outputs = jnp.where(valid, outputs, 0)
    return carry, outputs.swapaxes(0, 1)


def concat_gates(params: Any, *, gates: str, bias: str) -> GateParams:
    """Concatenate the parameters of a Flax cell with dense layers called i and h plus a gate.

    Args:
      params: the cell's, such as {"ii": {"kernel": [F, H]}, "hi": {"kernel": [H, H], "bias": [H]}}.
      gates: a letter for each gate, in the order to concatenate them.
      bias: "h" if the dense layers over h have the biases; "i" if those over the inputs have them,
        and over h only the last gate's does (a GRU).
    """
    input_kernel, recurrent_kernel = (
        jnp.concatenate([params[side + gate]["kernel"] for gate in gates], axis=1) for side in "ih"
    )
    biases = jnp.concatenate([params[bias + gate]["bias"] for gate in gates])
    if bias == "h":
        return GateParams(input_kernel, recurrent_kernel, biases)
    candidate = params["h" + gates[-1]]["bias"]
    return GateParams(input_kernel, recurrent_kernel, biases, pad_hidden_bias(candidate, biases))


def pad_hidden_bias(candidate: jax.Array, bias: jax.Array) -> jax.Array:
    """A GRU's hidden bias [3H] from that of its candidate [H]: zero for r and z."""
    return jnp.pad(candidate, (bias.size - candidate.size, 0))


def _lstm_forward(
    x: Gates, h: Gates, carry: LSTMCarry, clip: float | None = None
) -> tuple[LSTMCarry, Gates]:
    i, f, g, o = (a + b for a, b in zip(x, h, strict=True))
    i, f, g, o = nn.sigmoid(i), nn.sigmoid(f), jnp.tanh(g), nn.sigmoid(o)
    c = f * carry.c + i * g
    if clip is not None:
        c = jnp.clip(c, -clip, clip)
    return LSTMCarry(c, o * jnp.tanh(c)), (i, f, g, o)


def _lstm_backward(
    residuals: Gates,
    carry: LSTMCarry,
    new: LSTMCarry,
    d: LSTMCarry,
    clip: float | None = None,
) -> tuple[Gates, Gates, LSTMCarry]:
    i, f, g, o = residuals
    squashed = jnp.tanh(new.c)
    dc = d.c + d.h * o * (1 - squashed * squashed)
    if clip is not None:
        dc = jnp.where(jnp.abs(new.c) < clip, dc, 0)
    do = d.h * squashed * (o * (1 - o))
    di, df, dg = dc * g * (i * (1 - i)), dc * carry.c * (f * (1 - f)), dc * i * (1 - g * g)
    gates = di, df, dg, do
    return gates, gates, LSTMCarry(dc * f, jnp.zeros_like(d.h))


def _gru_forward(x: Gates, h: Gates, carry: jax.Array) -> tuple[jax.Array, Gates]:
    r, z = nn.sigmoid(x[0] + h[0]), nn.sigmoid(x[1] + h[1])
    n = jnp.tanh(x[2] + r * h[2])
    return (1 - z) * n + z * carry, (r, z, n, h[2])


def _gru_backward(
    residuals: Gates, carry: jax.Array, new: jax.Array, d: jax.Array
) -> tuple[Gates, Gates, jax.Array]:
    del new
    r, z, n, hn = residuals
    dn = d * (1 - z) * (1 - n * n)
    dz = d * (carry - n) * (z * (1 - z))
    dr = dn * hn * (r * (1 - r))
    return (dr, dz, dn), (dr, dz, dn * r), d * z


def _has_default_options(cell: Any, gates: str) -> bool:
    expected = {side + gate for side in "ih" for gate in gates}
    return (
        cell.gate_fn is nn.sigmoid
        and cell.activation_fn is nn.tanh
        and cell.variables["params"].keys() == expected
    )


LSTM = FusedCell(
    partial(concat_gates, gates="ifgo", bias="h"),
    _lstm_forward,
    _lstm_backward,
    lambda cell: _has_default_options(cell, "ifgo") and not (cell.peepholes or cell.layer_norm),
)


@cache  # so that equal cells have equal functions, which are compiled once
def _clipped_lstm(clip: float | None) -> FusedCell:
    """The LSTM of cells with this `cell_clip`."""
    if clip is None:
        return LSTM
    return LSTM._replace(
        forward=partial(_lstm_forward, clip=clip), backward=partial(_lstm_backward, clip=clip)
    )


GRU = FusedCell(
    partial(concat_gates, gates="rzn", bias="i"),
    _gru_forward,
    _gru_backward,
    lambda cell: _has_default_options(cell, "rzn") and cell.reset_after,
)

FUSED_CELLS: dict[type[nn.RNNCellBase], FusedCell] = {LSTMCell: LSTM, GRUCell: GRU}
"""The cells that can be fused. Use `register_fused_cell` to add one."""


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
) -> tuple[Carry, jax.Array]:
    """Inputs [T, B, F] -> the last carry, and every step's h [T, B, H]."""
    (carry, states), _ = _forward(fused_cell, reverse, weights, carry, inputs, masks)
    return carry, states


def _forward(
    fused_cell: FusedCell,
    reverse: bool,
    weights: GateParams,
    carry: Carry,
    inputs: jax.Array,
    masks: Masks,
) -> tuple[tuple[Carry, jax.Array], Any]:
    hidden = _hidden(carry).shape[-1]
    precomputed = _fits_in_cache(inputs, weights.input_kernel)

    def products(x: jax.Array) -> Gates:
        """Inputs [..., F] -> [..., H] for each gate; separate, as XLA is slow on slices."""
        sides = zip(_split(weights.input_kernel, hidden), _split(weights.bias, hidden), strict=True)
        return tuple(x @ kernel + bias[(None,) * (x.ndim - 1)] for kernel, bias in sides)

    def step(carry: Carry, now: tuple[Any, Masks]) -> tuple[Carry, Any]:
        x, masks_now = now
        if not precomputed:
            x = _split(x @ weights.input_kernel + weights.bias[None], hidden)
        carry = _reset(carry, masks_now.resets)
        h = _masked_hidden(carry, masks.hidden) @ weights.recurrent_kernel
        if weights.hidden_bias is not None:
            h = h + weights.hidden_bias[None]
        new, residuals = fused_cell.forward(x, _split(h, hidden), carry)
        if masks_now.valid is not None:
            new = jax.tree.map(partial(jnp.where, masks_now.valid), new, carry)
        return new, (new, residuals)

    last, (carries, residuals) = jax.lax.scan(
        step,
        carry,
        (products(inputs) if precomputed else inputs, masks._replace(hidden=None)),
        reverse=reverse,
    )
    return (last, _hidden(carries)), (weights, carry, inputs, masks, carries, residuals)


def _backward(fused_cell: FusedCell, reverse: bool, saved: Any, gradient: Any) -> tuple[Any, ...]:
    weights, first, inputs, masks, carries, residuals = saved
    d_last, d_states = gradient

    def shift(start: jax.Array, states: jax.Array) -> jax.Array:
        """The carry before each step, [T, B, H]."""
        if reverse:
            return jnp.concatenate([states[1:], start[None]])
        return jnp.concatenate([start[None], states[:-1]])

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
        from_products = _multiply(d_products @ transposed, masks.hidden)
        d_old = _with_hidden(d_old, _hidden(d_old) + from_products)
        d_old = _reset(d_old, masks_now.resets)
        if skipped is not None:
            d_old = jax.tree.map(jnp.add, d_old, skipped)
        return d_old, (d_products, None if same else jnp.concatenate(dx, axis=-1))

    d_first, (d_hidden, d_inputs) = jax.lax.scan(
        step,
        d_last,
        (d_states, residuals, old, carries, masks._replace(hidden=None)),
        reverse=not reverse,
    )
    d_inputs = d_hidden if d_inputs is None else d_inputs
    d_weights = GateParams(
        input_kernel=_weight_gradient(inputs, d_inputs),
        bias=d_inputs.sum((0, 1)),
        recurrent_kernel=_weight_gradient(_masked_hidden(old, masks.hidden), d_hidden),
        hidden_bias=None if weights.hidden_bias is None else d_hidden.sum((0, 1)),
    )
    d_mask = None
    if masks.hidden is not None:
        d_mask = ((d_hidden @ weights.recurrent_kernel.T) * _hidden(old)).sum(0)
    d_x = d_inputs @ weights.input_kernel.T
    return d_weights, d_first, d_x, Masks(None, None, d_mask)


_unrolled.defvjp(_forward, _backward)


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


def _masked_hidden(carry: Carry, mask: jax.Array | None) -> jax.Array:
    """The h that the gates see."""
    return _multiply(_hidden(carry), mask)


def _multiply(h: jax.Array, mask: jax.Array | None) -> jax.Array:
    return h if mask is None else h * (mask if h.ndim == mask.ndim else mask[None])
