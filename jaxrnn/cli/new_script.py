"""The command `jaxrnn new`: a script with a task of its own, to start from."""

import importlib.util
from pathlib import Path

from jaxrnn.errors import SettingError

TEMPLATE = Path(__file__).with_name("script_template.py")
NAME = "my_study"  # of the script, in the template


def write(path: Path) -> None:
    """Write a new script.

    Raises:
      SettingError: if it would not be a script, or would hide a module from its own imports.
      OSError: if the file exists, or cannot be written.
    """
    if path.suffix != ".py":
        raise SettingError(f"a script's name ends in .py, such as {path.name or NAME}.py")
    if importlib.util.find_spec(path.stem.partition(".")[0]) and not path.exists():
        raise SettingError(f"{path.name} would hide the module {path.stem}; choose another name")
    text = TEMPLATE.read_text("utf-8").replace(NAME, path.stem)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
