"""Ctrl-C, SIGTERM and SIGHUP, deferred until it is safe to stop."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from jaxrnn.training.processes import share

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed


@contextlib.contextmanager
def deferred() -> Iterator[list[signal.Signals]]:
    """Record the first signal instead of acting on it; a second one acts at once.

    Signals that were ignored before, as by `nohup`, stay ignored. In a thread other than the main
    thread, nothing is deferred.

    Yields:
      a list that is empty until a signal arrives.
    """
    asked: list[signal.Signals] = []
    before = {}

    def remember(number: int, _: FrameType | None) -> None:
        asked.append(signal.Signals(number))
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, remember)
    try:
        yield asked
    finally:
        restore()


def agree(asked: list[signal.Signals]) -> bool:
    """Return whether one of the run's processes was asked to stop; if so, all are asked.

    Decide by this answer, not by the list: a signal may arrive right after the processes agreed.
    """
    highest = int(share([asked[0] if asked else 0]).max())
    if highest and not asked:
        asked.append(signal.Signals(highest))
    return highest > 0


def stop(number: signal.Signals) -> None:
    """Stop as the signal would: KeyboardInterrupt for Ctrl-C, else exit code 128 + its number."""
    if number is signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
