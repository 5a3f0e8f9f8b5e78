"""The inputs and outputs that a network has in every export, and the names of its carry's arrays.

An array of the carry is named by the path of its layer in the parameters and by what it is:
`layers_0_c`, `layers_1_backward_h`; or `h` alone, if the model has one layer without a `Stack`.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Path, recurrent_layers
from jaxrnn.models import EncoderDecoder, LanguageModel, SequenceClassifier
from jaxrnn.types import Params

STATES = {"c": "the cell state", "h": "the hidden state"}


class Array(NamedTuple):
    """An input or output."""

    name: str
    dtype: str
    axes: tuple[str | int, ...]  # "B" and "T" may have any size
    meaning: str


class Interface(NamedTuple):
    """A network's inputs and outputs."""

    inputs: Array  # ids [B, T] or features [B, T, F]
    lengths: Array
    longest: int | str  # the greatest length: "T", or that of a source
    carry: tuple[Array, ...]  # the initial one; the last one has the same arrays
    logits: Array


def describe(model: nn.Module, params: Params, inputs: Any) -> Interface:
    """List a network's inputs and outputs.

    Args:
      model: any model that is called as `SequenceModel` is.
      params: its parameters.
      inputs: ids [B, T] int or features [B, T, F] float, or their shape and dtype. Their B and T do
        not matter, unless the parameters fix T.

    Raises:
      SettingError: if the carry is not that of the model's recurrent layers.

    >>> from jaxrnn import GRUCell, LanguageModel, Recurrent, Stack
    >>> model = LanguageModel(Stack((Recurrent(GRUCell(8)),)), vocabulary_size=5)
    >>> ids = np.zeros((1, 1), np.int32)
    >>> params = model.init(jax.random.key(0), ids)["params"]
    >>> [(array.name, *array.axes) for array in describe(model, params, ids).carry]
    [('layers_0_h', 'B', 8)]
    """
    logits, carry = jax.eval_shape(step_by_step(model).apply, {"params": params}, inputs)
    leaves, names = jax.tree.leaves(carry), carry_names(model)
    if len(names) != len(leaves):
        raise SettingError(
            f"the carry of a {type(model).__name__} is not that of its recurrent layers"
        )
    one_output, two_parts = isinstance(model, SequenceClassifier), isinstance(model, EncoderDecoder)
    steps = inputs.shape[1] if one_output and model.pool == "flatten" else "T"
    first = Array(
        "features", str(inputs.dtype), ("B", steps, *inputs.shape[2:]), "the inputs of each step"
    )
    if np.issubdtype(inputs.dtype, np.integer):
        first = Array("ids", "int32", ("B", steps), _meaning_of_ids(model))
    longest, of = (model.source_length, "source") if two_parts else (steps, "row")
    told = f"the steps of each {of} before its padding, from 0 to {longest}"
    return Interface(
        first,
        Array("lengths", "int32", ("B",), told),
        longest,
        tuple(
            Array(name, str(leaf.dtype), ("B", *leaf.shape[1:]), _meaning_of_state(name))
            for name, leaf in zip(names, leaves, strict=True)
        ),
        Array(
            "logits",
            str(logits.dtype),
            ("B", 1 if one_output else steps, *logits.shape[2:]),
            "one output per row" if one_output else "the output of each step",
        ),
    )


def carry_names(model: nn.Module) -> list[str]:
    """The names of the arrays of a model's carry, in the order of `jax.tree.leaves`.

    >>> from jaxrnn import Bidirectional, GRUCell, LSTMCell, SequenceModel, Stack
    >>> both = Bidirectional(Recurrent(GRUCell(2)), Recurrent(GRUCell(2), reverse=True))
    >>> carry_names(SequenceModel(Stack((Recurrent(LSTMCell(2)), both)), 3))
    ['layers_0_c', 'layers_0_h', 'layers_1_forward_h', 'layers_1_backward_h']
    """
    if isinstance(model, EncoderDecoder):  # it takes and returns none
        return []
    return [
        state_name(path[1:], state)  # without the name of the model's field
        for path, layer in recurrent_layers(model)
        for state in _states(layer)
    ]


def state_name(path: Path, state: str) -> str:
    """The name of an array of the carry of the layer at a path."""
    return "_".join((*path, state))


def step_by_step(module: Any) -> Any:
    """Return a module whose recurrent layers use the plain scan; it has the same parameters.

    >>> from jaxrnn import GRUCell, Stack
    >>> step_by_step(Stack((Recurrent(GRUCell(2)),))).layers[0].implementation
    'scan'
    """
    if isinstance(module, Recurrent):
        return module.clone(implementation="scan", remat_chunk_size=None)
    if isinstance(module, tuple | list):
        return tuple(map(step_by_step, module))
    if not isinstance(module, nn.Module):
        return module
    fields = [name for name in module.__dataclass_fields__ if name not in ("parent", "name")]
    return module.clone(**{name: step_by_step(getattr(module, name)) for name in fields})


def _states(layer: Recurrent) -> list[str]:
    """The names of the arrays in the carry of one layer."""
    cell = layer.cell
    shape = (1,) * (1 + cell.num_feature_axes)
    carry = jax.eval_shape(lambda: cell.initialize_carry(jax.random.key(0), shape))
    leaves = jax.tree.leaves(carry)
    if len(leaves) == 1:
        return ["h"]
    if len(names := getattr(carry, "_fields", ())) == len(leaves):
        return list(names)
    if isinstance(cell, nn.LSTMCell | nn.OptimizedLSTMCell | nn.ConvLSTMCell):
        return ["c", "h"]
    return [f"state_{n}" for n in range(len(leaves))]


def _meaning_of_ids(model: nn.Module) -> str:
    if isinstance(model, EncoderDecoder):
        return (
            f"{model.source_length} ids of the source, padded with 0; then 0, and the target's ids"
            " but the last one"
        )
    if isinstance(model, LanguageModel):
        return f"token ids, from 0 to {model.vocabulary_size - 1}"
    return "token ids"


def _meaning_of_state(name: str) -> str:
    *layer, state = name.rsplit("_", 1)
    of = f" of {layer[0]}" if layer else ""
    return STATES.get(state, "a state") + of
