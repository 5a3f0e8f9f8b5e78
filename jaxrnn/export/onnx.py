"""A network as an ONNX model of ONNX's recurrent operators, with a dynamic batch and time."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxrnn.errors import SettingError
from jaxrnn.export.graph import Graph
from jaxrnn.export.interface import describe
from jaxrnn.export.onnx_layers import Layers
from jaxrnn.export.support import Network, check_network
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional
from jaxrnn.models import LanguageModel, SequenceClassifier
from jaxrnn.models.classifier import last_layer
from jaxrnn.types import Params

MAX_BYTES = 2**31 - 2**20
"""The most bytes of parameters: a protobuf message has less than 2 GiB."""


def onnx_model(
    model: Network, params: Params, inputs: Any, metadata: Mapping[str, str] | None = None
) -> Any:
    """Return a network as an ONNX model; its loops are the operators LSTM, GRU and RNN.

    The inputs and outputs are those of `describe`: ids or features, `lengths`, and `initial_<name>`
    for each array of the carry, in this order; then `logits`, and `last_<name>`. The axes B and T
    may have any size.

    Args:
      model: `SequenceModel`, `LanguageModel` or `SequenceClassifier`, with LSTM, GRU and Elman
        cells in either direction, in float32.
      params: its parameters.
      inputs: as for `describe`.
      metadata: text to store in the model, by name.

    Returns:
      an `onnx.ModelProto` that has passed `onnx.checker`.

    Raises:
      SettingError: if ONNX has no operator for a part of the network.
      ValueError: if the parameters do not fit the model.
      RunError: if the package onnx is not installed.

    >>> from jaxrnn import GRUCell
    >>> model, ids = LanguageModel(Recurrent(GRUCell(8)), 5), np.zeros((1, 1), np.int32)
    >>> params = model.init(jax.random.key(0), ids)["params"]
    >>> graph = onnx_model(model, params, ids).graph
    >>> [value.name for value in graph.input], [value.name for value in graph.output]
    (['ids', 'lengths', 'initial_h'], ['logits', 'last_h'])
    """
    check_network(model, params, "ONNX")
    if (size := sum(leaf.nbytes for leaf in jax.tree.leaves(params))) > MAX_BYTES:
        raise SettingError(f"an ONNX file holds 2 GB, but the parameters have {size / 1e9:.1f} GB")
    interface, graph = describe(model, params, inputs), Graph()
    read = graph.input(interface.inputs)
    graph.input(interface.lengths)
    for array in interface.carry:
        graph.input(array, "initial_")
    steps_first = graph.add("Transpose", read, perm=[1, 0, *range(2, len(interface.inputs.axes))])
    if isinstance(model, LanguageModel):
        steps_first = _add_embedding(graph, model, params, steps_first)
    layers = Layers(graph)
    hidden = layers.add(model.recurrent, params["recurrent"], steps_first)  # [T, B, H]
    if isinstance(model, SequenceClassifier):
        pooled = _add_pool(graph, model, hidden)  # [B, H]
        logits = graph.add("Unsqueeze", _add_readout(graph, params, pooled), graph.integers(1))
    else:
        logits = graph.add("Transpose", _add_readout(graph, params, hidden), perm=[1, 0, 2])
    graph.output(logits, interface.logits)
    for array in interface.carry:
        graph.output(layers.last[array.name], array, "last_")
    return graph.build(type(model).__name__, metadata or {})


def _add_embedding(graph: Graph, model: LanguageModel, params: Params, ids: str) -> str:
    """Add the vectors of ids [T, B]: [T, B, F]."""
    if model.embedding_size is None:
        depth = graph.constant("vocabulary_size", np.int32(model.vocabulary_size))
        return graph.add(
            "OneHot", ids, depth, graph.constant("off_on", np.array([0, 1], np.float32))
        )
    return graph.add("Gather", graph.constant("embedding", params["embedding"]["embedding"]), ids)


def _add_readout(graph: Graph, params: Params, hidden: str) -> str:
    """Add the readout of [..., H]: [..., V]. A tied one has the embedding's matrix."""
    if "readout" in params:
        kernel = graph.constant("readout", params["readout"]["kernel"])
        bias = params["readout"]["bias"]
    else:
        kernel = graph.add("Transpose", "embedding", perm=[1, 0])
        bias = params["bias"]
    return graph.add("Add", graph.add("MatMul", hidden, kernel), graph.constant("bias", bias))


def _add_pool(graph: Graph, model: SequenceClassifier, hidden: str) -> str:
    """Add one vector per row of hidden [T, B, H]: [B, H]; see `SequenceClassifier`."""
    if model.pool == "mean":
        total = graph.add("ReduceSum", hidden, graph.integers(0), keepdims=0)
        at_least_one = graph.add("Max", "lengths", graph.constant("one", np.int32(1)))
        steps = graph.add("Cast", at_least_one, to=1)  # float
        return graph.add("Div", total, graph.add("Unsqueeze", steps, graph.integers(1)))
    rows_first = graph.add("Transpose", hidden, perm=[1, 0, 2])
    if model.pool == "flatten":
        return graph.add("Reshape", rows_first, graph.integers(0, -1))
    at_start = graph.add("Gather", hidden, graph.constant("first", np.int64(0)))
    last = last_layer(model.recurrent)
    if isinstance(last, Recurrent) and last.reverse:
        return at_start
    one = graph.constant("one", np.int32(1))
    ends = graph.add("Sub", graph.add("Max", "lengths", one), one)
    ends = graph.add("Cast", graph.add("Unsqueeze", ends, graph.integers(1)), to=7)  # int64
    at_end = graph.add("GatherND", rows_first, ends, batch_dims=1)
    if not isinstance(last, Bidirectional):
        return at_end
    forward, backward = last.forward.cell.features, last.backward.cell.features
    sizes = graph.integers(forward, backward)
    parts = (graph.add_many("Split", [part, sizes], 2, axis=1) for part in (at_end, at_start))
    (at_end, _), (_, at_start) = parts
    return graph.add("Concat", at_end, at_start, axis=1)
