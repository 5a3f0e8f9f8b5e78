"""An LSTM layer by cuDNN, the library that PyTorch uses for it on a GPU.

`jax.experimental.rnn` is what is called. It is for CUDA devices and float32 only, cannot be under
`vmap`, and knows no resets. What is known to go wrong in it is kept away from it: a row of length
0 (jax issue 17966) counts as one step there, whose result is then left out; what stands past a
row's length is zero going in, and chosen away coming out, so that a gradient that is not a number
there (jax issue 15183) does not come through; and products are not rounded to TF32.
"""

from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.experimental import rnn
from jax.interpreters import batching

from jaxrnn.cells import LSTMCell
from jaxrnn.cells.lstm import LSTMCarry
from jaxrnn.layers.fused import FUSED_CELLS, concat_gates, is_supported
from jaxrnn.layers.scan import Steps
from jaxrnn.types import Carry


def unsupported_reason(
    cell: nn.RNNCellBase, carry: Carry, steps: Steps, mask: jax.Array | None
) -> str:
    """What cuDNN needs and has not got, to be said after "cudnn needs"; empty if it has all."""
    if type(cell) is not LSTMCell or not is_supported(cell, carry, steps.inputs):
        return "an LSTM as it stands, all of one float type"
    if steps.inputs.dtype != jnp.float32:
        return f"float32, not {steps.inputs.dtype}"
    if steps.anew is not None:
        return "sequences without resets"
    if mask is not None:
        return "recurrent_dropout = 0"
    if jax.default_backend() != "gpu":
        return f"a GPU, but JAX's default device is of the kind {jax.default_backend()}"
    return ""


def cudnn_scan(
    cell: nn.RNNCellBase, carry: LSTMCarry, steps: Steps, mask: None, *, reverse: bool
) -> tuple[Carry, jax.Array]:
    """A layer over time, where there is no `refusal`; called as the functions of `unroll`.

    Args:
      cell: with its parameters bound.
      carry: before the first step, [B, H] each.
      steps: inputs [B, T, F], and which of them count.
      mask: none.
      reverse: whether time runs backwards.

    Returns:
      the last carry, and outputs [B, T, H].

    Raises:
      ValueError: under `vmap`.
    """
    del mask
    batch, length, features = steps.inputs.shape
    hidden, params = carry.h.shape[-1], cell.variables["params"]
    lengths = jnp.full(batch, length, jnp.int32)
    if steps.counts is not None:
        lengths = steps.counts.sum(axis=1, dtype=jnp.int32)
    inputs = _turned(steps.inputs, lengths) if reverse else steps.inputs
    results: Any = rnn.lstm(
        inputs,
        carry.h[None],
        carry.c[None],
        _weights(params),
        jnp.maximum(lengths, 1),
        features,
        hidden,
        1,
        0.0,
        False,
        jax.lax.Precision.HIGHEST,
    )
    outputs, h, c = results
    last = LSTMCarry(c[0], h[0])
    if reverse:
        outputs = _turned(outputs, lengths)
    if steps.counts is not None:
        outputs = jnp.where(steps.counts[..., None], outputs, 0)
        none = (lengths == 0)[:, None]
        last = jax.tree.map(lambda new, old: jnp.where(none, old, new), last, carry)
    return last, outputs


def _refuse_batches(*_: Any, **__: Any) -> NoReturn:
    """What `vmap` meets, however deep below a `jit` the call stands."""
    raise ValueError("cudnn cannot run under vmap: take implementation='auto' there")


for primitive in (rnn.rnn_fwd_p, rnn.rnn_bwd_p):  # they have no rule of their own
    batching.primitive_batchers[primitive] = _refuse_batches


def _weights(params: Any) -> jax.Array:
    """All in one row: both kernels turned round, [4H, F] and [4H, H], and two biases [4H].

    cuDNN has the gates in the order of `fused`: i, f, g, o.
    """
    ours = concat_gates(FUSED_CELLS[LSTMCell], params)
    parts = ours.kernel.T, ours.recurrent.T, jnp.zeros_like(ours.bias), ours.bias
    return jnp.concatenate([part.ravel() for part in parts])


def _turned(rows: jax.Array, lengths: jax.Array) -> jax.Array:
    """[B, T, ...] with the first `lengths` steps of each row backwards, the others as they are."""
    steps = jnp.arange(rows.shape[1])[None]
    places = jnp.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    return jnp.take_along_axis(rows, places[..., None], axis=1)
