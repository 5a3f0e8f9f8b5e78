"""Names for functions and classes in a file: "jax.numpy:tanh", "jaxrnn.cells.lstm:LSTMCell".

A class that the user's script defines is named "__main__:Echo". To find it again, the running
script is searched if it is the same one; otherwise the script is loaded as a module. Only a session
that defines it again can find a class that was defined at a prompt or in a notebook.
"""

import importlib
import inspect
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

PUBLIC = ("jax.numpy", "jax.nn", "flax.linen", "optax")
"""Searched first, because `__module__` is often a private module."""

SCRIPT = "__jaxrnn_script__"
"""The module name of a loaded script; not `__main__`, so that it runs nothing."""

REMEDY = "restore the code that made the run (manifest.json has the versions), or edit config.json"

_scripts: dict[Path, ModuleType] = {}  # loaded so far
_loading: list[Path] = []


def script_of_main() -> Path | None:
    """Return the absolute path of the running script.

    It is None at a prompt, in a notebook, after `python -c`, and for `python -m jaxrnn`.
    """
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)  # set by python -m
    if spec is not None and spec.name.split(".")[0] == __name__.split(".")[0]:
        return None
    script = Path(getattr(main, "__file__", None) or "").absolute()
    return script if script.is_file() else None


def loading_script() -> bool:
    """Tell whether a script is being loaded now; if so, it must not start a run."""
    return bool(_loading)


def name_of(value: Any) -> str:
    """Return the "module:qualified name" of a function or class.

    Raises:
      TypeError: if that name does not lead back to the same object.

    >>> import jax
    >>> name_of(jax.nn.relu), name_of(jax.lax.tanh), name_of(Path)
    ('jax.nn:relu', 'jax.lax:tanh', 'pathlib:Path')
    """
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None) or ""
    for home in (*PUBLIC, getattr(value, "__module__", None)):
        if home not in sys.modules or _get(sys.modules[home], name) is not value:
            continue
        return f"{'__main__' if home.startswith(SCRIPT) else home}:{name}"
    if inspect.ismethod(value):
        what = f"the bound method {name}"
    elif name.endswith("<lambda>"):
        what = "a lambda"
    elif "<locals>" in name:
        what = f"{name}, which is defined inside a function,"
    elif name:
        what = f"{name}, which is no longer what its module calls {name},"
    else:
        what = f"a {type(value).__name__}"
    how = "define it at" if isinstance(value, type) else "define it with def at"
    raise TypeError(f"{what} cannot be written in config.json; {how} the top of its file")


def find(name: str, script: Path | None = None) -> Any:
    """Find the function or class of a "module:qualified name".

    Args:
      name: from `name_of`.
      script: the script that `__main__` stands for; None for the running script, prompt or
        notebook. It is loaded once, unless it is the running one. Modules beside it can be
        imported, as when python runs it.

    Raises:
      ValueError: if there is no such script, module or name any more.
    """
    home, _, path = name.partition(":")
    if home == "__main__":
        module = _script_module(script)
    else:
        if script is not None and home not in sys.modules:
            _put_first_on_path(script.parent)
        try:
            module = importlib.import_module(home)
        except Exception as error:
            raise ValueError(
                f"{name} cannot be imported ({first_line(error)}); {REMEDY}"
            ) from error
    found = _get(module, path)
    if found is None and home == "__main__" and script is None:
        raise ValueError(
            f"{path} was defined at a prompt or in a notebook; define it again and call"
            ' jaxrnn.resume there, or put it in a script and write the path of that as "script"'
        )
    if found is None:
        file = getattr(module, "__file__", None) or home
        raise ValueError(f"there is no {path!r} in {file}; {REMEDY}")
    return found


def first_line(error: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _get(module: ModuleType, path: str) -> Any:
    """Look up a qualified name such as "Outer.Inner" in a module; None if it is not there."""
    first, *rest = path.split(".")
    found = vars(module).get(first)  # not getattr, because some modules warn about removed names
    for part in rest:
        found = getattr(found, part, None)
    return found


def _script_module(script: Path | None) -> ModuleType:
    """Return the running script, prompt or notebook, or a script that is loaded on first use."""
    running = script_of_main()
    if script is None or (running is not None and running.resolve() == script.resolve()):
        return sys.modules["__main__"]
    path = script.resolve()
    if path not in _scripts:
        _load(path)
    return _scripts[path]


class _Text(SourceFileLoader):
    """Loads a script from its text, as python runs it, not from cached bytecode."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _load(path: Path) -> None:
    """Run a script as a module and add it to `_scripts`."""
    if not path.is_file():
        raise ValueError(
            f'there is no script {path}; restore it, or change the path "script" in config.json'
        )
    name = f"{SCRIPT}{len(_scripts) or ''}"
    spec = spec_from_file_location(name, path, loader=_Text(name, str(path)))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = _scripts[path] = module  # where dataclasses look up their module
    _put_first_on_path(path.parent)
    _loading.append(path)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name], _scripts[path]
        raise ValueError(
            f"{path} cannot be loaded ({first_line(error)}); code that runs the experiment"
            ' must be under if __name__ == "__main__":'
        ) from error
    finally:
        _loading.pop()


def _put_first_on_path(folder: Path) -> None:
    """Import from this folder first, as python does for the script that it runs."""
    if str(folder) not in sys.path[:1]:
        sys.path.insert(0, str(folder))
