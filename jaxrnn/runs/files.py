"""Files that are whole or not there, and the fingerprint of any file."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from jaxrnn.text.characters import escape_unprintable


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, as `write_text` does.

    Args:
      path: where; the folder must be there.
      value: JSON values.

    Raises:
      OSError: if it cannot be written; the old file is as it was.
      TypeError, ValueError: if something in it is no JSON value, or a number not finite.
    """
    write_text(path, json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file in one go: whoever reads it, or kills this, finds the old or the new one.

    It is made beside the old one, as `NAME.partial`, so two processes must not write one file.

    Args:
      path: where; the folder must be there.
      text: what it is to hold, in UTF-8.

    Raises:
      OSError: if it cannot be written; the old file is as it was.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        # A file name may hold bytes that are no text; as \udcXX they come back from JSON the same.
        with partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk does not say where
        raise


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
      OSError: if it cannot be read.
      ValueError: if it is no JSON; the one line names the file and the place.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{escape_unprintable(str(path))} is damaged: it is no JSON ({error})"
        ) from None


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's contents, 64 hexadecimal digits; a file of any size.

    Raises:
      OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
