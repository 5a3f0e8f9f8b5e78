"""JAX's persistent compilation cache, enabled where it is safe.

Compiled programs are stored in the user's cache directory, so that the next process loads them
instead of compiling again. Each version of jaxlib and each kind of processor has a directory of its
own, because machine code for one can crash on another. The cache may be deleted at any time.

JAX's own settings take precedence: JAX_ENABLE_COMPILATION_CACHE=false turns it off, and
JAX_COMPILATION_CACHE_DIR names another directory, which is then managed by JAX alone.
"""

import contextlib
import hashlib
import importlib
import os
import platform
import time
import zlib
from pathlib import Path
from typing import Any

import jax
import jaxlib.version
import platformdirs

from jaxrnn.errors import RunError
from jaxrnn.runs.files import require_decodable
from jaxrnn.runs.machine import cpuinfo
from jaxrnn.runs.progress import note

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def enable() -> Path | None:
    """Enable the cache for this process.

    Entries truncated by a killed process or a full disk are removed first: JAX would warn about
    them in every run, compile again, and never replace them.

    Returns:
      the directory in use; None if the cache is off or was set up by the user. If the directory
      cannot be used, one line on standard error says so and the cache stays off.
    """
    settings: Any = jax.config  # its options are attributes unknown to type checkers
    if not settings.jax_enable_compilation_cache or settings.jax_compilation_cache_dir:
        return None
    directory = Path(platformdirs.user_cache_dir("jaxrnn")) / _machine()
    try:
        require_decodable(directory)
        directory.mkdir(parents=True, exist_ok=True)
        _remove_broken(directory)
    except OSError as error:
        note(f"no compilation cache in {directory}: {error.strerror}")
        return None
    except RunError as error:
        note(f"no compilation cache: {error}")
        return None
    jax.config.update("jax_compilation_cache_dir", str(directory))
    # A small program takes half a second to compile; single operations are not worth storing.
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return directory


def _machine() -> str:
    """Return a directory name for this jaxlib on this processor and its instruction sets."""
    wanted = ("vendor_id", "model", "stepping", "flags", "Features", "CPU ")
    facts = [f"{name}: {value}" for name, value in cpuinfo().items() if name.startswith(wanted)]
    processor = "\n".join([platform.machine(), *(facts or [platform.processor()])])
    digest = hashlib.sha256(processor.encode()).hexdigest()[:12]
    return f"jaxlib-{jaxlib.version.__version__}-{digest}"


def _remove_broken(directory: Path) -> None:
    """Delete truncated entries. Each entry is checked once, by the first process after it."""
    stamp = directory / "checked"
    checked_until = stamp.stat().st_mtime if stamp.exists() else 0.0
    started = time.time()
    for entry in directory.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # another process removed it first
            if entry.stat().st_mtime >= checked_until and not _is_complete(entry.read_bytes()):
                entry.unlink()
    stamp.touch()
    # Backdate the stamp: entries written during the check are new, and file clocks can lag.
    os.utime(stamp, (started - 2, started - 2))


def _is_complete(entry: bytes) -> bool:
    """Tell whether an entry can be decompressed to its end; zlib checks its contents, too."""
    if not entry.startswith(_ZSTD_MAGIC):
        try:
            zlib.decompress(entry)
        except zlib.error:
            return False
        return True
    for name in ("compression.zstd", "zstandard"):  # as JAX itself chooses
        try:
            zstd = importlib.import_module(name)
        except ImportError:
            continue
        try:
            zstd.decompress(entry)
        except zstd.ZstdError:
            return False
        return True
    return True
