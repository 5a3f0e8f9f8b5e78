"""Train, print a summary and draw the curves: what most scripts do."""

from pathlib import Path

from jaxrnn.runs import runner
from jaxrnn.runs.runner import Result
from jaxrnn.training.config import ExperimentConfig


def run_and_report(
    config: ExperimentConfig,
    *,
    run_dir: Path | str | None = None,
    name: str | None = None,
    plots: bool = True,
) -> Result:
    """Train, print a summary of the run, and draw `curves.png` in its directory.

    Args:
      config: what to train.
      run_dir: a new or empty directory; if None, a new number in `runs/<name>`.
      name: a name for the run; if None, the task's.
      plots: whether to draw the curves.

    Returns:
      the result of `runner.run`.

    Raises:
      SettingError, RunError, OSError, DivergedError, MemoryError, KeyboardInterrupt, SystemExit:
        as `runner.run`.
    """
    result = runner.run_experiment(config, run_dir=run_dir, name=name, picture=plots)
    print(result)
    return result
