"""Converting weights to and from other systems, and saving them as safetensors files.

Weights are plain dictionaries of NumPy arrays; none of the other systems is imported. Every
conversion takes the layer that the weights are for, a `Recurrent`, `Bidirectional` or `Stack`, and
works on that layer's parameters (`params["recurrent"]` of a `SequenceModel`).

>>> import numpy as np
>>> from jaxrnn.cells import LSTMCell
>>> from jaxrnn.layers.recurrent import Recurrent
>>> layer = Recurrent(LSTMCell(2))
>>> rng = np.random.default_rng(0)
>>> weights = {"weight_ih_l0": rng.normal(size=(8, 3)), "weight_hh_l0": rng.normal(size=(8, 2))}
>>> params = from_torch(layer, weights)
>>> params["cell"]["if"]["kernel"].shape, sorted(to_torch(layer, params))
((3, 2), ['bias_hh_l0', 'bias_ih_l0', 'weight_hh_l0', 'weight_ih_l0'])
"""

from jaxrnn.interop.files import load_params, save_params
from jaxrnn.interop.keras import from_keras, to_keras
from jaxrnn.interop.onnx import from_onnx, to_onnx
from jaxrnn.interop.tf1 import from_tf1, to_tf1
from jaxrnn.interop.torch import from_torch, to_torch

__all__ = [
    "from_keras",
    "from_onnx",
    "from_tf1",
    "from_torch",
    "load_params",
    "save_params",
    "to_keras",
    "to_onnx",
    "to_tf1",
    "to_torch",
]
