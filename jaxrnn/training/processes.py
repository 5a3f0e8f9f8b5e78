"""Several processes that train one run together, on one machine or on many.

JAX runs one program on the devices of all processes. What Python decides between two calls (how
many steps the next one takes, whether to save or to stop) must be the same in each of them: `share`
tells every process what the others would do. Process 0 alone writes files and prints.

JAX ends the other processes if one dies, but by an abort with a stack trace. Here they print one
line and exit with code 4. docs/scaling.md shows how to start and resume such runs.
"""

import contextlib
import ctypes
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import jax
import numpy as np

from jaxrnn.checks import check_counts
from jaxrnn.errors import SettingError

LOST = "another process of this run has ended or is out of reach: resume the run"
EXIT_CODE = 4
PATIENCE = 3  # heartbeats that one process may take longer than the others

_ended = threading.Lock()
_handlers: list[Any] = []
_native_output: list[str] = []
_together = False
_watched: float | None = None  # seconds after which a collective operation counts as hanging


@dataclass(frozen=True)
class Processes:
    """How this process finds the others that train the same run; by default there are none.

    Raises:
      SettingError: if the options do not fit each other.
    """

    coordinator: str | None = None
    """Several processes: HOST:PORT of process 0, or auto under Slurm, Open MPI, Kubernetes or on
    Cloud TPU, where JAX finds out all three."""
    process_id: int | None = None
    """Several processes: the number of this one, from 0."""
    processes: int | None = None
    """Several processes: how many."""
    heartbeat: int = 100
    """Several processes: seconds of silence after which one counts as dead."""
    join_timeout: int = 300
    """Several processes: seconds to wait for all of them at the start."""

    def __post_init__(self) -> None:
        """Check the options."""
        check_counts(self, "heartbeat", "join_timeout")
        numbers = self.process_id, self.processes
        if self.coordinator in (None, "auto"):
            if numbers != (None, None):
                raise SettingError("--process-id and --processes need --coordinator HOST:PORT")
            return
        if not re.fullmatch(r"\[?[\w.:-]+\]?:[0-9]+", self.coordinator or ""):
            raise SettingError(f"--coordinator must be HOST:PORT or auto, not {self.coordinator!r}")
        if not 0 < int((self.coordinator or "").rpartition(":")[2]) < 2**16:
            raise SettingError(f"--coordinator: a port is at most 65535, not {self.coordinator!r}")
        if None in numbers:
            raise SettingError("--coordinator HOST:PORT needs --process-id and --processes")
        if not 0 <= (self.process_id or 0) < (self.processes or 0):
            raise SettingError(
                f"--process-id must be from 0 to --processes - 1, not {self.process_id} of"
                f" {self.processes}"
            )


def are_several() -> bool:
    """Whether this process trains together with others."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process writes and prints: process 0, or the only one."""
    return not are_several() or jax.process_index() == 0


@contextlib.contextmanager
def joined(options: Processes | None) -> Iterator[None]:
    """Join the other processes, before JAX's first computation; part from them at the end.

    Raises:
      SettingError: if the coordinator cannot be reached, or says something else than this process.
    """
    if options is None or options.coordinator is None:
        yield
        return
    global _watched
    if options.process_id:  # JAX would abort
        _require_reachable(options.coordinator, options.join_timeout)
    known: dict[str, Any] = {}
    if options.coordinator != "auto":
        known["coordinator_address"] = options.coordinator
        known |= {"num_processes": options.processes, "process_id": options.process_id}
        known["cluster_detection_method"] = "deactivate"
    _separate_native_output()
    _end_on_abort(f"not all processes have joined within {options.join_timeout} s")
    try:
        jax.distributed.initialize(
            **known,
            initialization_timeout=options.join_timeout,
            heartbeat_timeout_seconds=options.heartbeat,
            shutdown_timeout_seconds=options.heartbeat,
        )
    except (RuntimeError, ValueError, LookupError) as error:  # a part of Slurm's variables, say
        if not known:
            raise SettingError(
                "--coordinator auto: JAX cannot tell from Slurm, Open MPI, Kubernetes or Cloud TPU"
                f" how to join the processes ({error!r}); pass --coordinator HOST:PORT,"
                " --process-id and --processes"
            ) from error
        reason, where = str(error).splitlines()[0], options.coordinator
        raise SettingError(f"the processes cannot be joined at {where}: {reason}") from error
    _end_on_abort(LOST)
    _watched = PATIENCE * options.heartbeat
    yield
    jax.distributed.shutdown()
    remove_native_output()


def is_loss(error: Exception) -> bool:
    """Whether an error says that another process has died: jaxlib raises several types."""
    return are_several() and "Gloo" in str(error)


def end_together() -> None:
    """Say that every process is about to end, so that none takes another's end for its death."""
    global _together
    _together = True


def end(message: str) -> NoReturn:
    """Print an error and end this process at once: the others are not waited for."""
    if not _ended.acquire(blocking=False):
        time.sleep(60)  # another thread is printing the message
    printed = "".join(f" (what JAX printed: {file})" for file in _native_output)
    leave(EXIT_CODE, message + printed)


def leave(code: int, message: str = "") -> NoReturn:
    """End this process now; only if all end together does it wait for the others."""
    if _together and not message:
        with contextlib.suppress(RuntimeError):  # another may be gone; this one has done its work
            jax.distributed.shutdown()
    if not message:
        remove_native_output()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        print(f"error: {message}\n" if message else "", file=sys.stderr, end="", flush=True)
    os._exit(code)


def share(values: Sequence[int]) -> np.ndarray:
    """Return what each process passes: [processes, len(values)]. All must call it."""
    mine = np.asarray([values], np.int32)
    if not are_several():
        return mine
    from jax.experimental import multihost_utils

    with watch():
        return np.asarray(multihost_utils.process_allgather(mine, tiled=True))


def text_of_first(text: str = "") -> str:
    """Return the text that process 0 passes, of at most 4096 bytes. All must call it."""
    if not are_several():
        return text
    mine = os.fsencode(text)
    return os.fsdecode(bytes(share([*mine, *[0] * (4096 - len(mine))])[0].tolist()).rstrip(b"\0"))


@contextlib.contextmanager
def watch() -> Iterator[None]:
    """End this process if the block waits too long for a process that is alive but stuck."""
    if _watched is None:
        yield
        return
    waited = f"another process of this run has not answered for {_watched:.0f} s; resume the run"
    timer = threading.Timer(_watched, end, [waited])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _require_reachable(coordinator: str, seconds: float) -> None:
    host, _, port = coordinator.rpartition(":")
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except (OSError, OverflowError) as error:
            if time.monotonic() > until:
                raise SettingError(
                    f"no process 0 answers at {coordinator} within {seconds} s ({error})"
                ) from error
            time.sleep(0.2)


def _separate_native_output() -> None:
    """Send what libraries print to a file; what Python prints still goes where it went."""
    file = tempfile.NamedTemporaryFile(prefix="jaxrnn-", suffix=".log", delete=False)  # noqa: SIM115
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream: Any = getattr(sys, name)
        stream.flush()
        moved = os.fdopen(os.dup(number), "w", 1, stream.encoding, stream.errors)
        setattr(sys, name, moved)
        os.dup2(file.fileno(), number)
    _native_output.append(file.name)


def remove_native_output() -> None:
    """Remove the file of what libraries print, if no message names it."""
    for file in _native_output:
        with contextlib.suppress(OSError):
            os.remove(file)  # noqa: PTH107


def _end_on_abort(message: str) -> None:
    """Print a line where JAX aborts the process, which it does if it loses another one.

    Python's own signal handlers would run too late. jaxlib could take a callback, but it fails to
    call one written in Python (0.10.1).
    """
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: end(message))
    ctypes.CDLL(None).signal(signal.SIGABRT, handler)
    _handlers.append(handler)  # as long as the process lives
