"""Ctrl-C, SIGTERM and SIGHUP: the first waits, the second acts, and all is as before afterwards."""

import os
import signal
import threading

import pytest

from jaxrnn.runs import signals


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_the_first_signal_waits_and_the_second_acts(number):
    acted = []
    before = signal.signal(number, lambda *_: acted.append(number))
    try:
        with signals.deferred() as asked:
            assert not asked
            os.kill(os.getpid(), number)
            assert (asked, acted) == ([number], [])
            os.kill(os.getpid(), number)
            assert (asked, acted) == ([number], [number])
        os.kill(os.getpid(), number)
        assert acted == [number, number]
    finally:
        signal.signal(number, before)


def test_handlers_are_restored_also_after_an_error():
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    with pytest.raises(RuntimeError), signals.deferred():
        assert [signal.getsignal(number) for number in signals.SIGNALS] != before
        raise RuntimeError
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with signals.deferred() as asked:
            os.kill(os.getpid(), signal.SIGTERM)
        assert not asked
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_handlers_are_unchanged():
    errors = []

    def work():
        try:
            with signals.deferred() as asked:
                assert not asked
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors


def test_exit_codes_are_the_usual_ones():
    with pytest.raises(KeyboardInterrupt):
        signals.stop(signal.SIGINT)
    for number, code in ((signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        with pytest.raises(SystemExit) as stopped:
            signals.stop(number)
        assert stopped.value.code == code
