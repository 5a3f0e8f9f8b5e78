"""Command lines: `run_command` and `exit_cleanly` for scripts, and the command `jaxrnn`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrnn.cli.entry import exit_cleanly, run_command
    from jaxrnn.cli.reporting import init_from, run_and_report

__all__ = ["exit_cleanly", "init_from", "run_and_report", "run_command"]


def __getattr__(name: str) -> Any:
    """Import the names when they are first used: `jaxrnn info` needs no training."""
    if name in ("init_from", "run_and_report"):
        from jaxrnn.cli import reporting

        return getattr(reporting, name)
    if name in __all__:
        from jaxrnn.cli import entry

        return getattr(entry, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
