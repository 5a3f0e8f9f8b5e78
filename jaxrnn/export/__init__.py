"""Trained networks for other programs: ONNX, StableHLO, PyTorch and safetensors files.

All of them have the same inputs and outputs, which `describe` lists:

    ids [B, T] or features [B, T, F], lengths [B], initial carry -> logits [B, T, V], last carry

`export_run` writes the network of a run; the other functions take a model and its parameters.
"""

from jaxrnn.export.interface import Interface, describe
from jaxrnn.export.onnx import onnx_model
from jaxrnn.export.run import FORMATS, export_run
from jaxrnn.export.stablehlo import stablehlo
from jaxrnn.export.torch import TorchModule, torch_module

__all__ = [
    "FORMATS",
    "Interface",
    "TorchModule",
    "describe",
    "export_run",
    "onnx_model",
    "stablehlo",
    "torch_module",
]
