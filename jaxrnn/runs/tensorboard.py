"""A run's metrics as TensorBoard events: `tensorboard --logdir runs`."""

import math
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import numpy as np

from jaxrnn.training import validation
from jaxrnn.training.history import quantiles, scalars

QUARTILES = {"first quartile": 25, "median": 50, "third quartile": 75}
"""Percentiles written for several seeds: TensorBoard cannot draw a thousand curves."""

PREFIX = "events.out.tfevents."  # the prefix by which TensorBoard finds its files


class _NoTorch(MetaPathFinder):
    """Hides PyTorch from the imports of one thread; other threads find it as always."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Fail for torch in this thread, and leave every other import to the next finder."""
        if fullname == "torch" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError("hidden from tensorboardX", name=fullname)


def import_tensorboardx() -> None:
    """Import what `Events` needs.

    tensorboardX imports PyTorch if it is installed, which takes a second or more, for functions
    that are not used here. So PyTorch is hidden from it, unless it is already imported.
    """
    finder = _NoTorch()
    sys.meta_path.insert(0, finder)
    try:
        import tensorboardX.proto.event_pb2
        import tensorboardX.record_writer  # noqa: F401
    finally:
        sys.meta_path.remove(finder)


class Events:
    """The event file of one process. Close it, or use it as a context manager.

    Events are written when `add` returns, without a background thread: a killed process leaves a
    file that TensorBoard reads up to the last complete record.
    """

    def __init__(self, folder: Path, first_step: int):
        """Make a new file.

        Args:
          folder: the run's directory of event files; created if missing.
          first_step: the first step that will be added; TensorBoard drops what older files hold
            from this step on.

        Raises:
          OSError: if the file cannot be made or written.
        """
        import_tensorboardx()
        from tensorboardX.proto import event_pb2

        # RecordWriter lies below SummaryWriter's queue and thread, in which a full disk would only
        # print a traceback while the run continued.
        from tensorboardX.record_writer import RecordWriter

        self._path = folder.absolute()  # a relative path could look like s3:...
        now = time.time()
        with self._named_errors():
            folder.mkdir(parents=True, exist_ok=True)
            self._path /= f"{PREFIX}{_stamp(folder, int(now)):010d}.{socket.gethostname()}"
            self._file = RecordWriter(str(self._path))
        self._new_event: Callable[..., Any] = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]
        start = {"status": "START"}  # makes TensorBoard drop older events from this step on
        self._write(
            [
                self._new_event(wall_time=now, file_version="brain.Event:2"),
                self._new_event(wall_time=now, step=first_step, session_log=start),
            ]
        )

    def __enter__(self) -> "Events":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(
        self,
        steps: Sequence[int] | np.ndarray,
        metrics: Mapping[str, np.ndarray],
        wall_times: Sequence[float] | np.ndarray,
    ) -> None:
        """Add the metrics of some steps: the values of one seed, or the quartiles of several.

        Quartiles are taken over the finite values; if none is finite, NaN is written, which
        TensorBoard marks. Validation metrics are left out at steps without validation.

        Args:
          steps: [R] int.
          metrics: by name, [S, R] each; metrics with more axes are left out.
          wall_times: [R] seconds since 1970.

        Raises:
          OSError: if they cannot be written, as on a full disk. The file is then closed.
        """
        named = curves(metrics)
        self._write(
            self._new_event(
                step=int(step),
                wall_time=float(wall_time),
                summary={
                    "value": [
                        {"tag": tag, "simple_value": curve[row]}
                        for tag, curve in named.items()
                        if not (tag.startswith(validation.PREFIX) and math.isnan(curve[row]))
                    ]
                },
            )
            for row, (step, wall_time) in enumerate(zip(steps, wall_times, strict=True))
        )

    def close(self) -> None:
        """Close the file; everything is already written."""
        with self._named_errors():
            self._file.close()

    def _write(self, events: Iterable[Any]) -> None:
        try:
            with self._named_errors():
                for event in events:
                    self._file.write(event.SerializeToString())
                self._file.flush()
        except OSError:
            with suppress(OSError):  # closing tries to write the rest again
                self._file.close()
            raise

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = f"cannot write TensorBoard's events: {error.strerror or error}"
            raise OSError(error.errno, reason, str(self._path)) from None


def curves(metrics: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """Return the curves by tag, [R] each: of one seed, or the quartiles of several."""
    found = {}
    for name, values in scalars(metrics).items():
        if len(values) == 1:
            found[name] = values[0].tolist()
        else:
            spread = quantiles(values, list(QUARTILES.values())).tolist()
            found |= {f"{name}/{part}": row for part, row in zip(QUARTILES, spread, strict=True)}
    return found


def _stamp(folder: Path, now: int) -> int:
    """Return a time for the new file's name, later than all others: TensorBoard reads by name."""
    stamps = [path.name.removeprefix(PREFIX)[:10] for path in folder.glob(PREFIX + "*")]
    return max([now, *(int(stamp) + 1 for stamp in stamps if stamp.isdecimal())])
