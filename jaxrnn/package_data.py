"""Data files of other packages."""

import importlib.util
from pathlib import Path

from jaxrnn.errors import RunError


def package_file(module: str, inside: str, missing: str) -> Path:
    """Return a file or folder of an installed package, without importing the package.

    Args:
      module: the package's module, such as "sklearn".
      inside: the path in it.
      missing: the error if the package is not installed: what to install.

    Raises:
      RunError: if the package is not installed, or lacks the file.
    """
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise RunError(missing)
    path = Path(found.submodule_search_locations[0]) / inside
    if not path.exists():
        raise RunError(
            f"this version of the package {module} has no {inside}: install another version"
        )
    return path
