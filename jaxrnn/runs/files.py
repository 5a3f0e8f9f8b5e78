"""JSON files, SHA-256 of files, and paths that cannot be used."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from jaxrnn import atomic
from jaxrnn.errors import RunError
from jaxrnn.text.characters import escape_unprintable


def require_decodable(path: Path) -> None:
    """Check that libraries written in C++, which take paths as UTF-8, can use an absolute path.

    Raises:
      RunError: if Python could not decode the path: it is not UTF-8, or the locale is ASCII.
    """
    name = str(path.absolute())
    try:
        name.encode()
    except UnicodeEncodeError:
        try:
            os.fsencode(name).decode()
        except UnicodeError:
            raise RunError(f"the path {name} cannot be used: it is not valid UTF-8") from None
        raise RunError(
            f"the path {name} cannot be used in this locale: set PYTHONUTF8=1, or a UTF-8 locale"
        ) from None


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file atomically; see `atomic.write`.

    Args:
      path: the file; its folder must exist.
      value: a JSON value.

    Raises:
      OSError: if it cannot be written; the old file is unchanged.
      TypeError, ValueError: if it contains something JSON cannot hold, or a number is not finite.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2) + "\n"
    # A file name may hold bytes that are not UTF-8; as \udcXX they survive a trip through JSON.
    atomic.write(path, text.encode("utf-8", "backslashreplace"))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
      OSError: if it cannot be read.
      ValueError: if it is not JSON; the message is one line and names the file and the position.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        name = escape_unprintable(str(path))
        raise ValueError(f"{name} is damaged: it is not JSON ({error})") from None


def rename_durably(source: Path, target: Path) -> None:
    """Rename a file or directory atomically, and sync its folder so that the name survives.

    Sync what is inside first.

    Raises:
      OSError: if that fails.
    """
    source.rename(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Flush a file's contents, or a directory's entries, to the disk.

    Raises:
      OSError: if that fails.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Compute the SHA-256 of a file of any size, as 64 hexadecimal digits.

    Raises:
      OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
