"""What a user's script defines is found again: in the running script, or in one that is loaded."""

import json
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
from flax import linen as nn

from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.runs import import_paths
from jaxrnn.runs.config_json import (
    from_json,
    loading_script,
    names_in_main,
    script_of_main,
    to_json,
)

ECHO = """
from __future__ import annotations  # dataclasses then look their own module up

import json
from dataclasses import dataclass

from flax import linen as nn

from beside import SIZE
from jaxrnn.runs import config_json

loading = config_json.loading_script()


@dataclass(frozen=True)
class Echo:
    delay: int = SIZE


def double(x):
    return 2 * x


class Cell(nn.GRUCell):
    activation_fn: nn.Module = double


if __name__ == "__main__":
    script = config_json.script_of_main()
    written = config_json.to_json([Echo(5), double])
    assert config_json.from_json(written, script) == (Echo(5), double)
    assert config_json.from_json(written) == (Echo(5), double)
    assert not loading
    print(json.dumps({"written": written, "script": str(script)}))
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Each test by itself: no script was loaded, and none stays loaded."""
    modules = set(sys.modules)
    monkeypatch.setattr(import_paths, "_scripts", {})
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield
    for name in set(sys.modules) - modules:
        if name.startswith(import_paths.SCRIPT) or name == "beside":
            del sys.modules[name]


@pytest.fixture
def script(tmp_path):
    """A script that imports what stands beside it."""
    (tmp_path / "beside.py").write_text("SIZE = 4\n")
    path = tmp_path / "my echo.py"
    path.write_text(ECHO)
    return path


@pytest.fixture
def run_as_main(monkeypatch):
    """Make a module what is running, as if python had been started with it."""

    def run_as_main(file=None, spec=None):
        main = ModuleType("__main__")
        main.__spec__ = spec
        if file is not None:
            main.__file__ = str(file)
        monkeypatch.setitem(sys.modules, "__main__", main)
        return main

    return run_as_main


def define(module, code):
    exec(compile(code, "main", "exec"), vars(module))


def test_a_run_of_a_script_is_rebuilt_in_another_process(script, environment):
    ran = subprocess.run(
        [sys.executable, script.name],
        cwd=script.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert not ran.returncode, ran.stderr
    said = json.loads(ran.stdout)
    assert said == {
        "written": [{"type": "__main__:Echo", "delay": 5}, {"function": "__main__:double"}],
        "script": str(script),
    }
    echo, double = from_json(said["written"], Path(said["script"]))
    assert echo.delay == 5 and double(3) == 6


def test_a_script_is_loaded_once_and_written_back_unchanged(script, monkeypatch):
    monkeypatch.chdir(script.parent)
    sys.path.append(str(script.parent))  # it must be first
    value = [{"type": "__main__:Echo", "delay": 5}, {"type": "__main__:Echo"}]
    echo, default = from_json(value, script)
    assert sys.path[0] == str(script.parent) and default.delay == 4
    assert type(echo).__module__ == "__jaxrnn_script__"
    script.write_text("raise AssertionError")
    again = from_json({"function": "__main__:double"}, Path(script.name))
    assert again is vars(sys.modules["__jaxrnn_script__"])["double"]
    assert to_json((echo, again)) == [value[0], {"function": "__main__:double"}]


def test_a_cell_of_a_script_comes_back(script):
    cell = import_paths.find("__main__:Cell", script)
    layer = Recurrent(cell(3, gate_fn=nn.hard_sigmoid), reverse=True)
    written = json.loads(json.dumps(to_json(layer)))
    assert written["cell"]["type"] == "__main__:Cell"
    assert written["cell"]["activation_fn"] == {"function": "__main__:double"}
    assert from_json(written, script) == layer


def test_two_scripts_do_not_mix(tmp_path):
    paths = [tmp_path / "a.py", tmp_path / "b.py"]
    for n, path in enumerate(paths):
        path.write_text(f"class Thing:\n    number = {n}\n")
    things = [import_paths.find("__main__:Thing", path) for path in (*paths, *paths)]
    assert [thing.number for thing in things] == [0, 1, 0, 1]
    assert [to_json(thing) for thing in things] == 4 * [{"class": "__main__:Thing"}]


def test_a_default_that_changes_later_changes_no_run(tmp_path):
    code = "from dataclasses import dataclass\n@dataclass\nclass Echo:\n    delay: int = {}\n"
    (tmp_path / "old.py").write_text(code.format(1))
    (tmp_path / "new.py").write_text(code.format(2))
    written = to_json(import_paths.find("__main__:Echo", tmp_path / "old.py")())
    assert from_json({"type": "__main__:Echo"}, tmp_path / "new.py").delay == 2
    assert from_json(written, tmp_path / "new.py").delay == 1


def test_an_edited_script_is_loaded_from_its_text(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "a.py"
    for number in "12":  # of one size, and of one second
        path.write_text(f"class Thing:\n    number = {number}\n")
        os.utime(path, (0, 0))
        assert import_paths.find("__main__:Thing", path).number == int(number)
        import_paths._scripts.clear()


def test_the_running_script_is_not_loaded_again(script, run_as_main):
    main = run_as_main(script)
    define(main, "class Echo: pass")
    assert import_paths.find("__main__:Echo", script) is main.Echo
    assert import_paths.find(
        "__main__:Echo", script.parent / ".." / script.parent.name / script.name
    )
    assert import_paths.find("__main__:Echo") is main.Echo
    assert to_json(main.Echo) == {"class": "__main__:Echo"}
    assert import_paths.SCRIPT not in sys.modules


def test_modules_beside_a_script_can_be_imported(script):
    script.write_text("raise AssertionError")
    (script.parent / "beside.py").write_text("class Thing: pass")
    with pytest.raises(ValueError, match="beside:Thing cannot be imported"):
        import_paths.find("beside:Thing")
    assert import_paths.find("beside:Thing", script).__module__ == "beside"


def test_a_script_knows_while_it_is_loaded(script):
    import_paths.find("__main__:Echo", script)
    assert sys.modules["__jaxrnn_script__"].loading is True
    assert not loading_script()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise RuntimeError('not\\nnow')", r"\(RuntimeError: not\)"),
        ("import sys; sys.exit(2)", r"\(SystemExit: 2\)"),
        ("x = (", r"\(SyntaxError: '\(' was never closed"),
        ("import nosuch", r"\(ModuleNotFoundError: No module named 'nosuch'\)"),
    ],
)
def test_a_script_that_cannot_be_loaded(tmp_path, code, message):
    path = tmp_path / "a.py"
    path.write_text(code)
    with pytest.raises(
        ValueError, match=rf"^task: {path} cannot be loaded {message}.*; code that runs"
    ):
        from_json({"type": "__main__:Echo"}, path, "task")
    assert not loading_script() and "__jaxrnn_script__" not in sys.modules
    path.write_text("class Echo: pass")
    assert import_paths.find("__main__:Echo", path)


def test_a_script_or_name_that_is_gone(script, run_as_main):
    written = {"task": {"type": "__main__:Gone"}}
    with pytest.raises(ValueError, match=rf"^task: there is no 'Gone' in {script}; restore"):
        from_json(written, script)
    with pytest.raises(ValueError, match=r"^task: there is no script /nosuch/a.py; restore it, or"):
        from_json(written, Path("/nosuch/a.py"))
    run_as_main()
    with pytest.raises(ValueError, match=r"^task: Gone was defined at a prompt or in a notebook"):
        from_json(written)


def test_names_from_a_prompt_are_found_once_defined_again(run_as_main):
    echo = "import dataclasses\n@dataclasses.dataclass\nclass Echo: width: int = 3"
    main = run_as_main()
    define(main, echo + "\ndef double(x): return 2 * x")
    written = to_json({"task": main.Echo(5), "scale": main.double, "relu": nn.relu})
    assert names_in_main(written) == ["Echo", "double"]
    assert from_json(written) == {"task": main.Echo(5), "scale": main.double, "relu": nn.relu}
    other = run_as_main()  # another session
    with pytest.raises(ValueError, match=r"^task: Echo was defined at a prompt or in a notebook;"):
        from_json(written)
    define(other, echo + "\ndef double(x): return x + x")
    found = from_json(written)
    assert found["task"] == other.Echo(5) and found["scale"] is other.double


def test_the_running_script(run_as_main, script, monkeypatch):
    run_as_main()  # a prompt, a notebook, python -c
    assert script_of_main() is None
    run_as_main("<stdin>")
    assert script_of_main() is None
    run_as_main(script, ModuleSpec("jaxrnn.__main__", None))  # python -m jaxrnn
    assert script_of_main() is None
    run_as_main(script, ModuleSpec("jaxrnn_lab.echo", None))  # python -m jaxrnn_lab.echo
    assert script_of_main() == script
    monkeypatch.chdir(script.parent)
    run_as_main(script.name)
    assert script_of_main() == script
