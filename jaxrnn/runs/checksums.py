"""A SHA256SUMS file for a directory, which `sha256sum -c` can check."""

import hashlib
from pathlib import Path

from jaxrnn import atomic
from jaxrnn.runs.files import sha256_of, sync

SUMS = "SHA256SUMS"


def seal(folder: Path) -> None:
    """Write the SHA-256 of every file to SHA256SUMS, and sync the directory and all files in it.

    Raises:
      OSError: if a file cannot be read or written.
    """
    inside = sorted(folder.rglob("*"), key=str)
    names = [path.relative_to(folder).as_posix() for path in inside if path.is_file()]
    lines = "".join(f"{sha256_of(folder / name)}  {name}\n" for name in names).encode()
    atomic.write(folder / SUMS, _header(lines) + lines)
    for path in (*inside, folder):
        sync(path)


def damage(folder: Path) -> str | None:
    """Check a sealed directory against its SHA256SUMS; files that are not listed are ignored.

    Returns:
      a short description of the first problem; None if no listed byte has changed.
    """
    changed = "contents have changed since it was saved (SHA-256 differs)"
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


def _header(lines: bytes) -> bytes:
    """Checksum of the list itself, so that a truncated list is noticed; a comment to sha256sum."""
    return f"# SHA-256 of the lines below: {hashlib.sha256(lines).hexdigest()}\n".encode()
