"""One recurrent layer in other systems, with the weights of ours.

Each peer is a function of our layer, its parameters, the inputs [B, T, F] and the gradient of the
outputs [B, T, H]; it returns a `System`. One that has no such layer, or is not installed, is not
in `peers`' answer. They are written as those systems' documentation writes them.
"""

# pyright: reportMissingImports=false
import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxrnn.cells import LSTMCell
from jaxrnn.interop import to_keras, to_torch
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.types import Params
from suites.timing import timed

PYTORCH = "PyTorch"
PACKAGES = {PYTORCH: "torch", "Keras": "keras", "Equinox": "equinox", "Haiku": "haiku"}
"""What `pip install -e '.[bench]'` brings, and what each is imported as."""


@dataclass(frozen=True)
class System:
    """A layer that is ready to be timed.

    Attributes:
      forward: outputs [B, T, H].
      both: the gradients of the parameters, and those of the inputs [B, T, F].
      compile_s: the seconds that compiling both took; None where nothing is compiled.
    """

    forward: Callable[[], Any]
    both: Callable[[], tuple[Any, Any]]
    compile_s: float | None = None


def missing() -> list[str]:
    """The peers that are not installed."""
    return [peer for peer, package in PACKAGES.items() if not importlib.util.find_spec(package)]


def peers(
    layer: Recurrent, params: Params, inputs: jax.Array, gradient: jax.Array
) -> Iterator[tuple[str, System]]:
    """Every peer that is installed and has this layer, by name."""
    lstm = isinstance(layer.cell, LSTMCell)
    hidden = layer.cell.features
    data = params, inputs, gradient
    if lstm:
        yield "Flax, OptimizedLSTMCell", flax(nn.OptimizedLSTMCell(hidden), *data)
        yield "Flax, LSTMCell", flax(nn.LSTMCell(hidden), *data)
    else:
        yield "Flax, GRUCell", flax(nn.GRUCell(hidden), *data)
    absent = missing()
    if PYTORCH not in absent:
        yield PYTORCH, torch(layer, *data)
    if "Keras" not in absent:
        yield "Keras", keras(layer, *data)
    if "Equinox" not in absent:
        yield "Equinox", equinox(layer, *data)
    if lstm and "Haiku" not in absent:  # its GRU resets before the product
        yield "Haiku", haiku(layer, *data)


def compiled(apply: Any, weights: Any, inputs: jax.Array, gradient: jax.Array) -> System:
    """A system of JAX: `apply(weights, inputs)` gives the outputs."""

    def both(weights: Any, inputs: jax.Array, gradient: jax.Array) -> Any:
        return jax.vjp(apply, weights, inputs)[1](gradient)

    forward, first = timed(lambda: jax.jit(apply).lower(weights, inputs).compile())
    back, second = timed(lambda: jax.jit(both).lower(weights, inputs, gradient).compile())
    return System(
        lambda: forward(weights, inputs), lambda: back(weights, inputs, gradient), first + second
    )


def flax(cell: nn.RNNCellBase, params: Params, inputs: jax.Array, gradient: jax.Array) -> System:
    """`nn.RNN` around one of Flax's cells, whose parameters have the names of ours."""
    layer: Any = nn.RNN(cell)
    apply = lambda params, inputs: layer.apply({"params": params}, inputs)  # noqa: E731
    return compiled(apply, params, inputs, gradient)


def torch(layer: Recurrent, params: Params, inputs: jax.Array, gradient: jax.Array) -> System:
    """`torch.nn.LSTM` or `GRU`, as imported: with as many threads as PyTorch takes."""
    import torch

    kind = torch.nn.LSTM if isinstance(layer.cell, LSTMCell) else torch.nn.GRU
    theirs = kind(inputs.shape[-1], layer.cell.features, batch_first=True)
    tensor: Any = lambda array: torch.from_numpy(np.array(array))  # noqa: E731
    theirs.load_state_dict({name: tensor(each) for name, each in to_torch(layer, params).items()})
    x, d_outputs = tensor(inputs).requires_grad_(), tensor(gradient)

    def forward() -> Any:
        with torch.no_grad():
            return theirs(x)[0]

    def both() -> tuple[Any, Any]:
        theirs.zero_grad()
        x.grad = None
        theirs(x)[0].backward(d_outputs)
        return [each.grad for each in theirs.parameters()], x.grad

    return System(forward, both)


def keras(layer: Recurrent, params: Params, inputs: jax.Array, gradient: jax.Array) -> System:
    """`keras.layers.LSTM` or `GRU` on JAX, called without a state of its own."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    kind = keras.layers.LSTM if isinstance(layer.cell, LSTMCell) else keras.layers.GRU
    theirs: Any = kind(layer.cell.features, return_sequences=True)
    theirs.build(inputs.shape)
    weights: Any = to_keras(layer, params)
    theirs.set_weights([weights[name] for name in ("kernel", "recurrent_kernel", "bias")])
    trainable = [each.value for each in theirs.trainable_variables]
    others = [each.value for each in theirs.non_trainable_variables]
    apply = lambda weights, inputs: theirs.stateless_call(weights, others, inputs)[0]  # noqa: E731
    return compiled(apply, trainable, inputs, gradient)


def equinox(layer: Recurrent, params: Params, inputs: jax.Array, gradient: jax.Array) -> System:
    """A cell of `equinox.nn`, scanned over time, under `vmap` over the batch."""
    import equinox as eqx

    features, hidden = inputs.shape[-1], layer.cell.features
    weights = to_torch(layer, params)  # the same matrices, but for the biases
    lstm = isinstance(layer.cell, LSTMCell)
    kind: Any = eqx.nn.LSTMCell if lstm else eqx.nn.GRUCell
    bias, of_h = weights["bias_ih_l0"], weights["bias_hh_l0"]
    biases = (bias + of_h,) if lstm else (bias, of_h[-hidden:])
    where = (
        (lambda cell: (cell.weight_ih, cell.weight_hh, cell.bias))
        if lstm
        else (lambda cell: (cell.weight_ih, cell.weight_hh, cell.bias, cell.bias_n))
    )
    made = (weights["weight_ih_l0"], weights["weight_hh_l0"], *biases)
    cell = eqx.tree_at(
        where, kind(features, hidden, key=jax.random.key(0)), tuple(map(jnp.asarray, made))
    )
    arrays, rest = eqx.partition(cell, eqx.is_array)

    def apply(arrays: Any, inputs: jax.Array) -> jax.Array:
        cell: Any = eqx.combine(arrays, rest)

        def step(carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
            carry = cell(x, carry)
            return carry, carry[0] if lstm else carry

        zeros = jnp.zeros(hidden)
        first = (zeros, zeros) if lstm else zeros
        return jax.vmap(lambda row: jax.lax.scan(step, first, row)[1])(inputs)

    return compiled(apply, arrays, inputs, gradient)


def haiku(layer: Recurrent, params: Params, inputs: jax.Array, gradient: jax.Array) -> System:
    """`haiku.LSTM` under `dynamic_unroll`; it adds 1 to the forget gate's bias itself."""
    import haiku as hk

    def outputs(inputs: jax.Array) -> jax.Array:
        core = hk.LSTM(layer.cell.features)
        first = core.initial_state(inputs.shape[0])
        unrolled: Any = hk.dynamic_unroll(core, inputs, first, time_major=False)
        return unrolled[0]

    theirs, cell = hk.without_apply_rng(hk.transform(outputs)), params["cell"]
    kernel, recurrent = (
        np.concatenate([cell[side + gate]["kernel"] for gate in "igfo"], axis=1) for side in "ih"
    )
    bias = np.concatenate([cell["h" + gate]["bias"] - (gate == "f") for gate in "igfo"])
    made = {"w": jnp.concatenate([kernel, recurrent]), "b": jnp.asarray(bias)}
    return compiled(theirs.apply, {"lstm/linear": made}, inputs, gradient)
