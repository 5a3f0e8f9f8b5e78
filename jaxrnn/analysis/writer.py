"""The tab of a web page in which the network itself writes: its weights, and the tab's HTML.

The script `writer.js` computes one step at a time from a zero carry. It has the cells of
`interop.structure.KINDS`, all but layer normalization, in one `Recurrent` layer or one `Stack`.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from jaxrnn.errors import SettingError
from jaxrnn.interop import structure
from jaxrnn.interop.matrices import cell_params
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Path, Stack
from jaxrnn.models import LanguageModel
from jaxrnn.types import Params

MAX_PARAMETERS = 2_000_000  # 11 MB in base64, and a few milliseconds per token in a browser
SYSTEM = "the page's script"
OPTIONS = ("peepholes", "projection_size", "coupled_gates", "cell_clip")
NO_CLIP = 1e30
TABS = """<fieldset class="tabs">
    <label><input type="radio" name="tab" id="reads" checked> how its cells read</label>
    <label><input type="radio" name="tab" id="writes"> how it writes</label>
  </fieldset>"""


def pack_network(model: nn.Module, params: Params) -> dict[str, Any]:
    """Return the network of a language model as JSON for the page's script.

    Args:
      model: a `LanguageModel` of LSTM, GRU or Elman cells, in float32.
      params: its parameters.

    Returns:
      `layers`, a dictionary for each; and, packed by `pack`, `embedding` [V, F] or None,
      `readout` [H, V] and `readout_bias` [V].

    Raises:
      SettingError: if the script cannot compute the network, or it is too large for a page.

    >>> from jaxrnn import GRUCell
    >>> model, ids = LanguageModel(Recurrent(GRUCell(8)), 5), np.zeros((1, 1), np.int32)
    >>> params = model.init(jax.random.key(0), ids)["params"]
    >>> [layer["kind"] for layer in pack_network(model, params)["layers"]]
    ['gru']
    """
    stack, layers = model.recurrent, _check(model, params)
    embedding: Any = params["embedding"]["embedding"] if "embedding" in params else None
    if "readout" in params:
        readout, bias = params["readout"]["kernel"], params["readout"]["bias"]
    else:  # tied
        readout, bias = np.transpose(embedding), params["bias"]
    return {
        "embedding": None if embedding is None else pack(embedding),
        "layers": [
            _pack_cell(layer.cell, cell_params(params["recurrent"], path))
            | {"residual": n > 0 and isinstance(stack, Stack) and stack.residual}
            for n, (path, layer) in enumerate(layers)
        ],
        "readout": pack(readout),
        "readout_bias": pack(bias),
    }


def pack(array: Any) -> dict[str, str]:
    """Return an array as base64 of its float32 numbers, little-endian and in C order.

    >>> pack(np.array([[0.0, 1.0]]))
    {'float32': 'AAAAAAAAgD8='}
    """
    return {"float32": base64.b64encode(np.asarray(array, "<f4").tobytes()).decode("ascii")}


def tab(network: Mapping[str, Any] | None, names: Sequence[str]) -> dict[str, str]:
    """Return the parts of the page that belong to the tab; they are empty without a network.

    Args:
      network: as from `pack_network`, with `tokenizer`; `vocabulary`, whose tokens are one
        character each, as in `text.tokenizer`; and `prompt`, the text to begin with.
      names: each token as it is displayed on its own.
    """
    if network is None:
        return {"tabs": "", "writer": "", "script": ""}
    data = json.dumps(dict(network) | {"names": list(names)}, separators=(",", ":"))
    data = data.replace("<", "\\u003c")  # so that no string ends the script element
    html, script = (
        files("jaxrnn.analysis").joinpath(name).read_text(encoding="utf-8")
        for name in ("writer.html", "writer.js")
    )
    return {
        "tabs": TABS,
        "writer": html,
        "script": f'<script type="application/json" id="network">{data}</script>\n'
        f'<script>\n"use strict";\n{script}</script>',
    }


def _check(model: Any, params: Params) -> list[tuple[Path, Recurrent]]:
    """Return the layers of a model, each with the path of its parameters."""
    if type(model) is not LanguageModel:
        raise SettingError(f"{SYSTEM} has no {type(model).__name__}")
    levels = structure.levels(model.recurrent)
    if isinstance(model.recurrent, Stack) and len(model.recurrent.layers) < len(levels):
        raise SettingError(f"{SYSTEM} has no Stack inside another")
    layers = [direction for level in levels for direction in level]
    types = [np.dtype(leaf.dtype) for leaf in jax.tree.leaves(params)]
    for _, layer in layers:
        structure.kind_of(layer.cell, SYSTEM, OPTIONS)
        types += [np.dtype(dtype)] if (dtype := getattr(layer.cell, "dtype", None)) else []
    if wrong := [dtype for dtype in types if dtype != np.float32]:
        raise SettingError(f"{SYSTEM} computes in float32, but the network in {wrong[0]}")
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    if size > MAX_PARAMETERS:
        raise SettingError(
            f"the network has {size:,} parameters, and a page at most {MAX_PARAMETERS:,}"
        )
    return layers


def _pack_cell(cell: Any, params: Params) -> dict[str, Any]:
    """Pack a cell: its sizes and options, and its weights with concatenated gates.

    `input` [F, kH] multiplies the inputs, `hidden` the hidden state; `bias` [kH] is added.
    """
    kind, units = structure.kind_of(cell, SYSTEM, OPTIONS), cell.features
    packed: dict[str, Any] = {"kind": kind, "units": units, "outputs": units}
    if kind == "rnn":
        packed["relu"] = cell.activation_fn is nn.relu
        arrays = {"input": params["i"]["kernel"], "hidden": params["h"]["kernel"]}
        arrays["bias"] = params["i"]["bias"]
    elif kind == "gru":
        packed["reset_after"] = structure.resets_after(cell)
        arrays = {"input": _join(params, "i", "rzn", "kernel")}
        arrays["bias"] = _join(params, "i", "rzn", "bias")
        arrays["hidden"] = _join(params, "h", "rz", "kernel")
        arrays["hidden_n"] = params["hn"]["kernel"]
        if packed["reset_after"]:
            arrays["bias_n"] = params["hn"]["bias"]
    else:
        packed["gates"] = gates = "igo" if getattr(cell, "coupled_gates", False) else "ifgo"
        packed["clip"] = getattr(cell, "cell_clip", None) or NO_CLIP
        arrays = {"input": _join(params, "i", gates, "kernel")}
        arrays["hidden"] = _join(params, "h", gates, "kernel")
        arrays["bias"] = _join(params, "h", gates, "bias")
        for peephole in ("pi", "pf", "po"):
            arrays[peephole] = params.get(peephole, np.zeros(units))
        if "projection" in params:
            packed["outputs"] = cell.projection_size
            arrays["projection"] = params["projection"]["kernel"]
    return packed | {name: pack(array) for name, array in arrays.items()}


def _join(params: Params, side: str, gates: str, name: str) -> np.ndarray:
    """Concatenate an array of several gates: of the product with the input or the hidden state."""
    return np.concatenate([np.asarray(params[side + gate][name]) for gate in gates], axis=-1)
