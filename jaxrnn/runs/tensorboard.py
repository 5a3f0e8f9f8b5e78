"""A run's metrics once more, as TensorBoard reads them: `tensorboard --logdir runs`."""

import math
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from jaxrnn.training import validation
from jaxrnn.training.history import quantiles, scalars

QUARTILES = {"first quartile": 25, "median": 50, "third quartile": 75}
"""What is written of several seeds, in percent: TensorBoard cannot draw a thousand curves."""

PREFIX = "events.out.tfevents."  # TensorBoard knows its files by this


def import_tensorboardx() -> None:
    """Import what `Events` needs.

    tensorboardX imports PyTorch wherever that is installed, half a second and more, for functions
    that are not used here; so PyTorch is out of its sight meanwhile, unless it is loaded already.
    """
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]
    try:
        import tensorboardX.proto.event_pb2
        import tensorboardX.record_writer  # noqa: F401
    finally:
        if hidden:
            del sys.modules["torch"]


class Events:
    """One process's event file of a run. To be closed, or used as a context manager.

    What was added is on the disk when `add` returns, and no thread works behind it: a process that
    is killed leaves a file that TensorBoard reads up to the last whole record.
    """

    def __init__(self, folder: Path, first_step: int):
        """Make a new file.

        Args:
          folder: the run's directory of event files; made if it is not there.
          first_step: the first step that will be added; what older files have of it and of later
            steps is dropped by TensorBoard.

        Raises:
          OSError: if the file cannot be made or written.
        """
        import_tensorboardx()
        from tensorboardX.proto import event_pb2

        # What is under SummaryWriter's queue, process lock and thread; there a full disk would
        # print a traceback of that thread, and the run would go on as if all were well.
        from tensorboardX.record_writer import RecordWriter

        self._path = folder.absolute()  # a relative one could look like s3:...
        now = time.time()
        with self._named_errors():
            folder.mkdir(parents=True, exist_ok=True)
            self._path /= f"{PREFIX}{_stamp(folder, int(now)):010d}.{socket.gethostname()}"
            self._file = RecordWriter(str(self._path))
        self._new_event: Callable[..., Any] = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]
        start = {"status": "START"}  # with this TensorBoard drops what older files have from here
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
        """Add what some steps measured: of one seed the numbers, of several their quartiles.

        The quartiles are of the seeds that are finite. What is nowhere finite is written as it is:
        TensorBoard marks it. But at steps without a validation nothing is written of it.

        Args:
          steps: [R] int.
          metrics: by name, [S, R] numbers each; what has more axes is left out.
          wall_times: [R] seconds since 1970.

        Raises:
          OSError: if they cannot be written, say because the disk is full. The file is closed then.
        """
        curves = _curves(metrics)
        self._write(
            self._new_event(
                step=int(step),
                wall_time=float(wall_time),
                summary={
                    "value": [
                        {"tag": tag, "simple_value": curve[row]}
                        for tag, curve in curves.items()
                        if not (tag.startswith(validation.PREFIX) and math.isnan(curve[row]))
                    ]
                },
            )
            for row, (step, wall_time) in enumerate(zip(steps, wall_times, strict=True))
        )

    def close(self) -> None:
        """Close the file; all of it is written already."""
        with self._named_errors():
            self._file.close()

    def _write(self, events: Iterable[Any]) -> None:
        try:
            with self._named_errors():
                for event in events:
                    self._file.write(event.SerializeToString())
                self._file.flush()
        except OSError:
            with suppress(OSError):  # it tries once more to write what it holds
                self._file.close()
            raise

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = f"cannot write TensorBoard's events: {error.strerror or error}"
            raise OSError(error.errno, reason, str(self._path)) from None


def _curves(metrics: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """What is written of each step, by its name in TensorBoard: [R] each."""
    curves = {}
    for name, values in scalars(metrics).items():
        if len(values) == 1:
            curves[name] = values[0].tolist()
        else:
            spread = quantiles(values, list(QUARTILES.values())).tolist()
            curves |= {f"{name}/{part}": row for part, row in zip(QUARTILES, spread, strict=True)}
    return curves


def _stamp(folder: Path, now: int) -> int:
    """The time in the new file's name: after all others', as TensorBoard reads them by name."""
    stamps = [path.name.removeprefix(PREFIX)[:10] for path in folder.glob(PREFIX + "*")]
    return max([now, *(int(stamp) + 1 for stamp in stamps if stamp.isdecimal())])
