"""A run's metrics in an experiment tracker: Weights & Biases or Trackio."""

import contextlib
import importlib
import importlib.util
import math
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from jaxrnn.choices import check_choice
from jaxrnn.errors import RunError
from jaxrnn.runs import run_directory
from jaxrnn.runs.files import read_json
from jaxrnn.runs.import_paths import first_line
from jaxrnn.runs.progress import note
from jaxrnn.runs.tensorboard import curves

PACKAGES = ("wandb", "trackio")


def require(package: str) -> None:
    """Check that a tracker can be used.

    Raises:
      SettingError: if there is none of that name.
      RunError: if it is not installed.
    """
    check_choice("the tracker", package, PACKAGES)
    if importlib.util.find_spec(package) is None:
        raise RunError(f"the tracker {package} is not installed: pip install {package}")


def new(package: str) -> dict[str, str]:
    """Return what a manifest keeps of a tracker, so that a resumed run continues there."""
    return {"package": package, "id": uuid.uuid4().hex[:12]}


class Tracker:
    """The run in a tracker's project; it receives what TensorBoard's event file does.

    The project is named like the folder that the run's directory is in. A tracker that fails during
    training is left out from then on, with a note: the run has its own metrics.
    """

    def __init__(self, run_dir: Path, record: Mapping[str, str]):
        """Start the tracker, or continue with it.

        Args:
          run_dir: the run's directory, with its config.json.
          record: from `new`.

        Raises:
          RunError: if it cannot start, for example without a login; W&B needs none with
            WANDB_MODE=offline.
        """
        package, unique = record["package"], record["id"]
        require(package)
        place = run_dir.resolve()
        options: dict[str, Any] = {
            "project": place.parent.name or "jaxrnn",
            "name": f"{place.name}-{unique[:6]}",
            "config": read_json(run_dir / run_directory.CONFIG)["experiment"],
            "resume": "allow",
        }
        try:
            self._module: ModuleType | None = importlib.import_module(package)
            if package == "wandb":
                quiet = self._module.Settings(console="off", silent=True)
                options |= {"id": unique, "dir": str(run_dir), "settings": quiet}
            else:
                options |= {"auto_log_gpu": False, "auto_log_cpu": False}
            with contextlib.redirect_stdout(sys.stderr):
                self._module.init(**options)
        except Exception as error:  # of any type: it is the package's own
            raise RunError(f"the tracker {package} did not start ({first_line(error)})") from error
        self._package = package

    def add(
        self,
        steps: Sequence[int] | np.ndarray,
        metrics: Mapping[str, np.ndarray],
        wall_times: Sequence[float] | np.ndarray,
    ) -> None:
        """Add the metrics of some steps, as `tensorboard.Events.add` does; finite values only."""
        del wall_times  # trackers have their own clock
        named = curves(metrics)
        for row, step in enumerate(steps):
            values = {name: curve[row] for name, curve in named.items()}
            finite = {name: value for name, value in values.items() if math.isfinite(value)}
            self._call("log", finite, step=int(step))

    def close(self) -> None:
        """Tell the tracker that the run has ended, or stops for now."""
        self._call("finish")

    def _call(self, function: str, *arguments: Any, **options: Any) -> None:
        if self._module is None:
            return
        try:
            with contextlib.redirect_stdout(sys.stderr):  # standard output is for the summary
                getattr(self._module, function)(*arguments, **options)
        except Exception as error:
            self._module = None
            note(f"the tracker {self._package} failed and is left out ({first_line(error)})")
