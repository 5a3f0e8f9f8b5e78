"""Command lines: typed dataclasses in, one clear line out when something is wrong."""

import contextlib
import gc
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import tyro

from jaxrnn.errors import DivergedError, RunError, SettingError
from jaxrnn.runs.import_paths import loading_script
from jaxrnn.text.characters import escape_unprintable


def run_command(config_type: Any, main: Callable[[Any], None], prog: str | None = None) -> None:
    """Parse the command line into `config_type`, call `main` with it, and exit the process.

    Args:
      config_type: a dataclass, or a union of some, a verb each; a `__post_init__` may raise
        ValueError.
      main: does the work, inside `exit_cleanly`.
      prog: how the program is called, if not by the path of its file.
    """
    gc.freeze()  # what is imported stays: keep the collector from walking it again and again
    gc.enable()  # a script may have switched it off while it imported
    try:
        with exit_cleanly():
            main(_parse(config_type, prog))
    finally:
        gc.freeze()  # taking all of JAX apart, object by object, would cost 0.25 s at exit


@contextlib.contextmanager
def exit_cleanly() -> Iterator[None]:
    """What a script does inside ends with one clear line when something is wrong.

    Exit codes: 0; 2 for a bad argument, a run or file that cannot be used, or too little memory; 3
    where training cannot go on, as the loss is not finite; 130 after Ctrl-C, and 128 + its number
    after another signal. Any other exception is a defect and shows its traceback.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # for terminals that lack a character
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.unraisablehook = _insist_on_interrupts
    try:
        yield
        print(end="", flush=True)
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        _drop_output()
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _refuse(f"{error.strerror or error}{where}")
    except (RunError, SettingError) as error:
        if loading_script():  # then whoever loads it says so
            raise
        _refuse(str(error))
    except DivergedError as error:
        _refuse(str(error), 3)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        _refuse("not enough memory for this many seeds, steps, characters or hidden units")
    except RuntimeError as error:
        if "Unable to initialize backend" not in str(error):
            raise
        _refuse(str(error).splitlines()[0])
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)


def _insist_on_interrupts(ignored: "sys.UnraisableHookArgs") -> None:
    """Send Ctrl-C again if it came in a finaliser or callback, where Python drops exceptions."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        again = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(ignored)


def _parse(config_type: Any, prog: str | None) -> Any:
    """tyro's parser, with its box of a message made one line."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return _tyro(config_type, prog)
    except SystemExit as stop:
        if not stop.code:
            raise
    os.environ["COLUMNS"] = "10000"  # once more, for a message that is not wrapped
    box = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stderr(box):
        _tyro(config_type, prog)
    _refuse(re.sub(r"^Error parsing (?!--)\S+: ", "", _first_paragraph(box.getvalue())))


def _tyro(config_type: Any, prog: str | None) -> Any:
    return tyro.cli(config_type, prog=prog, config=(tyro.conf.FlagCreatePairsOff,))


def _first_paragraph(box: str) -> str:
    """What tyro's box says above its first rule."""
    lines = [line.strip("│ ") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    rule = next((i for i, line in enumerate(lines) if set(line) == {"─"}), len(lines))
    return " ".join(lines[:rule])


def _refuse(message: str, code: int = 2) -> NoReturn:
    try:
        print(end="", flush=True)
    except OSError:
        _drop_output()
    print(f"error: {escape_unprintable(message)}", file=sys.stderr)
    sys.exit(code)


def _drop_output() -> None:
    """Send what is still to be written to standard output nowhere: it cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
