"""config.json and manifest.json: what a run is made of, what it was made with, how it goes."""

import math
import sys
from pathlib import Path
from typing import Any

from jaxrnn.errors import RunError
from jaxrnn.runs import config_json, import_paths, provenance, run_directory
from jaxrnn.runs.files import read_json, sha256_of, write_json
from jaxrnn.training.config import ExperimentConfig


def config_of(study: ExperimentConfig) -> dict[str, Any]:
    """What config.json will hold of a study.

    Raises:
      RunError: if a part of it cannot be written.
    """
    script = import_paths.script_of_main()
    try:
        study_json = config_json.to_json(study)
    except (TypeError, ValueError) as error:
        raise RunError(str(error)) from error
    loss = study.task.memoryless_loss
    if loss is not None and not math.isfinite(loss):
        raise RunError("the task's memoryless_loss must be a finite number, or None")
    return {"experiment": study_json, "script": str(script) if script else None}


def begin(path: Path, study: ExperimentConfig) -> None:
    """Write both files of a new run.

    Raises:
      RunError: if a part of the study cannot be written.
      OSError: if a file cannot be.
    """
    rebuilds, batch = config_of(study), study.batch_shape
    facts = {
        "status": "running",
        "created": provenance.utc_now(),
        "sessions": [],
        "batch_shape": {
            name: f"{array.dtype}{list(array.shape)}"
            for name, array in batch._asdict().items()
            if array is not None
        },
        "seeds_side_by_side": study.vmap_size,
        "memoryless_loss": study.task.memoryless_loss,
        "folder": str(Path.cwd()),
        "data_files": {str(file): sha256_of(Path(file)) for file in study.task.files},
        "surroundings": provenance.surroundings(_script(rebuilds)),
    }
    write_json(path / run_directory.MANIFEST, facts)
    write_json(path / run_directory.CONFIG, rebuilds)


def load_config(path: Path) -> ExperimentConfig:
    """The study of a run, rebuilt from its config.json.

    Raises:
      RunError: if the file is damaged, or names what is not there any more.
      OSError: if it cannot be read.
    """
    rebuilds = _read(path / run_directory.CONFIG, "experiment", "script")
    try:
        study = config_json.from_json(rebuilds["experiment"], _script(rebuilds), "experiment")
    except ValueError as error:
        raise RunError(f"{path / run_directory.CONFIG}: {error}") from error
    if not isinstance(study, ExperimentConfig):
        raise RunError(f"{path / run_directory.CONFIG} holds no experiment")
    return study


def load(path: Path) -> dict[str, Any]:
    """A run's manifest.json.

    Raises:
      RunError: if it is damaged.
      OSError: if it cannot be read.
    """
    return _read(path / run_directory.MANIFEST, "status", "sessions", "surroundings", "data_files")


def memoryless_loss(path: Path) -> float | None:
    """The loss of the best predictor without memory, if the manifest is there to say it."""
    return load(path).get("memoryless_loss") if (path / run_directory.MANIFEST).exists() else None


def differences(path: Path) -> list[str]:
    """What may give this process other bits than the run had; nothing if they must be equal."""
    script, facts = _script(_read(path / run_directory.CONFIG, "script")), load(path)
    found = provenance.differences(facts["surroundings"], provenance.surroundings(script))
    for session in facts["sessions"]:
        gone_on = f"when it was gone on with at step {session['from']}, "
        found += [gone_on + difference for difference in session.get("differences", ())]
    return found


def check_data(path: Path) -> None:
    """Refuse data files that are not what the run began with, with a RunError."""
    facts = load(path)
    for file, digest in facts["data_files"].items():
        if not Path(file).exists():
            raise RunError(f"there is no {file} here; the run began in {facts.get('folder')}")
        if sha256_of(Path(file)) != digest:
            raise RunError(f"{file} is not what the run in {path} began with; put it back")


def begin_session(path: Path, step: int) -> None:
    """Say in the manifest that this process works on the run, from this step on."""
    facts, script = load(path), _script(_read(path / run_directory.CONFIG, "script"))
    session: dict[str, Any] = {"command": [sys.executable, *sys.argv]}
    session |= {"began": provenance.utc_now(), "from": step}
    now = provenance.surroundings(script) if facts["sessions"] else facts["surroundings"]
    if found := provenance.differences(facts["surroundings"], now):
        session["differences"] = found
    sessions = [*facts["sessions"], session]
    write_json(path / run_directory.MANIFEST, facts | {"status": "running", "sessions": sessions})


def end_session(
    path: Path, status: str, step: int, diverged: dict[int, int], stopped: dict[int, int]
) -> None:
    """Say in the manifest how it ended: "finished", "interrupted" or "diverged"."""
    facts = load(path)
    *before, session = facts["sessions"]
    if "ended" in session:  # nothing was left to do
        return
    sessions = [*before, session | {"ended": provenance.utc_now(), "to": step}]
    ends = {
        "status": status,
        "sessions": sessions,
        "not_finite": diverged,
        "stopped_early": stopped,
    }
    write_json(path / run_directory.MANIFEST, facts | ends)


def _read(file: Path, *keys: str) -> dict[str, Any]:
    try:
        facts = read_json(file)
    except ValueError as error:
        raise RunError(str(error)) from error
    if not isinstance(facts, dict) or not facts.keys() >= set(keys):
        raise RunError(f"{file} is not the {file.name} of a run of jaxrnn")
    return facts


def _script(rebuilds: dict[str, Any]) -> Path | None:
    return Path(rebuilds["script"]) if rebuilds.get("script") else None
