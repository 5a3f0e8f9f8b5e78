"""LSTM and GRU layers that compute all time steps in parallel, by Newton's method.

The states of all steps solve s_t = f(s_{t-1}, x_t). From a guess s, each iteration evaluates f and
its Jacobians J_t at all steps at once, and adds the solution d of the linear recurrence

    d_t = J_t d_{t-1} + r_t,        r_t = f(s_{t-1}, x_t) - s_t,

by an associative scan. Where dynamics do not amplify differences, as in most networks, a handful of
iterations reach rounding. Lim et al. (2023), "Parallelizing non-linear sequential models over the
sequence length", arXiv 2309.12252.

The state, [B, N], is h of a GRU (N = H), and c and h of an LSTM (N = 2H). The Jacobians are the
full matrices [N, N]. Keeping only their diagonals (Gonzalez et al. 2024, arXiv 2407.19115) leads to
the same states, but took 3 to 7 times as many iterations (docs/performance.md), and would need them
for the gradient, too.

By the implicit function theorem, gradients need no iterations: one linear recurrence, backwards
over the Jacobians of the solution. Forward-mode derivatives are not supported.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.core import Tracer

from jaxrnn.cells.lstm import LSTMCarry
from jaxrnn.layers import fused
from jaxrnn.layers.fused import FusedCell, GateParams
from jaxrnn.layers.fused_loop import Masks
from jaxrnn.layers.scan import Steps
from jaxrnn.types import Carry

MAX_ITERATIONS = 50  # a layer that needs more is better run step by step
TOLERANCE = 4  # times sqrt(H) units of rounding, as f has sums of H terms


def unsupported_reason(cell: nn.RNNCellBase, carry: Carry, steps: Steps) -> str:
    """Why Newton's method cannot run this layer, to follow "newton needs"; empty if it can."""
    if not fused.is_supported(cell, carry, steps.inputs):
        return "an LSTM or GRU with default options and a single dtype"
    if steps.inputs.dtype not in (jnp.float32, jnp.float64):
        return f"float32 or float64, not {steps.inputs.dtype}"
    if not isinstance(length := steps.inputs.shape[1], int):
        return f"a known T, not the symbolic T = {length}"
    return ""


def newton_scan(
    cell: nn.RNNCellBase, carry: Carry, steps: Steps, mask: jax.Array | None, *, reverse: bool
) -> tuple[Carry, jax.Array]:
    """Run a layer that has no `unsupported_reason`; called like the functions in `scan`.

    Returns:
      the last carry, and outputs [B, T, H]; all NaN in a row that did not converge.

    Raises:
      FloatingPointError: if a row did not converge and this is known: not inside `jit` or `vmap`,
        nor in chunks.
    """
    fused_cell = fused.of(cell)
    params = fused_cell.gate_params(cell.variables["params"])
    in_order = partial(jnp.flip, axis=0) if reverse else lambda array: array
    inputs, valid, resets = (
        None if part is None else in_order(part.swapaxes(0, 1)) for part in steps
    )
    valid, resets = (None if flags is None else flags[..., None] for flags in (valid, resets))
    first = jnp.concatenate(jax.tree.leaves(carry), axis=-1)
    solved: Any = _solved  # custom_vjp loses the function's type
    states = solved(fused_cell, params, first, inputs, Masks(valid, resets, mask))
    hidden = params.recurrent_kernel.shape[0]
    outputs = states[..., -hidden:]
    if valid is not None:
        outputs = jnp.where(valid, outputs, 0)
    return _to_carry(states[-1], hidden), in_order(outputs).swapaxes(0, 1)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _solved(
    fused_cell: FusedCell, params: GateParams, first: jax.Array, inputs: jax.Array, masks: Masks
) -> jax.Array:
    """First state [B, N], inputs [T, B, F] -> the state after every step, [T, B, N]."""
    states, converged = _solve(fused_cell, params, first, inputs, masks)
    if not isinstance(converged, Tracer) and not converged.all():
        raise FloatingPointError(
            f"newton did not converge in {MAX_ITERATIONS} iterations (row"
            f" {jnp.flatnonzero(~converged)[0]}), or inputs or parameters are not finite:"
            " use implementation='auto'"
        )
    return jnp.where(converged[None, :, None], states, jnp.nan)


def _forward(fused_cell: FusedCell, *arguments: Any) -> tuple[jax.Array, Any]:
    solved: Any = _solved
    states = solved(fused_cell, *arguments)  # not _solve: this has second derivatives, too
    return states, (states, *arguments)


@partial(jax.jit, static_argnums=0)
def _backward(fused_cell: FusedCell, saved: Any, d_states: jax.Array) -> tuple[Any, ...]:
    states, params, first, inputs, masks = saved

    def steps(params: GateParams, first: jax.Array, inputs: jax.Array, hidden: Any) -> Any:
        return _steps(fused_cell, params, first, states, inputs, masks._replace(hidden=hidden))

    _, pull, jacobians = jax.vjp(steps, params, first, inputs, masks.hidden, has_aux=True)
    # A state's gradient is its own and, through the next step, that of the next state.
    following = jnp.roll(jacobians.mT, -1, axis=0)  # the last has no next: it is not used
    d_params, d_first, d_inputs, d_hidden = pull(_recurrence(following, d_states, reverse=True))
    return d_params, d_first, d_inputs, Masks(None, None, d_hidden)


_solved.defvjp(_forward, _backward)


@partial(jax.jit, static_argnums=0)
def _solve(
    fused_cell: FusedCell, params: GateParams, first: jax.Array, inputs: jax.Array, masks: Masks
) -> tuple[jax.Array, jax.Array]:
    """The states [T, B, N], and which rows are solutions, [B] bool."""
    size = params.recurrent_kernel.shape[0]
    limit = TOLERANCE * math.sqrt(size)

    def steps(states: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _steps(fused_cell, params, first, states, inputs, masks)

    def residual(states: jax.Array) -> jax.Array:
        """The largest of each row, [B], in units of rounding; NaN if f is."""
        kind = jnp.finfo(states.dtype)
        scale = jnp.abs(states[..., -size:]).max((0, 2))[None, :, None]  # of h
        scale = jnp.maximum(jnp.maximum(jnp.abs(states), scale), kind.tiny)
        return (jnp.abs(steps(states)[0] - states) / scale).max((0, 2)) / kind.eps

    def iterate(loop: tuple[jax.Array, jax.Array, jax.Array]) -> Any:
        count, states, _ = loop
        new, jacobians = steps(states)
        change = _recurrence(jacobians, new - states)
        # Where products of Jacobians overflow, only f is taken. It is exact after exact states, so
        # at least one more is exact after each iteration, whatever happens later in time.
        rest = jnp.where(jnp.isfinite(change), change - (new - states), 0)
        return count + 1, new + rest, residual(new + rest)

    guess = jnp.zeros((inputs.shape[0], *first.shape), first.dtype)
    _, states, off = jax.lax.while_loop(
        lambda loop: (loop[0] < MAX_ITERATIONS) & (loop[2] > limit).any(),  # NaN is not waited for
        iterate,
        (jnp.zeros((), jnp.int32), guess, residual(guess)),
    )
    return states, off <= limit


def _steps(
    fused_cell: FusedCell,
    params: GateParams,
    first: jax.Array,
    states: jax.Array,
    inputs: jax.Array,
    masks: Masks,
) -> tuple[jax.Array, jax.Array]:
    """All steps at once, each from the state before it: new states [T, B, N], and Jacobians."""
    size, axes = params.recurrent_kernel.shape[0], inputs.shape[:2]
    kernel = params.recurrent_kernel.reshape(size, -1, size)  # [H, k, H]
    old = jnp.concatenate([first[None], states[:-1]])
    x = inputs @ params.input_kernel + params.bias[None, None]

    def seen(h: jax.Array) -> jax.Array:
        """What the gates see of h."""
        h = h if masks.resets is None else jnp.where(masks.resets, 0, h)
        return h if masks.hidden is None else h * masks.hidden[None]

    def pointwise(products: jax.Array, old: jax.Array) -> jax.Array:
        """A step after its products, in which each unit sees only itself."""
        carry = old if masks.resets is None else jnp.where(masks.resets, 0, old)
        gates = kernel.shape[1]
        from_x, from_h = (tuple(jnp.split(part, gates, axis=-1)) for part in (x, products))
        new, _ = fused_cell.forward(from_x, from_h, _to_carry(carry, size))
        new = jnp.concatenate(jax.tree.leaves(new), axis=-1)
        return new if masks.valid is None else jnp.where(masks.valid, new, old)

    # In TF32, a GPU's default, residuals would never become small.
    products = jnp.matmul(seen(old[..., -size:]), params.recurrent_kernel, precision="highest")
    if params.hidden_bias is not None:
        products = products + params.hidden_bias[None, None]
    new, pull = jax.vjp(pointwise, products, old)

    factors = seen(jnp.ones_like(old[..., -size:]))[..., None, :]
    eye = jnp.eye(size, dtype=old.dtype)[None, None, :, None]
    rows = []
    for part in range(old.shape[-1] // size):  # c and h, or h
        ones = jnp.zeros_like(old).at[..., part * size : (part + 1) * size].set(1)
        d_products, d_old = (d.reshape(*axes, -1, size) for d in pull(ones))
        through = jnp.einsum("tbki,jki->tbij", d_products, kernel, precision="highest") * factors
        own = d_old[..., None, :, :] * eye  # [T, B, H, N/H, H]
        rows.append(own.at[..., -1, :].add(through).reshape(*axes, size, -1))
    return new, jnp.concatenate(rows, axis=-2)


def _recurrence(matrices: jax.Array, drives: jax.Array, *, reverse: bool = False) -> jax.Array:
    """Solve d_t = M_t d_{t-1} + r_t for d [T, B, N], from d = 0; M is [T, B, N, N]."""
    multiply = partial(jnp.einsum, precision="highest")

    def combine(first: Any, second: Any) -> Any:
        matrix = multiply("...ij,...jk->...ik", second[0], first[0])
        return matrix, multiply("...ij,...j->...i", second[0], first[1]) + second[1]

    return jax.lax.associative_scan(combine, (matrices, drives), reverse=reverse)[1]


def _to_carry(state: jax.Array, size: int) -> Carry:
    """The cell's carry of a state [..., N]."""
    return state if state.shape[-1] == size else LSTMCarry(*jnp.split(state, 2, axis=-1))
