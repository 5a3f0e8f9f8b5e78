"""An LSTM layer that runs on cuDNN, the library that PyTorch uses for it on a GPU.

It calls `jax.experimental.rnn`, which needs a CUDA device and float32, cannot run under `vmap`,
and has no resets. This module works around its known bugs:

- a row of length 0 (jax issue 17966) runs for one step, and the result is discarded;
- inputs past a row's length are zeroed, and outputs there masked with `where`, so that a NaN
  gradient (jax issue 15183) does not leak out;
- products are not rounded to TF32.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.custom_batching import custom_vmap
from jax.experimental import rnn

from jaxrnn.cells import LSTMCell
from jaxrnn.cells.lstm import LSTMCarry
from jaxrnn.layers.fused import LSTM, is_supported
from jaxrnn.layers.scan import Steps
from jaxrnn.types import Carry


def unsupported_reason(
    cell: nn.RNNCellBase, carry: Carry, steps: Steps, mask: jax.Array | None
) -> str:
    """Why cuDNN cannot run this layer, to follow "cudnn needs"; empty if it can."""
    if type(cell) is not LSTMCell or not is_supported(cell, carry, steps.inputs):
        return "an LSTM with default options and a single dtype"
    if steps.inputs.dtype != jnp.float32:
        return f"float32, not {steps.inputs.dtype}"
    if steps.resets is not None:
        return "sequences without resets"
    if mask is not None:
        return "recurrent_dropout = 0"
    if jax.default_backend() != "gpu":
        return f"a GPU, but JAX's default device is of the kind {jax.default_backend()}"
    return ""


def cudnn_scan(
    cell: nn.RNNCellBase, carry: LSTMCarry, steps: Steps, mask: None, *, reverse: bool
) -> tuple[Carry, jax.Array]:
    """Run a layer that has no `unsupported_reason`; called like the functions in `scan`.

    Args:
      cell: with its parameters bound.
      carry: before the first step, [B, H] each.
      steps: inputs [B, T, F], and which steps are valid.
      mask: None.
      reverse: whether to run backwards in time.

    Returns:
      the last carry, and outputs [B, T, H].

    Raises:
      ValueError: under `vmap`.
    """
    del mask
    batch, length, _ = steps.inputs.shape
    lengths = jnp.full(batch, length, jnp.int32)
    if steps.valid is not None:
        lengths = steps.valid.sum(axis=1, dtype=jnp.int32)
    inputs = _reverse_rows(steps.inputs, lengths) if reverse else steps.inputs
    weights = _flat_weights(cell.variables["params"])
    lstm: Any = _lstm  # custom_vjp loses the function's type
    results = lstm(inputs, carry.h[None], carry.c[None], weights, jnp.maximum(lengths, 1))
    outputs, h, c = results
    last = LSTMCarry(c[0], h[0])
    if reverse:
        outputs = _reverse_rows(outputs, lengths)
    if steps.valid is not None:
        outputs = jnp.where(steps.valid[..., None], outputs, 0)
        empty = (lengths == 0)[:, None]
        last = jax.tree.map(lambda new, old: jnp.where(empty, old, new), last, carry)
    return last, outputs


def _without_vmap(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with a clear error under `vmap`, also when the call is inside a `jit`."""
    wrapped = custom_vmap(function)

    def refuse(*_: Any) -> NoReturn:
        raise ValueError("cudnn cannot run under vmap: use implementation='auto' there")

    wrapped.def_vmap(refuse)
    return wrapped


@jax.custom_vjp
def _lstm(
    inputs: jax.Array, h: jax.Array, c: jax.Array, weights: jax.Array, lengths: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Inputs [B, T, F], h and c [1, B, H] -> outputs [B, T, H] and the last h and c."""
    return _forward(inputs, h, c, weights, lengths)[0]


@_without_vmap
def _forward(
    inputs: jax.Array, h: jax.Array, c: jax.Array, weights: jax.Array, lengths: jax.Array
) -> tuple[Any, Any]:
    return rnn.lstm_fwd(inputs, h, c, weights, lengths, *_settings(inputs, h))


@_without_vmap
def _gradients(residuals: Any, d_results: Any) -> tuple[jax.Array, ...]:
    """Gradients of inputs, h, c and weights."""
    inputs, h, *_ = residuals
    backward: Any = rnn.lstm_bwd
    return backward(*_settings(inputs, h), residuals, d_results)[:4]


def _backward(residuals: Any, d_results: Any) -> tuple[Any, ...]:
    return *_gradients(residuals, d_results), None  # lengths have no gradient


_lstm.defvjp(_forward, _backward)


def _settings(inputs: jax.Array, h: jax.Array) -> tuple[Any, ...]:
    """F, H, number of layers, dropout, bidirectional and precision."""
    return inputs.shape[-1], h.shape[-1], 1, 0.0, False, jax.lax.Precision.HIGHEST


def _flat_weights(params: Any) -> jax.Array:
    """All weights in one array: kernels transposed, [4H, F] and [4H, H], then two biases [4H].

    cuDNN's order of the gates is that of `fused`: i, f, g, o.
    """
    gates = LSTM.gate_params(params)
    zeros = jnp.zeros_like(gates.bias)
    parts = gates.input_kernel.T, gates.recurrent_kernel.T, zeros, gates.bias
    return jnp.concatenate([part.ravel() for part in parts])


def _reverse_rows(rows: jax.Array, lengths: jax.Array) -> jax.Array:
    """Reverse the first `lengths` [B] steps of rows [B, T, ...]; the padding stays in place."""
    steps = jnp.arange(rows.shape[1], dtype=lengths.dtype)[None]
    source = jnp.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    return jnp.take_along_axis(rows, source[..., None], axis=1)
