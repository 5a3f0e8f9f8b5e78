"""Names in a file for functions and classes: "jax.numpy:tanh", "jaxrnn.cells.lstm:LSTMCell".

What the user's script defines is named "__main__:Echo", and looked up in that script again: in the
running one, or in one that is loaded, by its path, as a module.
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
"""Where a thing is looked for first: what it says of itself is often a private module."""

SCRIPT = "__jaxrnn_script__"
"""What a loaded script is called; not `__main__`, so that it defines things and runs nothing."""

REMEDY = "bring back what made the run (manifest.json has the versions), or mend config.json"

_scripts: dict[Path, ModuleType] = {}  # those that were loaded
_loading: list[Path] = []


def script_of_main() -> Path | None:
    """The script that is running, as an absolute path.

    None at a prompt, in a notebook, after `python -c`, and when jaxrnn itself is what runs.
    """
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)  # set by python -m
    if spec is not None and spec.name.split(".")[0] == __name__.split(".")[0]:
        return None
    script = Path(getattr(main, "__file__", None) or "").absolute()
    return script if script.is_file() else None


def loading_script() -> bool:
    """Whether a script is being loaded just now. It must then not start anything."""
    return bool(_loading)


def name_of(value: Any) -> str:
    """The "module:qualified name" of a function or class.

    Raises:
      TypeError: if that would not lead back to the very same object.
      ValueError: if it was defined at a prompt or in a notebook, where no later run can find it.

    >>> import jax
    >>> name_of(jax.nn.relu), name_of(jax.lax.tanh), name_of(Path)
    ('jax.nn:relu', 'jax.lax:tanh', 'pathlib:Path')
    """
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None) or ""
    for home in (*PUBLIC, getattr(value, "__module__", None)):
        if home not in sys.modules or _get(sys.modules[home], name) is not value:
            continue
        if home == "__main__" and script_of_main() is None:
            raise ValueError(
                f"{name} is not defined in a file, so no later run could find it; put it in one"
            )
        return f"{'__main__' if home.startswith(SCRIPT) else home}:{name}"
    if inspect.ismethod(value):
        what = f"the bound method {name}"
    elif name.endswith("<lambda>"):
        what = "a lambda"
    elif "<locals>" in name:
        what = f"{name}, which is made inside a function,"
    elif name:
        what = f"{name}, which is not what its module has under this name,"
    else:
        what = f"a {type(value).__name__}"
    how = "define it at" if isinstance(value, type) else "define it with def at"
    raise TypeError(f"{what} cannot be written in config.json; {how} the top of its file")


def find(name: str, script: Path | None = None) -> Any:
    """The function or class of a "module:qualified name".

    Args:
      name: from `name_of`.
      script: what `__main__` stands for; if None, the running script. It is loaded once, unless it
        is the running one. What stands beside it can be imported, as when python runs it.

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
    if found is None:
        file = getattr(module, "__file__", None) or home
        raise ValueError(f"there is no {path!r} in {file}; {REMEDY}")
    return found


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _get(module: ModuleType, path: str) -> Any:
    """What a module has under a qualified name, such as "Outer.Inner"; None if nothing."""
    first, *rest = path.split(".")
    found = vars(module).get(first)  # not getattr: some modules warn of names they have no more
    for part in rest:
        found = getattr(found, part, None)
    return found


def _script_module(script: Path | None) -> ModuleType:
    """The running script, or one that is loaded when it is asked for first."""
    running = script_of_main()
    if script is None and running is None:
        raise ValueError('it is defined in a script; give the path of that as "script"')
    if script is None or (running is not None and running.resolve() == script.resolve()):
        return sys.modules["__main__"]
    path = script.resolve()
    if path not in _scripts:
        _load(path)
    return _scripts[path]


class _Text(SourceFileLoader):
    """Loads a script as python runs it: from its text, not from bytecode kept of an older one."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _load(path: Path) -> None:
    """Run a script as a module, so that it is in `_scripts`."""
    if not path.is_file():
        raise ValueError(
            f'there is no script {path}; put it back, or write where it is in config.json: "script"'
        )
    name = f"{SCRIPT}{len(_scripts) or ''}"
    spec = spec_from_file_location(name, path, loader=_Text(name, str(path)))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = _scripts[path] = module  # dataclasses look their module up there
    _put_first_on_path(path.parent)
    _loading.append(path)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name], _scripts[path]
        raise ValueError(
            f"{path} cannot be loaded ({first_line(error)}); what it runs, and not just defines,"
            ' must be under if __name__ == "__main__":'
        ) from error
    finally:
        _loading.pop()


def _put_first_on_path(folder: Path) -> None:
    """Import from there first, as python does from the folder of the script that it runs."""
    if str(folder) not in sys.path[:1]:
        sys.path.insert(0, str(folder))
