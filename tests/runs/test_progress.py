"""The progress line, with a fake clock and a fake terminal."""

import contextlib
import io
import os
import re
import subprocess
import sys

import pytest

from jaxrnn.runs.progress import Progress


class Terminal(io.StringIO):
    """The part of a terminal that Rich uses: text, and control codes that move or erase."""

    encoding = "utf-8"

    def isatty(self):
        """It says so."""
        return True

    def shown(self):
        """The visible lines, and whether the cursor is visible."""
        rows, y, x, cursor = [""], 0, 0, True
        for code, text in re.findall(
            r"(\r|\n|\x1b\[[?\d;]*[A-Za-z])|([^\x1b\r\n]+)", self.getvalue()
        ):
            if text:
                rows[y] = rows[y][:x].ljust(x) + text + rows[y][x + len(text) :]
                x += len(text)
            elif code == "\r":
                x = 0
            elif code == "\n":
                y, x = y + 1, 0
                rows += [""] * (y == len(rows))
            elif code == "\x1b[2K":
                rows[y] = ""
            elif code == "\x1b[1A":
                y -= 1
            elif code in ("\x1b[?25l", "\x1b[?25h"):
                cursor = code.endswith("h")
            else:
                assert code.endswith("m"), f"unknown control code {code!r}"
        return [row.rstrip() for row in rows if row], cursor


class Clock:
    """A clock that stands still until it is set."""

    seconds = 1000.0

    def __call__(self):
        """The time."""
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def terminal(monkeypatch):
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


def work(progress, clock, seconds, steps_per_second=100, first_step=0, loss=0.7):
    """Update the progress every half second."""
    begin = clock.seconds
    for half in range(1, 2 * seconds + 1):
        clock.seconds = begin + half / 2
        progress.update(first_step + half * steps_per_second // 2, loss)


def test_lines_without_a_terminal(clock):
    stream = io.StringIO()
    with Progress(5000, stream=stream, clock=clock) as progress:
        work(progress, clock, seconds=25)
        assert stream.getvalue().splitlines() == [
            "step 200 of 5000, loss 0.7, 100 steps/s, 0:00:48 left",
            "step 1200 of 5000, loss 0.7, 100 steps/s, 0:00:38 left",
            "step 2200 of 5000, loss 0.7, 100 steps/s, 0:00:28 left",
        ]
        progress.print_above("a note")
        clock.seconds += 9
        progress.update(2600, float("nan"))
    note, last = stream.getvalue().splitlines()[3:]
    assert note == "a note"
    assert re.fullmatch(
        r"step 2600 of 5000, loss not finite, \d+ steps/s, \d:\d\d:\d\d left",
        last,
    )


def test_the_label_and_the_solved_seeds_are_shown(clock, terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    stream = io.StringIO()
    for shown in (stream, terminal):
        progress = Progress(5000, stream=shown, clock=clock, label="T={200}[bold]")
        clock.seconds += 3
        progress.update(300, 0.7, (12, 20))
    line = "T={200}[bold]: step 300 of 5000, loss 0.7, 12 of 20 solved, 100 steps/s, 0:00:47 left"
    assert stream.getvalue() == line + "\n"
    (live,), _ = terminal.shown()
    assert live.startswith("T={200}[bold]: step  300 of 5000 ")
    assert live.endswith(" loss 0.7  12 of 20 solved  100 steps/s  0:00:47 left")


@pytest.mark.parametrize("make", [io.StringIO, Terminal])
def test_short_work_is_silent(clock, make):
    stream = make()
    with Progress(190, stream=stream, clock=clock) as progress:
        work(progress, clock, seconds=1)
        clock.seconds += 0.99
        progress.update(190, 0.1)
    assert stream.getvalue() == ""


def test_speed_leaves_out_earlier_sessions_and_compiling(clock):
    stream = io.StringIO()
    progress = Progress(20_000, first_step=10_000, stream=stream, clock=clock)
    clock.seconds += 10
    progress.update(10_100, 0.7)  # the only measurement so far
    work(progress, clock, seconds=10, steps_per_second=50, first_step=10_100)
    assert stream.getvalue().splitlines() == [
        "step 10100 of 20000, loss 0.7, 10 steps/s, 0:16:30 left",
        "step 10600 of 20000, loss 0.7, 50 steps/s, 0:03:08 left",
    ]


def test_speed_is_that_of_the_last_half_minute(clock):
    stream = io.StringIO()
    progress = Progress(100_000, stream=stream, clock=clock)
    work(progress, clock, seconds=40, steps_per_second=100)
    work(progress, clock, seconds=40, steps_per_second=10, first_step=4000)
    assert ", 10 steps/s, " in stream.getvalue().splitlines()[-1]


def test_a_run_without_steps_has_no_speed(clock):
    stream = io.StringIO()
    progress = Progress(0, first_step=0, stream=stream, clock=clock)
    clock.seconds += 3
    progress.update(0, 12345.678)
    assert stream.getvalue() == "step 0 of 0, loss 1.235e+04\n"


def test_one_live_line_on_a_terminal(clock, terminal):
    with Progress(5000, stream=terminal, clock=clock) as progress:
        work(progress, clock, seconds=2)
        (line,), cursor = terminal.shown()
        assert re.fullmatch(
            r"step  200 of 5000 [━╸╺]{20} loss 0.7  100 steps/s  0:00:48 left", line
        )
        assert cursor  # already, because a killed process could not restore it
        work(progress, clock, seconds=10, first_step=200)
        (line,), _ = terminal.shown()
        assert line.startswith("step 1200 of 5000")
        progress.print_above("seed 3 [bold] stopped being finite")
        above, line = terminal.shown()[0]
        assert above == "seed 3 [bold] stopped being finite"
        assert line.startswith("step 1200 of 5000")
        drawn = len(terminal.getvalue())
        clock.seconds += 0.05
        progress.update(1205, 0.7)
        assert len(terminal.getvalue()) == drawn  # too soon after the last update
    assert terminal.shown() == (["seed 3 [bold] stopped being finite"], True)


@pytest.mark.parametrize("width", [20, 52, 64])
def test_a_narrow_terminal_has_one_line_too(clock, terminal, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    progress = Progress(5000, stream=terminal, clock=clock)
    work(progress, clock, seconds=3)
    (line,), _ = terminal.shown()
    assert len(line) <= width
    assert line.startswith("step  3")
    assert ("━" in line) == (width == 64)
    assert ("…" in line) == (width < 64)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_the_terminal_is_clean_after_an_error(clock, terminal, error):
    with pytest.raises(error), Progress(5000, stream=terminal, clock=clock) as progress:
        work(progress, clock, seconds=3)
        assert len(terminal.shown()[0]) == 1
        raise error
    assert terminal.shown() == ([], True)


def test_a_terminal_without_control_codes_gets_lines(clock, terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    with Progress(5000, stream=terminal, clock=clock) as progress:
        work(progress, clock, seconds=3)
    assert terminal.getvalue() == "step 200 of 5000, loss 0.7, 100 steps/s, 0:00:48 left\n"


def closed_pipe():
    read, write = os.pipe()
    os.close(read)
    return os.fdopen(write, "w")


def closed_terminal():
    master, slave = os.openpty()
    os.set_inheritable(master, False)
    stream = os.fdopen(slave, "w")
    assert stream.isatty()
    os.close(master)
    return stream


def closed_file():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("make", [closed_pipe, closed_terminal, closed_file])
def test_a_closed_stream_costs_only_the_lines(clock, terminal, make):
    stream = make()
    with Progress(5000, stream=stream, clock=clock) as progress:
        work(progress, clock, seconds=25)
        progress.print_above("a note")
    with contextlib.suppress(OSError):  # its buffer
        stream.close()


def test_a_terminal_that_closes_meanwhile_costs_only_the_line(clock, terminal, monkeypatch):
    def gone(*_):
        raise BrokenPipeError

    with Progress(5000, stream=terminal, clock=clock) as progress:
        work(progress, clock, seconds=3)
        monkeypatch.setattr(terminal, "write", gone)
        monkeypatch.setattr(terminal, "flush", gone)
        work(progress, clock, seconds=3, first_step=300)
        progress.print_above("a note")


def test_no_standard_error_and_no_rich_in_a_short_run():
    program = (
        "import sys, jaxrnn.runs.progress as p; sys.stderr = None\n"
        "for seconds in 1.0, 60.0:\n"
        "    clock = iter([0.0, seconds])\n"
        "    with p.Progress(9, clock=lambda: next(clock)) as progress:\n"
        "        progress.update(5, 0.1); progress.print_above('a note')\n"
        "    print('rich' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "False\nTrue\n", "")
