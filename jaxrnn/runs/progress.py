"""How far long work has come: one live line on a terminal, a line now and then anywhere else."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

from jaxrnn.text.characters import escape_unprintable

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

PATIENCE = 2.0  # seconds of work before anything is said: short runs stay silent
REDRAW = 0.1  # seconds between two looks of the live line
REPEAT = 10.0  # seconds between two lines where the stream is no terminal
WIDEST_BAR, SHORTEST_BAR = 20, 8  # characters


def note(text: str) -> None:
    """Say something beside the results, on standard error, on one line."""
    _Forgiving(sys.stderr).write(f"note: {escape_unprintable(text)}\n")


class Progress:
    """Says how far training has come, `with Progress(...) as progress: progress.update(...)`.

    The live line is gone when the block is left, however it is left. A stream that cannot be
    written to, say a closed pipe, costs the lines and nothing else.

    >>> clock = iter([0.0, 1.0, 3.0, 5.0, 14.0])
    >>> with Progress(5000, stream=sys.stdout, clock=lambda: next(clock)) as progress:
    ...     for step in 100, 300, 500, 1400:
    ...         progress.update(step, loss=0.7 / step)
    step 300 of 5000, loss 0.002333, 100 steps/s, 47 s left
    step 1400 of 5000, loss 0.0005, 100 steps/s, 36 s left
    """

    def __init__(
        self,
        total_steps: int,
        first_step: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        """The work begins now.

        Args:
          total_steps: N.
          first_step: the step that this process begins with.
          stream: where to write; standard error if None.
          clock: [] seconds, from any start.
        """
        self._total = total_steps
        self._stream = _Forgiving(sys.stderr if stream is None else stream)
        self._clock = clock
        self._start = clock(), first_step
        self._due = self._start[0] + PATIENCE
        self._marks: deque[tuple[float, int]] = deque(maxlen=30)  # (time, step), a second apart
        self._opened = False
        self._live: Live | None = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def update(self, step: int, loss: float) -> None:
        """Tell how far the work is; to be called as often as one likes.

        Args:
          step: how many updates there have been, from `first_step` to N.
          loss: the loss just now; over several seeds the median.
        """
        now = self._clock()
        if not self._marks or now - self._marks[-1][0] >= 1:
            self._marks.append((now, step))
        if now < self._due:
            return
        if not self._opened:
            self._opened, self._live = True, _open(self._stream)
        words = self._words(now, step, loss)
        if self._live is None:
            line = f"step {step} of {self._total}, {', '.join(words)}"
            print(line, file=self._stream, flush=True)
        else:
            where = f"step {step:{len(str(self._total))}} of {self._total}"
            done = min(step / self._total, 1.0) if self._total else 1.0
            line = _line(self._live.console.width, where, done, "  ".join(words))
            self._live.update(line, refresh=True)
        self._due = now + (REPEAT if self._live is None else REDRAW)

    def print_above(self, text: str) -> None:
        """Print a line of its own; a live line stays below it."""
        if self._live is None:
            print(text, file=self._stream, flush=True)
        else:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _words(self, now: float, step: int, loss: float) -> list[str]:
        words = [f"loss {loss:.4g}" if math.isfinite(loss) else "loss not finite"]
        # Over the last half minute or so: a machine may become slower or faster. From the start,
        # which includes the compiling, only where there is nothing else to go by.
        since, past = self._start if self._marks[0][1] == step else self._marks[0]
        if step > past and now > since:
            speed = (step - past) / (now - since)
            words += [f"{_speed(speed)} steps/s", f"{_duration((self._total - step) / speed)} left"]
        return words


class _Forgiving:
    """A text stream that cannot fail: what cannot be written is dropped."""

    def __init__(self, stream: TextIO | None):  # Python has None for a closed standard error
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

    def __getattr__(self, name: str) -> Any:  # `encoding` and what else Rich looks at
        return getattr(self._stream, name)


def _open(stream: _Forgiving) -> "Live | None":
    """A live line, if the stream is a terminal that can move its cursor."""
    if not stream.isatty():
        return None
    from rich.console import Console
    from rich.live import Live

    console = Console(file=cast(TextIO, stream), force_jupyter=False)
    if not console.is_interactive:
        return None
    live = Live(
        console=console,
        auto_refresh=False,  # no thread
        transient=True,
        redirect_stdout=False,  # it may go to a file
        redirect_stderr=False,
    )
    try:
        live.start()
    finally:
        console.show_cursor(True)  # at once: a process that is killed could not bring it back
    return live


def _line(width: int, where: str, done: float, rest: str) -> "Table":
    """Text, bar, text; on a narrow terminal without the bar, or cut off: never a second line."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    line = Table.grid(padding=(0, 2, 0, 0))
    room = width - len(where) - len(rest) - 5
    if room < SHORTEST_BAR:
        line.add_row(Text(f"{where}  {rest}", no_wrap=True, overflow="ellipsis"))
    else:
        bar = ProgressBar(
            total=1.0,
            completed=done,
            width=min(room, WIDEST_BAR),
            complete_style="cyan",
            finished_style="cyan",
        )
        line.add_row(Text(where, no_wrap=True), bar, Text(rest, no_wrap=True))
    return line


def _speed(steps_per_second: float) -> str:
    return f"{steps_per_second:.0f}" if steps_per_second >= 10 else f"{steps_per_second:.2g}"


def _duration(seconds: float) -> str:
    """A time in its two largest units.

    >>> [_duration(seconds) for seconds in (0.4, 59.6, 3599, 7260, 90000)]
    ['0 s', '1 min 0 s', '59 min 59 s', '2 h 1 min', '1 d 1 h']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
