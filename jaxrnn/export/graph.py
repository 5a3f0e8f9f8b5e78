"""A builder of ONNX graphs: nodes are added one after the other, and values go by their names."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import jaxrnn
from jaxrnn.errors import RunError
from jaxrnn.export.interface import Array

OPSET, IR_VERSION = 14, 8  # of 2021, so that older runtimes can read the file, too


class Graph:
    """An ONNX graph under construction."""

    def __init__(self) -> None:
        """Start an empty graph; raises RunError if the package onnx is not installed."""
        try:
            import onnx
        except ImportError:
            message = "ONNX files need the package onnx: pip install 'jaxrnn[export]'"
            raise RunError(message) from None
        self._onnx: Any = onnx
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def input(self, array: Array, prefix: str = "") -> str:
        """Add an input of the graph; its axes that are letters may have any size."""
        self._inputs.append(self._info(array, prefix))
        return prefix + array.name

    def output(self, value: str, array: Array, prefix: str = "") -> None:
        """Make a value an output of the graph, with another name."""
        name = prefix + array.name
        self._nodes.append(self._onnx.helper.make_node("Identity", [value], [name], name=name))
        self._outputs.append(self._info(array, prefix))

    def constant(self, name: str, array: Any) -> str:
        """Add an array, once per name."""
        if name not in self._constants:
            array = np.asarray(array, order="C")
            self._constants[name] = self._onnx.numpy_helper.from_array(array, name)
        return name

    def integers(self, *numbers: int) -> str:
        """Add a constant [n] int64, such as a list of axes."""
        return self.constant("int64_" + "_".join(map(str, numbers)), np.array(numbers, np.int64))

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""
        return self.add_many(operator, inputs, 1, **attributes)[0]

    def add_many(
        self, operator: str, inputs: Sequence[str], outputs: int, **attributes: Any
    ) -> list[str]:
        """Add a node with one output or more."""
        name = f"{operator}_{len(self._nodes)}"
        names = [f"{name}_output_{n}" for n in range(outputs)]
        node = self._onnx.helper.make_node(operator, inputs, names, name=name, **attributes)
        self._nodes.append(node)
        return names

    def build(self, name: str, metadata: Mapping[str, str]) -> Any:
        """Return the model, an `onnx.ModelProto`, after ONNX has checked it."""
        helper, constants = self._onnx.helper, list(self._constants.values())
        model = helper.make_model(
            helper.make_graph(self._nodes, name, self._inputs, self._outputs, constants),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="jaxrnn",
            producer_version=jaxrnn.__version__,
        )
        helper.set_model_props(model, dict(metadata))
        self._onnx.checker.check_model(model, full_check=True)
        return model

    def _info(self, array: Array, prefix: str) -> Any:
        helper = self._onnx.helper
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(array.dtype))
        return helper.make_tensor_value_info(prefix + array.name, kind, array.axes)
