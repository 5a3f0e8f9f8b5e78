"""Which networks can be written with another system's own recurrent layers."""

import jax
import numpy as np
from flax import linen as nn

from jaxrnn.errors import SettingError
from jaxrnn.interop import structure
from jaxrnn.layers.stack import recurrent_layers
from jaxrnn.models import LanguageModel, SequenceClassifier, SequenceModel
from jaxrnn.types import Params

Network = SequenceModel | LanguageModel | SequenceClassifier
"""The models whose parts other systems have."""


def check_network(model: nn.Module, params: Params, system: str) -> None:
    """Check that a model consists of known recurrent layers and a readout, all in float32.

    Raises:
      SettingError: if it does not; the message names the part.
    """
    name = type(model).__name__
    if not isinstance(model, Network):
        raise SettingError(f"{system} has no {name}")
    base = next(kind for kind in Network.__args__ if isinstance(model, kind))
    if type(model).__call__ is not base.__call__:
        raise SettingError(
            f"{system} has no {name} (it may differ from the {base.__name__} that it extends)"
        )
    structure.levels(model.recurrent)
    types = [leaf.dtype for leaf in jax.tree.leaves(params)]
    for _, layer in recurrent_layers(model):
        cell_dtype = getattr(layer.cell, "dtype", None)
        types += [] if cell_dtype is None else [np.dtype(cell_dtype)]
    for dtype in types:
        if dtype != np.float32:
            raise SettingError(f"a network for {system} must be float32, but this has {dtype}")
