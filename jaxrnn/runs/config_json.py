"""What config.json holds of a run, and how the run is rebuilt from it.

In Python                      in JSON
None, bool, int, float, str    the same; inf, -inf and nan: {"float": "inf"}
tuple, list                    a list, read back as a tuple
dict                           an object; {"dict": {...}} if it looks like a line below
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
"""What can be the one key of an object that stands for something else than a dict."""


def to_json(value: Any, where: str = "") -> Any:
    """Turn a value into one that `json.dumps` can write and `from_json` makes equal to it again.

    Of a dataclass or Flax module every field is written, so that a default that changes later
    changes no run. Only a field at a default that has no name, such as an initialiser made by a
    factory, is left out.

    Args:
      value: what the table above has, made of nothing else.
      where: what errors call it. Parts are named from there: "model.recurrent.cell.features".

    Raises:
      TypeError: if a part cannot be written.
      ValueError: if a part was defined at a prompt or in a notebook, or one Flax module stands in
        two places: they share parameters, and modules made from the file would not.

    >>> to_json({"rates": (0.5, math.inf), "activation": nn.tanh})
    {'rates': [0.5, {'float': 'inf'}], 'activation': {'function': 'jax.numpy:tanh'}}
    """
    return _write(value, where, {})


def from_json(value: Any, script: Path | None = None, where: str = "") -> Any:
    """Undo `to_json`. Names are looked up, and dataclasses and modules made; nothing else is run.

    Args:
      value: what `json.loads` gives.
      script: where the names of `__main__` are looked up, as `names.find` does.
      where: what errors call it.

    Raises:
      ValueError: if something named is not there any more, or has other fields.

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


def _write(value: Any, where: str, modules: dict[int, str]) -> Any:
    """As `to_json`; `modules` has, by its id, where each Flax module was met."""
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
    if isinstance(value, np.dtype) and value.isbuiltin:  # its name says all of it
        return {"dtype": value.name}
    if callable(value):
        return {NAMES[isinstance(value, type)]: _name_of(value, where)}
    what, remedy = f"a {type(value).__name__}", "use numbers, strings, tuples, dicts or dataclasses"
    if isinstance(value, np.ndarray | jax.Array):
        what, remedy = "an array", "make it where it is used"
    raise TypeError(_at(where, f"{what} cannot be written in config.json; {remedy}"))


def _write_parts(value: Mapping[Any, Any], where: str, modules: dict[int, str]) -> Any:
    """A dict, marked if it would be taken for something else."""
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
    """A dataclass or module: its type, and its fields by name."""
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
            continue  # Flax finds one
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
    made = _find(name, script, where)
    if not (isinstance(made, type) and dataclasses.is_dataclass(made)):
        raise ValueError(
            _at(where, f"{name} is no dataclass or Flax module; {import_paths.REMEDY}")
        )
    odd = [field for field in fields if field not in _fields(made)]
    if odd:
        raise ValueError(_at(where, f"{name} has no field {odd[0]!r}; {import_paths.REMEDY}"))
    parts = _read_parts(fields, script, where)
    try:
        return made(**parts)
    except (TypeError, ValueError) as error:
        problem = f"{name} cannot be made ({import_paths.first_line(error)}); {import_paths.REMEDY}"
        raise ValueError(_at(where, problem)) from error


def _fields(made: type) -> dict[str, dataclasses.Field]:
    """What a dataclass is made of; a Flax module's parent is none of it."""
    fields = {field.name: field for field in dataclasses.fields(made) if field.init}
    if issubclass(made, nn.Module):
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
