"""Command lines: `run_command` and `exit_cleanly` for scripts, and the command `jaxrnn`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrnn.cli.config_file import options_of
    from jaxrnn.cli.entry import exit_cleanly, run_command
    from jaxrnn.cli.reporting import init_from, run_and_report

__all__ = ["exit_cleanly", "init_from", "options_of", "run_and_report", "run_command"]

_HOMES = {
    "init_from": "reporting",
    "options_of": "config_file",
    "run_and_report": "reporting",
    "run_command": "entry",
    "exit_cleanly": "entry",
}


def __getattr__(name: str) -> Any:
    """Import the names when they are first used: `jaxrnn info` needs no training."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
