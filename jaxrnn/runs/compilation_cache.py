"""JAX's persistent compilation cache, switched on where it is safe.

A compiled program is kept in the user's cache directory, so that the next process loads it
instead of compiling it again. Each jaxlib and processor has a directory of its own: machine code
made for another is never read. The cache may be deleted at any time.

JAX's own settings rule it: JAX_ENABLE_COMPILATION_CACHE=false turns it off, and
JAX_COMPILATION_CACHE_DIR names another directory, which is then left to JAX.
"""

import contextlib
import hashlib
import importlib
import os
import platform
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import jax
import jaxlib.version
import platformdirs

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def enable() -> Path | None:
    """Switch the cache on for this process.

    Entries that a killed process or a full disk cut short are removed first: JAX would warn of
    them in every run, compile anew, and never replace them.

    Returns:
      the directory in use; None where the cache is off or was set up by the user. Where the
      directory cannot be written, one line on standard error says so and the cache stays off.
    """
    settings: Any = jax.config  # its options are attributes that type checkers do not see
    if not settings.jax_enable_compilation_cache or settings.jax_compilation_cache_dir:
        return None
    directory = Path(platformdirs.user_cache_dir("jaxrnn")) / _machine()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _remove_broken(directory)
    except OSError as error:
        print(f"note: no compilation cache in {directory}: {error.strerror}", file=sys.stderr)
        return None
    jax.config.update("jax_compilation_cache_dir", str(directory))
    # Half a second is what a whole small program takes; single operations stay out.
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return directory


def _machine() -> str:
    """A directory name for this jaxlib on this processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        processor = f"{platform.machine()} {platform.processor()}"
    else:  # Linux: the instruction sets, too
        wanted = ("vendor_id", "model", "stepping", "flags", "Features", "CPU ")
        first = cpuinfo.read_text().partition("\n\n")[0]
        processor = platform.machine() + "\n".join(
            line for line in first.splitlines() if line.startswith(wanted)
        )
    digest = hashlib.sha256(processor.encode()).hexdigest()[:12]
    return f"jaxlib-{jaxlib.version.__version__}-{digest}"


def _remove_broken(directory: Path) -> None:
    """Delete the entries that were cut short, looking at each once: when it is new."""
    stamp = directory / "checked"
    checked_until = stamp.stat().st_mtime if stamp.exists() else 0.0
    started = time.time()
    for entry in directory.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # another process was first to remove it
            if entry.stat().st_mtime >= checked_until and not _is_whole(entry.read_bytes()):
                entry.unlink()
    stamp.touch()
    # An entry written while we looked is new to the next process; clocks of files can lag.
    os.utime(stamp, (started - 2, started - 2))


def _is_whole(entry: bytes) -> bool:
    """Whether an entry decompresses to its end; zlib checks its contents, too."""
    if not entry.startswith(_ZSTD_MAGIC):
        try:
            zlib.decompress(entry)
        except zlib.error:
            return False
        return True
    for name in ("compression.zstd", "zstandard"):  # what JAX itself would use
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
