"""Ctrl-C, SIGTERM and SIGHUP, put off until it is safe to stop."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last: the terminal is gone


@contextlib.contextmanager
def deferred() -> Iterator[list[signal.Signals]]:
    """Remember the first signal, to be looked at when it is safe; the second acts at once.

    Only the main thread hears signals, and one that was ignored (as by `nohup`) stays ignored.

    Yields:
      a list, empty until a signal comes.
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


def stop(number: signal.Signals) -> None:
    """End as a signal would: KeyboardInterrupt for Ctrl-C, else exit code 128 + its number."""
    if number is signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
