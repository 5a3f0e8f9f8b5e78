"""The initial weights of a TensorFlow 1 network, such as the classic lab's, from a .npz file."""

import hashlib
import io
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from jaxrnn.errors import SettingError
from jaxrnn.interop.tf1 import from_tf1, to_tf1
from jaxrnn.models import SequenceModel
from jaxrnn.runs import import_paths
from jaxrnn.types import Params

NAMES = (
    ("init.lstm_kernel", "init.lstm_bias", "init.readout_kernel", "init.readout_bias"),
    (
        "rnn/basic_lstm_cell/kernel",
        "rnn/basic_lstm_cell/bias",
        "fully_connected/weights",
        "fully_connected/biases",
    ),
)
"""The two sets of names: those of tests/goldens, and those of the lab's own variables."""

DAMAGE = (ValueError, EOFError, OSError, RuntimeError)
DAMAGE += (zipfile.BadZipFile, zlib.error, tokenize.TokenError)
"""What NumPy, zipfile and zlib raise for a damaged file, or for one with pickled objects."""


def read(file: Path, model: object, like: Params) -> tuple[Params, str]:
    """Read the parameters of a model with one LSTM layer.

    The file has [F+H, 4H] and [4H] of a `BasicLSTMCell` whose forget bias is 1.0, and [H, V] and
    [V] of the readout, by either set of `NAMES`. Other arrays in it are ignored.

    Args:
      file: the .npz file.
      model: the model that they are for.
      like: its parameters, of any value.

    Returns:
      the parameters, and the SHA-256 of the file.

    Raises:
      SettingError: if they do not fit the model, or the file is not a complete .npz file.
      OSError: if it cannot be read.
    """
    content = file.read_bytes()
    only = (
        f"the weights in {file} are for a SequenceModel with one layer of LSTM cells without"
        " options (--cell lstm --layers 1)"
    )
    if not isinstance(model, SequenceModel):
        raise SettingError(f"{only}, not for a {type(model).__name__}")
    try:
        variables = to_tf1(model.recurrent, like["recurrent"])
    except ValueError as error:
        raise SettingError(f"{only}: {error}") from None
    if len(variables) > 2:
        raise SettingError(f"{only}, not for {len(variables) // 2} layers")
    readout = like["readout"]
    own = [*variables.values(), readout["kernel"], readout["bias"]]
    *layer, kernel, bias = _arrays(file, content, [array.shape for array in own])
    recurrent = from_tf1(model.recurrent, dict(zip(variables, layer, strict=True)))
    dtype = readout["bias"].dtype
    readout = {"kernel": kernel.astype(dtype), "bias": bias.astype(dtype)}
    params = {"recurrent": recurrent, "readout": readout}
    return params, hashlib.sha256(content).hexdigest()


def _arrays(file: Path, content: bytes, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Return the four arrays of the file, after a check of their shapes."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise SettingError(f"{file} is not a .npz file; write one with numpy.savez")
    try:
        with np.load(io.BytesIO(content)) as archive:
            names = max(NAMES, key=lambda names: len(set(names) & set(archive.files)))
            found = {name: np.asarray(archive[name]) for name in names if name in archive.files}
    except DAMAGE as error:
        raise SettingError(f"{file} cannot be read: {import_paths.first_line(error)}") from None
    for name, shape in zip(names, shapes, strict=True):
        if name not in found:
            either = " or ".join(", ".join(names) for names in NAMES)
            raise SettingError(f"{file} has no {name}; it must have {either}")
        array = found[name]
        if array.shape != shape or array.dtype.kind != "f":
            raise SettingError(
                f"{name} is {array.dtype}{list(array.shape)} in {file}, but this model needs"
                f" float{list(shape)}; choose the sizes that the file is for"
            )
    return [found[name] for name in names]
