"""Training progress: one live line on a terminal, a line every few seconds anywhere else."""

import datetime
import math
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TextIO, cast

from jaxrnn.text.characters import escape_unprintable

if TYPE_CHECKING:
    import rich.progress

PATIENCE = 2.0  # seconds before the first output: short runs stay silent
REDRAW = 0.1  # seconds between updates of the live line
REPEAT = 10.0  # seconds between lines where the stream is not a terminal


def note(text: str) -> None:
    """Print a one-line note on standard error; of several processes, only the first does."""
    from jaxrnn.training.processes import is_first

    if is_first():
        _Forgiving(sys.stderr).write(f"note: {escape_unprintable(text)}\n")


class Progress:
    """Shows how far training is: `with Progress(...) as progress: progress.update(...)`.

    The live line is removed when the block ends, also after an error. Where the stream cannot be
    written, such as a closed pipe, only the output is lost.

    >>> clock = iter([0.0, 1.0, 3.0, 5.0, 14.0])
    >>> with Progress(5000, stream=sys.stdout, clock=lambda: next(clock)) as progress:
    ...     for step in 100, 300, 500, 1400:
    ...         progress.update(step, loss=0.7 / step)
    step 300 of 5000, loss 0.002333, 100 steps/s, 0:00:47 left
    step 1400 of 5000, loss 0.0005, 100 steps/s, 0:00:36 left
    """

    def __init__(
        self,
        total_steps: int,
        first_step: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.perf_counter,
        label: str = "",
    ):
        """Start the clock.

        Args:
          total_steps: N.
          first_step: the step at which this process starts.
          stream: where to write; None for standard error.
          clock: returns seconds, from any origin.
          label: what is trained, shown at the start of each line.
        """
        self._total, self._first = total_steps, first_step
        self._label = f"{label}: " if label else ""
        self._stream = _Forgiving(sys.stderr if stream is None else stream)
        self._clock, self._start = clock, clock()
        self._now, self._due = self._start, self._start + PATIENCE
        self._bar: rich.progress.Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, loss: float, solved: tuple[int, int] | None = None) -> None:
        """Report progress; call it as often as you like.

        Args:
          step: the number of updates so far, from `first_step` to N.
          loss: the current loss; for several seeds the median.
          solved: how many seeds have solved the task, and how many there are; None says nothing.
        """
        self._now = self._clock()
        if self._now < self._due and self._bar is None:
            return
        if self._bar is None:
            self._bar = self._open()
        bar, (task,) = self._bar, self._bar.tasks
        bar.update(task.id, completed=step)
        if self._now < self._due:
            return
        words = [f"loss {loss:.4g}" if math.isfinite(loss) else "loss not finite"]
        if solved is not None:
            words.append(f"{solved[0]} of {solved[1]} solved")
        if speed := task.speed or (step - self._first) / (self._now - self._start):
            words.append(f"{speed:.0f} steps/s" if speed >= 10 else f"{speed:.2g} steps/s")
            left = datetime.timedelta(seconds=round((self._total - step) / speed))
            words.append(f"{left} left")
        if bar.disable:
            line = f"{self._label}step {step} of {self._total}, {', '.join(words)}"
            print(line, file=self._stream, flush=True)
        else:
            bar.update(task.id, words="  ".join(words), refresh=True)
        self._due = self._now + (REPEAT if bar.disable else REDRAW)

    def print_above(self, text: str) -> None:
        """Print a line above the live line."""
        if self._bar is None or self._bar.disable:
            print(text, file=self._stream, flush=True)
        else:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _open(self) -> "rich.progress.Progress":
        """Make the live line; disabled if the stream is not a terminal that can move its cursor."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        console = Console(file=cast(TextIO, self._stream), force_jupyter=False)
        width = len(str(self._total))
        label = self._label.replace("{", "{{").replace("}", "}}")
        bar = Progress(
            TextColumn(f"{label}step {{task.completed:{width}}} of {self._total}", markup=False),
            BarColumn(20, complete_style="cyan", finished_style="cyan"),
            TextColumn("{task.fields[words]}", markup=False),
            console=console,
            auto_refresh=False,  # no thread
            speed_estimate_period=30.0,
            transient=True,
            redirect_stdout=False,  # it may go to a file
            redirect_stderr=False,
            get_time=lambda: self._now,
            disable=not (self._stream.isatty() and console.is_interactive),
        )
        bar.add_task("", total=self._total, completed=self._first, words="")
        try:
            bar.start()
        finally:
            console.show_cursor(True)  # now, because a killed process could not restore it
        return bar


class _Forgiving:
    """A text stream that never fails: text that cannot be written is dropped."""

    def __init__(self, stream: TextIO | None):  # None: Python started without standard error
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # ValueError: the stream is closed
            if self._stream is not None:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.flush()

    def isatty(self) -> bool:
        with suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def __getattr__(self, name: str) -> Any:  # `encoding` and others that Rich reads
        return getattr(self._stream, name)
