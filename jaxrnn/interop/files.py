"""Parameters as safetensors files, which other systems can read and which contain no code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxrnn import atomic
from jaxrnn.types import Params

_TYPES = {"BOOL": "bool", "BF16": "bfloat16", "C64": "complex64"} | {
    f"{letter}{bits}": f"{name}{bits}"
    for letter, name in (("F", "float"), ("I", "int"), ("U", "uint"))
    for bits in (8, 16, 32, 64)
    if (letter, bits) != ("F", 8)
}
"""NumPy's names of the format's dtypes. safetensors' own NumPy reader lacks bfloat16."""


def save_params(
    path: str | Path, params: Params, metadata: Mapping[str, str] | None = None
) -> None:
    """Write the parameters of any model to a safetensors file.

    An existing file is replaced only once the new one is complete.

    Args:
      path: the file.
      params: nested dictionaries of arrays. In the file an array is named by its keys joined with
        slashes, such as `recurrent/cell/hf/bias`.
      metadata: text to store with them, by name.

    Raises:
      OSError: if the file cannot be written.
      ValueError: if a key contains a slash, or the format does not support an array's type.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_params(f"{folder}/model.safetensors", {"readout": {"bias": np.arange(3.0)}})
    ...     load_params(f"{folder}/model.safetensors")
    {'readout': {'bias': array([0., 1., 2.])}}
    """
    atomic.write(Path(path), pack_params(params, metadata))


def pack_params(params: Params, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the content of the file that `save_params` writes; raises ValueError as it does."""
    import safetensors.numpy

    known = set(_TYPES.values())
    for keys, array in flatten_dict(params).items():
        if any("/" in key for key in keys):
            raise ValueError(f"{keys} has a slash in a name, but slashes separate names in a file")
        if str(getattr(array, "dtype", None)) not in known:
            name = "/".join(keys)
            raise ValueError(
                f"{name} must be an array of a type that the file can hold, not {array!r:.60}"
            )
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    # The writer copies an array's memory as it is, so a transposed view needs C order first.
    arrays = {name: np.asarray(array, order="C") for name, array in flat.items()}
    return safetensors.numpy.save(arrays, dict(metadata) if metadata else None)


def load_params(path: str | Path) -> Params:
    """Read a safetensors file: from `save_params`, bit for bit, or from another system.

    Args:
      path: the file.

    Returns:
      nested dictionaries of NumPy arrays.

    Raises:
      OSError: if the file cannot be read.
      ValueError: if it is not a complete safetensors file, or has a dtype that NumPy lacks.
    """
    import safetensors

    path = Path(path)
    try:
        arrays = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from None
    flat = {}
    for name, array in arrays:
        if array["dtype"] not in _TYPES:
            raise ValueError(f"{path} has {name} in {array['dtype']}, which NumPy does not support")
        dtype = jnp.dtype(_TYPES[array["dtype"]])
        flat[name] = np.frombuffer(array["data"], dtype).reshape(array["shape"])
    return unflatten_dict(flat, sep="/")
