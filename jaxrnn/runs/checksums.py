"""A directory that proves itself: SHA256SUMS, in the format of sha256sum, lists its files."""

import hashlib
import os
from pathlib import Path

from jaxrnn.runs.files import sha256_of

SUMS = "SHA256SUMS"


def seal(folder: Path) -> None:
    """List every file in SHA256SUMS, and bring the directory and all in it to the disk.

    Raises:
      OSError: if something cannot be read or written.
    """
    inside = sorted(folder.rglob("*"), key=str)
    names = [path.relative_to(folder).as_posix() for path in inside if path.is_file()]
    lines = "".join(f"{sha256_of(folder / name)}  {name}\n" for name in names).encode()
    (folder / SUMS).write_bytes(_header(lines) + lines)
    for path in (*inside, folder / SUMS, folder):
        sync(path)


def damage(folder: Path) -> str | None:
    """What is wrong with a sealed directory, in a few words; None if every byte is as it was.

    Files that are not in the list do not matter.
    """
    changed = "not the bytes that were saved (SHA-256 differs)"
    file = folder / SUMS
    try:
        header, end, lines = file.read_bytes().partition(b"\n")
        if header + end != _header(lines):
            return f"{file}: {changed}"
        for line in lines.decode().splitlines():
            digest, _, name = line.partition("  ")
            file = folder / name
            if sha256_of(file) != digest:
                return f"{file}: {changed}"
    except FileNotFoundError:
        return f"{folder} has no {SUMS}" if file == folder / SUMS else f"{file} is missing"
    except OSError as error:
        return f"{file}: {error.strerror}"
    return None


def sync(path: Path) -> None:
    """Bring a file's contents, or a directory's names, to the disk.

    Raises:
      OSError: if that fails.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _header(lines: bytes) -> bytes:
    """The first line, a comment to sha256sum, so that the list cannot be cut short unseen."""
    return f"# SHA-256 of the lines below: {hashlib.sha256(lines).hexdigest()}\n".encode()
