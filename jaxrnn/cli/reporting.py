"""Train, print a summary and draw the curves: what most scripts do."""

from pathlib import Path

from jaxrnn.analysis.report import summarize
from jaxrnn.runs.runner import RunResult, run
from jaxrnn.training.config import ExperimentConfig


def run_and_report(
    config: ExperimentConfig,
    *,
    run_dir: Path | str | None = None,
    name: str | None = None,
    plots: bool = True,
) -> RunResult:
    """Train, print a summary of the run, and draw `curves.png` in its directory.

    Args:
      config: what to train.
      run_dir: a new or empty directory; if None, a new number in `runs/<name>`.
      name: a name for the run; if None, the task's.
      plots: whether to draw the curves.

    Returns:
      the outcome, as `jaxrnn.run` does.

    Raises:
      SettingError, RunError, OSError, DivergedError, MemoryError, KeyboardInterrupt, SystemExit:
        as `jaxrnn.run`.
    """
    result = run(config, run_dir=run_dir, name=name)
    print(summarize(result))
    if plots:
        from jaxrnn.analysis.plots import plot_run  # Matplotlib takes a second to import

        plot_run(result.run_dir)
    return result
