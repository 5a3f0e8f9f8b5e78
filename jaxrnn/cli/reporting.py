"""What most scripts do: start from another run, train, print a summary and plot the curves."""

from pathlib import Path

from jaxrnn.analysis.report import summarize
from jaxrnn.errors import SettingError
from jaxrnn.runs.run_directory import require_run
from jaxrnn.runs.runner import RunResult, run
from jaxrnn.training.config import ExperimentConfig, InitFrom, TF1Weights
from jaxrnn.training.processes import is_first


def init_from(path: Path | None, final: bool) -> InitFrom | TF1Weights | None:
    """Return what the options --init-from and --final of a script mean.

    Args:
      path: of --init-from: a run, or a .npz file of TensorFlow 1's weights.
      final: whether --final is set.

    Raises:
      SettingError: if `final` is set, but there is no run to start from.
      OSError: if there is no such run.
    """
    if path is None:
        if final:
            raise SettingError("--final needs --init-from")
        return None
    if path.is_file() or (path.suffix == ".npz" and not path.is_dir()):
        if final:
            raise SettingError("--final is for a run to start from, not for a file")
        return TF1Weights(path)
    require_run(path)
    return InitFrom(path, final)


def run_and_report(
    config: ExperimentConfig,
    *,
    run_dir: Path | str | None = None,
    name: str | None = None,
    plots: bool = True,
    track: str | None = None,
) -> RunResult:
    """Train, print a summary of the run, and draw `curves.png` in its directory.

    Args:
      config: what to train.
      run_dir: a new or empty directory; if None, a new number in `runs/<name>`.
      name: a name for the run; if None, the task's.
      plots: whether to draw the curves.
      track: an experiment tracker that also gets the metrics: "wandb" or "trackio".

    Returns:
      the outcome, as `jaxrnn.run` does.

    Raises:
      SettingError, RunError, OSError, DivergedError, MemoryError, KeyboardInterrupt, SystemExit:
        as `jaxrnn.run`.
    """
    result = run(config, run_dir=run_dir, name=name, track=track)
    if not is_first():
        return result
    print(summarize(result))
    if plots:
        from jaxrnn.analysis.plots import plot_run  # Matplotlib takes a second to import

        plot_run(result.run_dir)
    return result
