"""One recurrent layer in other libraries, with the same weights.

Each peer is a function of jaxrnn's layer, its parameters, the inputs [B, T, F] and the gradient of
the outputs [B, T, H]; it returns a `System`. `peers` leaves out libraries that are not installed or
lack such a layer. The code follows the libraries' own documentation.
"""

# pyright: reportMissingImports=false
import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxrnn.cells import LSTMCell
from jaxrnn.interop import to_keras, to_torch
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional
from jaxrnn.types import Params
from suites.timing import timed

PYTORCH = "PyTorch"
PACKAGES = {PYTORCH: "torch", "Keras": "keras", "Equinox": "equinox", "Haiku": "haiku"}
"""The peers that `pip install -e '.[bench]'` installs, and their packages."""


@dataclass(frozen=True)
class System:
    """A layer to time.

    Attributes:
      forward: outputs [B, T, H].
      both: the gradients of the parameters, and of the inputs [B, T, F].
      compile_s: seconds to compile both; None if nothing is compiled.
    """

    forward: Callable[[], Any]
    both: Callable[[], tuple[Any, Any]]
    compile_s: float | None = None


def missing() -> list[str]:
    """Return the peers that are not installed."""
    return [peer for peer, package in PACKAGES.items() if not importlib.util.find_spec(package)]


def peers(
    layer: Recurrent, params: Params, inputs: jax.Array, gradient: jax.Array
) -> Iterator[tuple[str, System]]:
    """Yield each installed peer that has this layer, with its name."""
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


def compiled(
    apply: Any, weights: Any, inputs: jax.Array, gradient: jax.Array, **options: jax.Array
) -> System:
    """Compile a JAX layer, given as `apply(weights, inputs, **options)`."""

    def both(weights: Any, inputs: jax.Array, gradient: jax.Array, **options: jax.Array) -> Any:
        return jax.vjp(partial(apply, **options), weights, inputs)[1](gradient)

    data = weights, inputs, gradient
    forward, first = timed(lambda: jax.jit(apply).lower(weights, inputs, **options).compile())
    back, second = timed(lambda: jax.jit(both).lower(*data, **options).compile())
    return System(
        lambda: forward(weights, inputs, **options), lambda: back(*data, **options), first + second
    )


def torch_device() -> str:
    """Return PyTorch's name for the kind of device that JAX uses."""
    import torch

    return "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"


def to_numpy(array: Any) -> np.ndarray:
    """Convert an array of any peer and float type to float32, also a tensor on a GPU."""
    array = array.detach().cpu().float() if hasattr(array, "detach") else array
    return np.asarray(array, np.float32)


def flax(cell: nn.RNNCellBase, params: Params, inputs: jax.Array, gradient: jax.Array) -> System:
    """Flax: `nn.RNN` with one of its cells, which name their parameters as jaxrnn does."""
    layer: Any = nn.RNN(cell)
    apply = lambda params, inputs: layer.apply({"params": params}, inputs)  # noqa: E731
    return compiled(apply, params, inputs, gradient)


def torch(
    layer: Recurrent | Bidirectional,
    params: Params,
    inputs: jax.Array,
    gradient: jax.Array,
    run: Callable[[Any, Any], Any] = lambda module, inputs: module(inputs)[0],
) -> System:
    """PyTorch: `torch.nn.LSTM` or `GRU`, on a GPU if JAX uses one, with its default threads.

    `run` calls the module: (module, inputs [B, T, F]) -> outputs [B, T, H].
    """
    import torch

    device, dtype = torch_device(), getattr(torch, inputs.dtype.name)
    one = layer.forward if isinstance(layer, Bidirectional) else layer
    kind = torch.nn.LSTM if isinstance(one.cell, LSTMCell) else torch.nn.GRU
    options = {"batch_first": True, "bidirectional": one is not layer}
    theirs = kind(inputs.shape[-1], one.cell.features, **options).to(device, dtype)
    tensor: Any = lambda array: torch.from_numpy(np.array(array, np.float32)).to(device, dtype)  # noqa: E731
    theirs.load_state_dict({name: tensor(each) for name, each in to_torch(layer, params).items()})
    x, d_outputs = tensor(inputs).requires_grad_(), tensor(gradient)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def forward() -> Any:
        with torch.no_grad():
            outputs = run(theirs, x)
        wait()
        return outputs

    def both() -> tuple[Any, Any]:
        theirs.zero_grad()
        x.grad = None
        run(theirs, x).backward(d_outputs)
        wait()
        return [each.grad for each in theirs.parameters()], x.grad

    return System(forward, both)


def keras(layer: Recurrent, params: Params, inputs: jax.Array, gradient: jax.Array) -> System:
    """Keras: `keras.layers.LSTM` or `GRU` on JAX, by `stateless_call`."""
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
    """Equinox: a cell of `equinox.nn`, scanned over time and vmapped over the batch."""
    import equinox as eqx

    features, hidden = inputs.shape[-1], layer.cell.features
    weights = to_torch(layer, params)  # the same, except for the biases
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
    """Haiku: `haiku.LSTM` and `dynamic_unroll`; it adds 1 to the forget gate's bias."""
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
    bias = np.concatenate([cell["h" + gate]["bias"] - float(gate == "f") for gate in "igfo"])
    made = {"w": jnp.concatenate([kernel, recurrent]), "b": jnp.asarray(bias)}
    return compiled(theirs.apply, {"lstm/linear": made}, inputs, gradient)
