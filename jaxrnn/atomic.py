"""Replace a file atomically and durably."""

import os
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Replace a file; after a kill or a crash it is either the old one or the new one, complete.

    The content is first written to `NAME.partial` beside the file, so two processes must not write
    the same file.

    Args:
      path: the file; its folder must exist.
      content: the new contents.

    Raises:
      OSError: if it cannot be written; the old file is unchanged.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # a full-disk error does not name the file
        raise
