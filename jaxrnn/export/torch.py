"""A network for PyTorch: a `state_dict`, and the source of a module that loads it.

The module has one `torch.nn.LSTM`, `GRU` or `RNN` for each direction of each layer. So sizes may
differ, layers may be residual, and a layer may run backwards alone.
"""

import json
from pathlib import Path as FilePath
from string import Template
from typing import Any, NamedTuple

import numpy as np
from flax import linen as nn

from jaxrnn.export.interface import Interface, describe, state_name
from jaxrnn.export.support import Network, check_network
from jaxrnn.interop import structure
from jaxrnn.interop.torch import OPTIONS, to_torch
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional, Path, Stack
from jaxrnn.models import LanguageModel, SequenceClassifier
from jaxrnn.models.classifier import last_layer
from jaxrnn.types import Params

MODULES = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
INDENT = 8


MARK = "in plain PyTorch, written by `jaxrnn export`"


class TorchModule(NamedTuple):
    """A network for PyTorch."""

    state_dict: dict[str, np.ndarray]  # of `Network` in the source, by PyTorch's names
    source: str  # of a Python module that needs torch and safetensors only


def torch_module(model: Network, params: Params, inputs: Any) -> TorchModule:
    """Return a network as a PyTorch `state_dict` and the source of a module.

    The inputs and outputs of the module are those of `describe`; the carry is a dictionary. Saved
    as `NAME.safetensors` and `NAME.py`, the module's `load()` returns the network.

    Args:
      model: `SequenceModel`, `LanguageModel` or `SequenceClassifier`, with cells that PyTorch has,
        in either direction, in float32.
      params: its parameters.
      inputs: as for `describe`.

    Raises:
      SettingError: if PyTorch has no module for a part of the network.
      ValueError: if the parameters do not fit the model.

    >>> import jax
    >>> from jaxrnn import GRUCell
    >>> model, ids = LanguageModel(Recurrent(GRUCell(8)), 5), np.zeros((1, 1), np.int32)
    >>> params = model.init(jax.random.key(0), ids)["params"]
    >>> state_dict, source = torch_module(model, params, ids)
    >>> state_dict["recurrent.rnn.weight_ih_l0"].shape, "nn.GRU(5, 8, batch_first" in source
    ((24, 5), True)
    """
    check_network(model, params, "torch")
    interface, writer = describe(model, params, inputs), _Writer()
    read = interface.inputs.name
    if isinstance(model, LanguageModel):
        read = writer.embed(model, params)
    hidden = writer.add(model.recurrent, params["recurrent"], read)
    if isinstance(model, SequenceClassifier):
        hidden = writer.pool(model, hidden)
    writer.read_out(params, hidden)
    source = Template(FilePath(__file__).with_name("torch_module.txt").read_text("utf-8"))
    return TorchModule(
        {name: np.asarray(array, order="C") for name, array in writer.arrays.items()},
        source.substitute(
            title=f"A {type(model).__name__} {MARK}",
            read=interface.inputs.name,
            interface=_table(interface),
            carry=json.dumps({array.name: array.axes[1] for array in interface.carry}),
            layers=_indented(writer.layers),
            steps=_indented(writer.steps),
        ),
    )


def is_torch_module(file: FilePath) -> bool:
    """Whether a file is the source of such a module."""
    return MARK in file.read_bytes()[:200].decode("utf-8", "replace")


class _Writer:
    """Writes the lines of a module's `__init__` and `forward`, and collects its weights."""

    def __init__(self) -> None:
        self.layers: list[str] = []
        self.steps: list[str] = []
        self.arrays: dict[str, Any] = {}
        self._variables = 0

    def embed(self, model: LanguageModel, params: Params) -> str:
        """Write the vectors of ids; return the variable's name."""
        size = model.vocabulary_size
        if model.embedding_size is None:
            return self._assign(f"nn.functional.one_hot(ids.long(), {size}).float()")
        self.layers.append(f"self.embedding = nn.Embedding({size}, {model.embedding_size})")
        self.arrays["embedding.weight"] = params["embedding"]["embedding"]
        return self._assign("self.embedding(ids)")

    def add(self, layer: nn.Module, params: Params, inputs: str, path: Path = ()) -> str:
        """Write a layer over a variable [B, T, F]; return the variable of its outputs."""
        if isinstance(layer, Stack):
            for n, part in enumerate(layer.layers):
                name = f"layers_{n}"
                outputs = self.add(part, params[name], inputs, (*path, name))
                add_inputs = n and layer.residual
                inputs = self._assign(f"{outputs} + {inputs}") if add_inputs else outputs
            return inputs
        if isinstance(layer, Bidirectional):
            first, second = (
                self.add(getattr(layer, name), params[name], inputs, (*path, name))
                for name in ("forward", "backward")
            )
            added = f"{first} + {second}"
            joined = f"torch.cat([{first}, {second}], dim=-1)"
            return self._assign(added if layer.merge == "sum" else joined)
        return self._add_direction(layer, params, inputs, path)

    def _add_direction(self, layer: Any, params: Params, inputs: str, path: Path) -> str:
        cell, name = layer.cell, "_".join(("recurrent", *path))
        kind = structure.kind_of(cell, "torch", OPTIONS)
        weights = to_torch(layer.clone(reverse=False), params)
        self.arrays |= {f"{name}.rnn.{part}": array for part, array in weights.items()}
        sizes = f"{weights['weight_ih_l0'].shape[1]}, {cell.features}"
        options = ", batch_first=True"
        if size := getattr(cell, "projection_size", None):
            options += f", proj_size={size}"
        if kind == "rnn" and cell.activation_fn is nn.relu:
            options += ', nonlinearity="relu"'
        module = f"nn.{MODULES[kind]}({sizes}{options})"
        backwards = ", backwards=True" if layer.reverse else ""
        prefix = json.dumps(state_name(path, ""))
        self.layers.append(f"self.{name} = Layer({prefix}, {module}{backwards})")
        outputs = self._new()
        self.steps.append(f"{outputs}, state = self.{name}({inputs}, lengths, carry)")
        self.steps.append("last |= state")
        return outputs

    def pool(self, model: SequenceClassifier, hidden: str) -> str:
        """Write one vector per row, [B, 1, H]; see `SequenceClassifier`."""
        if model.pool == "mean":
            mean = f"{hidden}.sum(dim=1) / lengths.clamp(min=1)[:, None]"
            return self._assign(f"({mean})[:, None]")
        if model.pool == "flatten":
            return self._assign(f"{hidden}.flatten(1)[:, None]")
        last = last_layer(model.recurrent)
        if isinstance(last, Recurrent) and last.reverse:
            return self._assign(f"{hidden}[:, :1]")
        ends = "torch.arange(rows, device=device), lengths.clamp(min=1) - 1"
        at_end = self._assign(f"{hidden}[{ends}][:, None]")
        if not isinstance(last, Bidirectional):
            return at_end
        cell: Any = last.forward.cell
        size = getattr(cell, "projection_size", None) or cell.features
        both = f"{at_end}[..., :{size}], {hidden}[:, :1, {size}:]"
        return self._assign(f"torch.cat([{both}], dim=-1)")

    def read_out(self, params: Params, hidden: str) -> None:
        """Write the logits."""
        if "readout" in params:
            kernel, bias = np.asarray(params["readout"]["kernel"]), params["readout"]["bias"]
            self.arrays |= {"readout.weight": kernel.T, "readout.bias": bias}
            self.layers.append("self.readout = nn.Linear({}, {})".format(*kernel.shape))
            self.steps.append(f"logits = self.readout({hidden})")
            return
        self.arrays["bias"] = params["bias"]
        self.layers.append(f"self.bias = nn.Parameter(torch.zeros({len(params['bias'])}))")
        self.steps.append(f"logits = {hidden} @ self.embedding.weight.T + self.bias")

    def _assign(self, expression: str) -> str:
        name = self._new()
        self.steps.append(f"{name} = {expression}")
        return name

    def _new(self) -> str:
        """Return a name for a variable that is not used yet."""
        self._variables += 1
        return f"x{self._variables}"


def _table(interface: Interface) -> str:
    arrays = [interface.inputs, interface.lengths, *interface.carry, interface.logits]
    return "\n".join(
        f"    {name} [{', '.join(map(str, axes))}] {dtype}: {meaning}"
        for name, dtype, axes, meaning in arrays
    )


def _indented(lines: list[str]) -> str:
    return "\n".join(" " * INDENT + line for line in lines)
