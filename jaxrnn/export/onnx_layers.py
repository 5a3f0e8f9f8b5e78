"""Recurrent layers as ONNX's operators LSTM, GRU and RNN, one operator for each direction.

One operator could also run both directions, but only with cells of one kind and size.
"""

from typing import Any

import numpy as np
from flax import linen as nn

from jaxrnn.export.graph import Graph
from jaxrnn.export.interface import state_name
from jaxrnn.interop import structure
from jaxrnn.interop.onnx import OPTIONS, to_onnx
from jaxrnn.layers.stack import Bidirectional, Path, Stack
from jaxrnn.types import Params

OPERATORS = {"lstm": ("LSTM", "hc"), "gru": ("GRU", "h"), "rnn": ("RNN", "h")}
"""The operator of each kind of cell, and its states, in the order of its inputs and outputs."""


class Layers:
    """Adds layers to a graph that has the inputs `lengths` and `initial_<name>`.

    Values inside are [T, B, ...], as `layout=0` has them: ONNX Runtime's CPU knows no other layout.
    """

    def __init__(self, graph: Graph) -> None:
        """Add what all layers need of the lengths."""
        self.last: dict[str, str] = {}  # the values of the last carry, [B, H], by name
        self._graph = graph
        zero = graph.constant("zero", np.int32(0))
        are_empty = graph.add("Equal", "lengths", zero)
        self._are_empty = graph.add("Unsqueeze", are_empty, graph.integers(1))  # [B, 1]

    def add(self, layer: nn.Module, params: Params, inputs: str, path: Path = ()) -> str:
        """Add a layer over inputs [T, B, F]; return its outputs, [T, B, H].

        Args:
          layer: `Recurrent`, `Bidirectional` or `Stack`.
          params: its parameters.
          inputs: the value's name.
          path: the path of the layer's parameters in those of all layers.
        """
        if isinstance(layer, Stack):
            for n, part in enumerate(layer.layers):
                name = f"layers_{n}"
                outputs = self.add(part, params[name], inputs, (*path, name))
                add_inputs = n and layer.residual
                inputs = self._graph.add("Add", outputs, inputs) if add_inputs else outputs
            return inputs
        if isinstance(layer, Bidirectional):
            both = [
                self.add(getattr(layer, name), params[name], inputs, (*path, name))
                for name in ("forward", "backward")
            ]
            if layer.merge == "sum":
                return self._graph.add("Add", *both)
            return self._graph.add("Concat", *both, axis=2)
        return self._add_direction(layer, params, inputs, path)

    def _add_direction(self, layer: Any, params: Params, inputs: str, path: Path) -> str:
        graph, cell = self._graph, layer.cell
        kind = structure.kind_of(cell, "ONNX", OPTIONS)
        operator, states = OPERATORS[kind]
        arrays: Any = to_onnx(layer, params)
        weights = {
            name: graph.constant("_".join((*path, name)), array) for name, array in arrays.items()
        }
        names = [state_name(path, state) for state in states]
        axis = graph.integers(0)
        initial = [graph.add("Unsqueeze", f"initial_{name}", axis) for name in names]  # [1, B, H]
        given = [inputs, weights["W"], weights["R"], weights["B"], "lengths", *initial]
        outputs, *last = graph.add_many(
            operator,
            [*given, weights["P"]] if "P" in weights else given,
            1 + len(states),
            hidden_size=cell.features,
            direction="reverse" if layer.reverse else "forward",
            **_attributes(kind, cell),
        )
        for name, value in zip(names, last, strict=True):
            value = graph.add("Squeeze", value, axis)
            # Of a row without steps, ONNX Runtime returns a zero state; ours is the initial one.
            self.last[name] = graph.add("Where", self._are_empty, f"initial_{name}", value)
        return graph.add("Squeeze", outputs, graph.integers(1))  # from [T, 1, B, H]


def _attributes(kind: str, cell: Any) -> dict[str, Any]:
    """The attributes of an operator that change its equations."""
    if kind == "lstm":
        return {"input_forget": int(getattr(cell, "coupled_gates", False))}
    if kind == "gru":
        return {"linear_before_reset": int(structure.resets_after(cell))}
    return {"activations": ["Relu" if cell.activation_fn is nn.relu else "Tanh"]}
