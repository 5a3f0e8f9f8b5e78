"""Experiments as JSON: how config.json stores one, and how it is rebuilt.

In Python                      in JSON
None, bool, int, float, str    the same; inf, -inf and nan: {"float": "inf"}
tuple, list                    a list, read back as a tuple
dict                           an object; {"dict": {...}} if it could be mistaken for a row below
FrozenDict                     {"frozen_dict": {...}}
dataclass, Flax module         {"type": "jaxrnn.cells.lstm:LSTMCell", "features": 128, ...}
function, class                {"function": "jax.numpy:tanh"}, {"class": "jax.numpy:bfloat16"}
Path, NumPy dtype              {"path": "data/ptb.txt"}, {"dtype": "float32"}
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax.core import FrozenDict

from jaxrnn.runs import import_paths
from jaxrnn.runs.import_paths import loading_script, script_of_main

__all__ = ["from_json", "loading_script", "script_of_main", "to_json"]

LEAVES: dict[str, Callable[[str], Any]] = {"float": float, "path": Path, "dtype": np.dtype}
MAPPINGS: dict[str, type] = {"dict": dict, "frozen_dict": FrozenDict}
NAMES = ("function", "class")
MARKS = {*LEAVES, *MAPPINGS, *NAMES}
"""An object with one of these as its only key does not stand for a dict."""


def to_json(value: Any, where: str = "") -> Any:
    """Convert a value to JSON values, from which `from_json` makes an equal value.

    Every field of a dataclass or Flax module is written, so that a later change of a default
    changes no run. Only a field at a default without a name, such as an initializer made by a
    factory, is left out.

    Args:
      value: made of the types in the table above.
      where: its name in error messages, such as "model.recurrent.cell"; parts extend it.

    Raises:
      TypeError: if a part cannot be written.
      ValueError: if one Flax module occurs twice: the two share parameters, and modules rebuilt
        from the file would not.

    >>> to_json({"rates": (0.5, math.inf), "activation": nn.tanh})
    {'rates': [0.5, {'float': 'inf'}], 'activation': {'function': 'jax.numpy:tanh'}}
    """
    return _write(value, where, {})


def from_json(value: Any, script: Path | None = None, where: str = "") -> Any:
    """Rebuild a value that `to_json` converted.

    This imports modules and calls the constructors of dataclasses and Flax modules, nothing else.

    Args:
      value: from `json.loads`.
      script: the script to find the names of `__main__` in; see `import_paths.find`.
      where: its name in error messages.

    Raises:
      ValueError: if something named no longer exists, or has other fields.

    >>> from jaxrnn.cells import LSTMCell
    >>> from_json(to_json(LSTMCell(8, dtype=jax.numpy.bfloat16))).dtype.__name__
    'bfloat16'
    """
    if isinstance(value, list):
        return tuple(from_json(part, script, f"{where}[{n}]") for n, part in enumerate(value))
    if not isinstance(value, dict):
        return value
    if "type" in value:
        return _read_fields(value, script, where)
    if len(value) != 1 or not MARKS.issuperset(value):
        return _read_parts(value, script, where)
    [(mark, content)] = value.items()
    if mark in MAPPINGS and isinstance(content, dict):
        return MAPPINGS[mark](_read_parts(content, script, where))
    if mark in NAMES:
        return _find(content, script, where)
    try:
        return LEAVES[mark](str(content))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(_at(where, f"{content!r} cannot be a {mark}")) from error


def names_in_main(written: Any) -> list[str]:
    """List the functions and classes of `__main__` in what `to_json` returned.

    >>> names_in_main({"task": {"type": "__main__:Echo", "alphabet": "ab"}})
    ['Echo']
    """
    if isinstance(written, list):
        return [name for part in written for name in names_in_main(part)]
    if not isinstance(written, dict):
        return []
    names = [
        part.removeprefix("__main__:")
        for key, part in written.items()
        if key in ("type", *NAMES) and isinstance(part, str) and part.startswith("__main__:")
    ]
    return names + [name for part in written.values() for name in names_in_main(part)]


def _write(value: Any, where: str, modules: dict[int, str]) -> Any:
    """Convert a value; `modules` maps the id of each Flax module met so far to its name."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, Path):
        return {"path": str(value)}
    if type(value) in (tuple, list):
        return [_write(part, f"{where}[{n}]", modules) for n, part in enumerate(value)]
    if type(value) in (dict, FrozenDict):
        return _write_parts(value, where, modules)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _write_fields(value, where, modules)
    if isinstance(value, np.dtype) and value.isbuiltin:  # its name identifies it
        return {"dtype": value.name}
    if callable(value):
        return {NAMES[isinstance(value, type)]: _name_of(value, where)}
    what, remedy = f"a {type(value).__name__}", "use numbers, strings, tuples, dicts or dataclasses"
    if isinstance(value, np.ndarray | jax.Array):
        what, remedy = "an array", "compute it where it is used"
    raise TypeError(_at(where, f"{what} cannot be written in config.json; {remedy}"))


def _write_parts(value: Mapping[Any, Any], where: str, modules: dict[int, str]) -> Any:
    """Convert a dict, marked as one if it could be mistaken for something else."""
    for key in value:
        if type(key) is not str:
            raise TypeError(_at(where, f"keys must be strings in config.json, not {key!r}"))
    parts = {key: _write(part, _dot(where, key), modules) for key, part in value.items()}
    if isinstance(value, FrozenDict):
        return {"frozen_dict": parts}
    ambiguous = "type" in parts or (len(parts) == 1 and MARKS.issuperset(parts))
    return {"dict": parts} if ambiguous else parts


def _read_parts(parts: dict[str, Any], script: Path | None, where: str) -> dict[str, Any]:
    return {key: from_json(part, script, _dot(where, key)) for key, part in parts.items()}


def _write_fields(value: Any, where: str, modules: dict[int, str]) -> dict[str, Any]:
    """Convert a dataclass or module to its type and its fields by name."""
    is_module = isinstance(value, nn.Module)
    if is_module and id(value) in modules:
        message = f"the same module as {modules[id(value)]}, so they share parameters"
        raise ValueError(_at(where, f"{message}; give each one of its own"))
    if is_module:
        modules[id(value)] = where
    written: dict[str, Any] = {"type": _name_of(type(value), where)}
    for name, field in _fields(type(value)).items():
        part = getattr(value, name)
        if is_module and name == "name" and part is None:
            continue  # Flax chooses one
        if name == "type":
            raise TypeError(_at(where, "a field must not be called type in config.json; rename it"))
        try:
            written[name] = _write(part, _dot(where, name), modules)
        except TypeError:
            if part is not field.default:
                raise
    return written


def _read_fields(value: dict[str, Any], script: Path | None, where: str) -> Any:
    fields = dict(value)
    name = fields.pop("type")
    cls = _find(name, script, where)
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise ValueError(
            _at(where, f"{name} is not a dataclass or Flax module; {import_paths.REMEDY}")
        )
    unknown = [field for field in fields if field not in _fields(cls)]
    if unknown:
        raise ValueError(_at(where, f"{name} has no field {unknown[0]!r}; {import_paths.REMEDY}"))
    parts = _read_parts(fields, script, where)
    try:
        return cls(**parts)
    except (TypeError, ValueError) as error:
        problem = (
            f"{name} cannot be created ({import_paths.first_line(error)}); {import_paths.REMEDY}"
        )
        raise ValueError(_at(where, problem)) from error


def _fields(cls: type) -> dict[str, dataclasses.Field]:
    """Return the fields that are written, by name: those of `__init__`, without a Flax parent."""
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    if issubclass(cls, nn.Module):
        del fields["parent"]
    return fields


def _name_of(value: Any, where: str) -> str:
    try:
        return import_paths.name_of(value)
    except (TypeError, ValueError) as error:
        raise type(error)(_at(where, str(error))) from None


def _find(name: Any, script: Path | None, where: str) -> Any:
    try:
        return import_paths.find(str(name), script)
    except ValueError as error:
        raise ValueError(_at(where, str(error))) from error


def _at(where: str, message: str) -> str:
    return f"{where}: {message}" if where else message


def _dot(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
