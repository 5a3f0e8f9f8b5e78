"""LSTM and GRU layers as pure functions of their parameters, for use without Flax linen.

They run the same fused code as `Recurrent`: the gates of a step in one product, and a hand-written
backward pass (see `fused`). docs/layers.md uses them from plain JAX, Flax NNX, Equinox and Haiku.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrnn.cells.lstm import LSTMCarry
from jaxrnn.checks import check_axes, check_kind, describe_carry
from jaxrnn.layers import fused, fused_loop
from jaxrnn.layers.explicit import accepts_explicit_rows
from jaxrnn.layers.scan import check_sequence, make_steps


class LSTMParams(NamedTuple):
    """Parameters of `lstm`. The last axis holds the gates i, f, g, o, each of size H."""

    input_kernel: jax.Array  # [F, 4H]
    recurrent_kernel: jax.Array  # [H, 4H]
    bias: jax.Array  # [4H]


class GRUParams(NamedTuple):
    """Parameters of `gru`. The last axis holds the gates r, z, n, each of size H."""

    input_kernel: jax.Array  # [F, 3H]
    recurrent_kernel: jax.Array  # [H, 3H]
    bias: jax.Array  # [3H]
    hidden_bias: jax.Array  # [H]: of n alone, inside the product with the reset gate


@accepts_explicit_rows
def lstm(
    params: LSTMParams,
    inputs: jax.Array,
    carry: LSTMCarry | None = None,
    *,
    lengths: jax.Array | None = None,
    resets: jax.Array | None = None,
    reverse: bool = False,
) -> tuple[jax.Array, LSTMCarry]:
    """Run an LSTM over time.

        i, f, o = sigmoid(x W_i + h U_i + b_i), likewise f and o      g = tanh(x W_g + h U_g + b_g)
        c' = f * c + i * g                                            h' = o * tanh(c')

    Nothing is added to the forget gate's bias: if you want to start it at 1, say so in `bias`.
    Not differentiable in forward mode (`jax.jvp`).

    Source: Hochreiter and Schmidhuber (1997); Gers et al. (2000).

    Args:
      params: input_kernel [F, 4H], recurrent_kernel [H, 4H] and bias [4H], gates i, f, g, o.
      inputs: [B, T, F] float, of the same dtype as the parameters.
      carry: cell state c and hidden state h before the first step, [B, H] each; None for zeros.
      lengths: [B] int in 0..T, number of steps in each row; None for T. Inputs past the length have
        no effect and get a gradient of zero.
      resets: [B, T] bool, True where a new sequence starts and the carry is zeroed.
      reverse: run from each row's last step to its first.

    Returns:
      outputs [B, T, H], zero past each row's length, and the carry after each row's last step (its
      first step, if `reverse`).

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if shapes do not match, or a length is out of range.

    >>> params = LSTMParams(jnp.ones((3, 16)), jnp.ones((4, 16)), jnp.zeros(16))
    >>> outputs, carry = lstm(params, jnp.ones((2, 7, 3)), lengths=jnp.array([7, 5]))
    >>> outputs.shape, carry.c.shape, carry.h.shape
    ((2, 7, 4), (2, 4), (2, 4))
    """
    params = _check_params(params, LSTMParams, num_gates=4)
    inputs, lengths, resets = _check_inputs(params, inputs, lengths, resets)
    zeros = jnp.zeros((inputs.shape[0], params.recurrent_kernel.shape[0]), inputs.dtype)
    if carry is None:
        carry = LSTMCarry(zeros, zeros)
    elif not isinstance(carry, LSTMCarry):
        raise TypeError(f"carry must be an LSTMCarry(c, h), not {describe_carry(carry)}")
    carry = LSTMCarry(
        _check_state("carry.c", carry.c, zeros), _check_state("carry.h", carry.h, zeros)
    )
    steps = make_steps(inputs, lengths, resets, reverse)
    last, outputs = fused_loop.unroll(
        fused.LSTM, fused.GateParams(*params), carry, steps, reverse=reverse
    )
    return outputs, last


@accepts_explicit_rows
def gru(
    params: GRUParams,
    inputs: jax.Array,
    carry: jax.Array | None = None,
    *,
    lengths: jax.Array | None = None,
    resets: jax.Array | None = None,
    reverse: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Run a GRU over time, with the reset gate after the product as in PyTorch, Flax and cuDNN.

        r = sigmoid(x W_r + h U_r + b_r)         z = sigmoid(x W_z + h U_z + b_z)
        n = tanh(x W_n + b_n + r * (h U_n + hidden_bias))
        h' = (1 - z) * n + z * h

    Source: Cho et al. (2014), eq. 5 to 8, with the reset as in PyTorch.

    Args:
      params: input_kernel [F, 3H], recurrent_kernel [H, 3H] and bias [3H], gates r, z, n; and
        hidden_bias [H].
      inputs: [B, T, F] float, of the same dtype as the parameters.
      carry: hidden state before the first step, [B, H]; None for zeros.
      lengths: as for `lstm`.
      resets: as for `lstm`.
      reverse: as for `lstm`.

    Returns:
      outputs [B, T, H] and the last carry [B, H], as for `lstm`.

    Raises:
      TypeError: if an argument has the wrong type or dtype.
      ValueError: if shapes do not match, or a length is out of range.

    >>> params = GRUParams(jnp.ones((3, 12)), jnp.ones((4, 12)), jnp.zeros(12), jnp.zeros(4))
    >>> outputs, carry = gru(params, jnp.ones((2, 7, 3)))
    >>> outputs.shape, carry.shape
    ((2, 7, 4), (2, 4))
    """
    params = _check_params(params, GRUParams, num_gates=3)
    inputs, lengths, resets = _check_inputs(params, inputs, lengths, resets)
    zeros = jnp.zeros((inputs.shape[0], params.recurrent_kernel.shape[0]), inputs.dtype)
    if carry is not None and not hasattr(carry, "shape"):
        raise TypeError(f"carry must be an array [B, H], not {describe_carry(carry)}")
    carry = zeros if carry is None else _check_state("carry", carry, zeros)
    steps = make_steps(inputs, lengths, resets, reverse)
    hidden_bias = fused.pad_hidden_bias(params.hidden_bias, params.bias)
    gate_params = fused.GateParams(*params)._replace(hidden_bias=hidden_bias)
    last, outputs = fused_loop.unroll(fused.GRU, gate_params, carry, steps, reverse=reverse)
    return outputs, last


def _check_params(params: Any, params_class: type, num_gates: int) -> Any:
    """The parameters as arrays, if their shapes and dtypes fit each other."""
    if not isinstance(params, params_class):
        raise TypeError(f"params must be {params_class.__name__}, not {type(params).__name__}")
    params = jax.tree.map(jnp.asarray, params)
    for name, array in params._asdict().items():
        check_kind(f"params.{name}", array, jnp.floating)
        if array.dtype != params.input_kernel.dtype:
            raise TypeError(
                f"params must have one dtype, but params.{name} is {array.dtype} and"
                f" params.input_kernel {params.input_kernel.dtype}"
            )
        ndim = 2 if name.endswith("kernel") else 1
        if array.ndim != ndim:
            raise ValueError(f"params.{name} must have {ndim} axes, but its shape is {array.shape}")
    hidden, (features, _) = params.recurrent_kernel.shape[0], params.input_kernel.shape
    size = num_gates * hidden
    expected = {
        "input_kernel": ((features, size), f"[F, {num_gates}H]"),
        "recurrent_kernel": ((hidden, size), f"[H, {num_gates}H]"),
        "bias": ((size,), f"[{num_gates}H]"),
        "hidden_bias": ((hidden,), "[H]"),
    }
    for name, array in params._asdict().items():
        shape, axes = expected[name]
        if array.shape != shape:
            raise ValueError(
                f"params.{name} must be {axes} with H = {hidden}, but its shape is {array.shape}"
            )
    return params


def _check_inputs(params: Any, inputs: Any, lengths: Any, resets: Any) -> tuple[Any, Any, Any]:
    inputs, lengths, resets = check_sequence(inputs, lengths, resets)
    kernel = params.input_kernel
    if inputs.shape[-1] != kernel.shape[0]:
        raise ValueError(
            f"inputs must have F = {kernel.shape[0]}, as the parameters have,"
            f" but F = {inputs.shape[-1]}"
        )
    if inputs.dtype != kernel.dtype:
        raise TypeError(f"inputs must be {kernel.dtype}, as the parameters are, not {inputs.dtype}")
    return inputs, lengths, resets


def _check_state(name: str, state: Any, zeros: jax.Array) -> jax.Array:
    """A part of the carry as an array, if it has the shape and dtype of `zeros` [B, H]."""
    check_axes(name, state, "BH", B=zeros.shape[0], H=zeros.shape[1])
    if jnp.result_type(state) != zeros.dtype:
        raise TypeError(f"{name} must be {zeros.dtype}, not {jnp.result_type(state)}")
    return jnp.asarray(state)
