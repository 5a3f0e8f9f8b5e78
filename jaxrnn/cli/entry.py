"""Command lines from typed dataclasses, with one clear line for each error."""

import contextlib
import functools
import gc
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax

from jaxrnn.cli import config_file, parsing, sweeps
from jaxrnn.errors import DivergedError, RunError, SettingError
from jaxrnn.runs.files import require_decodable
from jaxrnn.runs.import_paths import loading_script
from jaxrnn.text.characters import escape_unprintable
from jaxrnn.training import processes
from jaxrnn.training.mesh import use_all_cpus


def run_command(
    config_type: Any,
    main: Callable[[Any], None],
    prog: str | None = None,
    make_config: Callable[[Any], Any] | None = None,
) -> None:
    """Parse the command line into `config_type`, call `main` with it, and exit the process.

    Args:
      config_type: a dataclass, or a union of dataclasses with one subcommand each; their
        `__post_init__` may raise ValueError. The processes that a field `processes` describes are
        joined before `main` is called.
      main: called with the config, inside `exit_cleanly`.
      prog: the program's name; None for the script's path.
      make_config: returns the `ExperimentConfig` of a config. With it, an option that is a number
        takes several, as in `--learning-rate 1e-3,3e-3`, and all combinations are trained instead
        of calling `main`.
    """
    use_all_cpus()
    gc.freeze()  # imported modules stay, so the collector need not visit them
    gc.enable()  # scripts may disable it during their imports
    try:
        with exit_cleanly():
            require_decodable(Path(sys.argv[0]))  # JAX notes which file called it
            swept = sweeps.find(config_type, sys.argv[1:]) if make_config else None
            lines = swept.arguments if swept else [sys.argv[1:]]
            about = f"{config_type.__doc__}\n\n{sweeps.HELP}" if make_config else None
            parse = functools.partial(parsing.parse, config_type, prog, about)
            if make_config and (given := config_file.find(config_type, sys.argv)):
                parse = functools.partial(parse, negations=True)
                config_file.check(given, parse, make_config)
                lines = [[*given.arguments, *each] for each in lines]
            configs = [parse(each) for each in lines]
            with processes.joined(getattr(configs[0], "processes", None)):
                if swept and make_config:
                    sweeps.run(swept.names, configs, make_config, sys.argv[0])
                else:
                    main(configs[0])
    except SystemExit as stop:
        if processes.are_several():
            processes.leave(stop.code if isinstance(stop.code, int) else 0)
        processes.remove_native_output()
        raise
    finally:
        gc.freeze()  # collecting all of JAX at exit would take 0.25 s


@contextlib.contextmanager
def exit_cleanly() -> Iterator[None]:
    """Turn the exceptions a user can cause into one line on standard error and an exit code.

    Exit codes: 2 for a bad argument, an unusable run or file, or too little memory; 3 if training
    diverged, or JAX_DEBUG_NANS found a NaN; 4 if another process of the run has died; 130 after
    Ctrl-C, and 128 plus the signal's number after another signal. Any other exception is a bug and
    shows its traceback.
    """
    _replace_closed_streams()
    # Matplotlib tells where its caches are if the home directory cannot be written.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    if isinstance(sys.stdout, io.TextIOWrapper):  # for terminals without Unicode
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
        print(end="", flush=True)
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        _drop_output()
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _refuse(f"{error.strerror or error}{where}")
    except (RunError, SettingError) as error:
        if loading_script():  # the process that imports the script reports it
            raise
        _refuse(str(error))
    except DivergedError as error:
        _refuse(str(error), 3)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if processes.is_loss(error):
            processes.end(processes.LOST)
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        own = str(error) if type(error) is MemoryError else ""  # not NumPy's, of one array
        _refuse(own or "not enough memory for this many seeds, steps, characters or hidden units")
    except RuntimeError as error:
        if "Unable to initialize backend" not in str(error):
            raise
        _refuse(str(error).splitlines()[0])
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if processes.is_loss(error):
            processes.end(processes.LOST)
        # JAX raises the second from compiled programs, and exports only the first.
        names = ("FloatingPointError", "InternalFloatingPointError")
        settings: Any = jax.config
        if type(error).__name__ not in names or not (
            settings.jax_debug_nans or settings.jax_debug_infs
        ):
            raise
        _refuse("JAX_DEBUG_NANS or JAX_DEBUG_INFS found a number that is not finite", 3)


def _refuse(message: str, code: int = 2) -> NoReturn:
    try:
        print(end="", flush=True)
    except OSError:
        _drop_output()
    print(f"error: {escape_unprintable(message)}", file=sys.stderr)
    sys.exit(code)


def _replace_closed_streams() -> None:
    """Discard what is written to streams that the shell closed (`>&-`), which are None."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, open(null, "w", closefd=False))  # noqa: SIM115


def _drop_output() -> None:
    """Discard what is still buffered for standard output, which cannot be written any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
