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
from jaxrnn.types import Carry

Gates = tuple[jax.Array, ...]  # one [B, H] array per gate


class GateParams(NamedTuple):
    """A cell's parameters, with those of its k gates concatenated along the last axis."""

    input_kernel: jax.Array  # [F, kH]
    recurrent_kernel: jax.Array  # [H, kH]
    bias: jax.Array  # [kH]: added to the product with the inputs
    hidden_bias: jax.Array | None = None  # [kH]: added to the product with h; None for no such bias


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


def of(cell: nn.RNNCellBase) -> FusedCell:
    """The fused form of a cell that `is_supported`, with its options."""
    fused_cell = FUSED_CELLS[type(cell)]
    return _clipped_lstm(cast(Any, cell).cell_clip) if fused_cell is LSTM else fused_cell


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
