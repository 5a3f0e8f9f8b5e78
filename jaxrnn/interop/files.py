"""Parameters as safetensors files, which any system can read and which hold no code."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxrnn.types import Params

_TYPES = {"BOOL": "bool", "BF16": "bfloat16", "C64": "complex64"} | {
    f"{letter}{bits}": f"{name}{bits}"
    for letter, name in (("F", "float"), ("I", "int"), ("U", "uint"))
    for bits in (8, 16, 32, 64)
    if (letter, bits) != ("F", 8)
}
"""The format's names of number types, and NumPy's. Its own reader has no bfloat16."""


def save_params(
    path: str | Path, params: Params, metadata: Mapping[str, str] | None = None
) -> None:
    """Write parameters of any model as a safetensors file.

    The file is complete or not there: an older one of that name stays until the new one is whole.

    Args:
      path: the file.
      params: nested dictionaries of arrays. A file's name of an array is its keys with slashes
        between them, such as `recurrent/cell/hf/bias`.
      metadata: anything else to keep in the file.

    Raises:
      OSError: if the file cannot be written.
      ValueError: if a name has a slash in it, or an array is of a type that the file cannot hold.
    """
    import safetensors.numpy

    path, known = Path(path), set(_TYPES.values())
    for keys, array in flatten_dict(params).items():
        if any("/" in key for key in keys):
            raise ValueError(f"{keys} has a slash in a name, which a file keeps between names")
        if str(getattr(array, "dtype", None)) not in known:
            name = "/".join(keys)
            raise ValueError(
                f"{name} must be an array of a type that files hold, not {array!r:.60}"
            )
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    # The writer takes the memory as it lies, so a transposed view must be laid out anew.
    arrays = {name: np.asarray(array, order="C") for name, array in flat.items()}
    content = safetensors.numpy.save(arrays, dict(metadata) if metadata else None)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def load_params(path: str | Path) -> Params:
    """Read what `save_params` wrote, to the bit, or another system's safetensors file.

    Returns:
      nested dictionaries of NumPy arrays.

    Raises:
      OSError: if the file cannot be read.
      ValueError: if it is no whole safetensors file, or holds a type of number that NumPy lacks.
    """
    import safetensors

    path = Path(path)
    try:
        arrays = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from None
    flat = {}
    for name, array in arrays:
        if array["dtype"] not in _TYPES:
            raise ValueError(f"{path} has {name} in {array['dtype']}, which cannot be read here")
        dtype = jnp.dtype(_TYPES[array["dtype"]])
        flat[name] = np.frombuffer(array["data"], dtype).reshape(array["shape"])
    return unflatten_dict(flat, sep="/")
