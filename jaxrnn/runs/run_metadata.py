"""A run's config.json, which rebuilds the experiment, and manifest.json: its status and provenance.

A session is one process's work on a run: a run that was resumed twice has three.
"""

import math
import sys
from pathlib import Path
from typing import Any

import jax

from jaxrnn.errors import RunError
from jaxrnn.runs import config_json, import_paths, provenance, run_directory, tracking
from jaxrnn.runs.files import read_json, sha256_of, write_json
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.mesh import MeshShape


def config_of(config: ExperimentConfig) -> dict[str, Any]:
    """Return the contents of a run's config.json.

    Raises:
      RunError: if a part of the experiment cannot be written as JSON.
    """
    script = import_paths.script_of_main()
    try:
        experiment = config_json.to_json(config)
    except (TypeError, ValueError) as error:
        raise RunError(str(error)) from error
    loss = config.task.memoryless_loss
    if loss is not None and not math.isfinite(loss):
        raise RunError("the task's memoryless_loss must be a finite number, or None")
    return {"experiment": experiment, "script": str(script) if script else None}


def begin(
    path: Path,
    config: ExperimentConfig,
    init_from: dict[str, str] | None = None,
    sweep: dict[str, Any] | None = None,
    track: str | None = None,
) -> None:
    """Write both files of a new run.

    Args:
      path: the run's directory.
      config: the experiment.
      init_from: describes what it starts from.
      sweep: describes the program of a sweep in which it is trained together with others.
      track: the experiment tracker that it uses.

    Raises:
      RunError: if a part of the experiment cannot be written as JSON.
      OSError: if a file cannot be written.
    """
    written, batch = config_of(config), config.batch_shape
    manifest = {
        "status": "running",
        "created": provenance.utc_now(),
        "sessions": [],
        "batch_shape": {
            name: f"{array.dtype}{list(array.shape)}"
            for name, array in batch._asdict().items()
            if array is not None
        },
        "vmap_size": config.vmap_size,
        "mesh": str(config.mesh),
        "memoryless_loss": config.task.memoryless_loss,
        "working_directory": str(Path.cwd()),
        "data_files": {str(file): sha256_of(Path(file)) for file in config.task.files},
        "init_from": init_from,
        "provenance": provenance.collect(_script(written)),
    } | ({"sweep": sweep} if sweep else {})
    if track is not None:
        manifest["tracker"] = tracking.new(track)
    write_json(path / run_directory.MANIFEST, manifest)
    write_json(path / run_directory.CONFIG, written)


def only_in_session(path: Path) -> str | None:
    """Name something of the experiment that was defined at a prompt or in a notebook; else None."""
    written = _read(path / run_directory.CONFIG, "experiment", "script")
    names = config_json.names_in_main(written["experiment"])
    return names[0] if names and not written["script"] else None


def load_config(path: Path) -> ExperimentConfig:
    """Rebuild the experiment of a run from its config.json.

    Raises:
      RunError: if the file is damaged, or names something that no longer exists.
      OSError: if it cannot be read.
    """
    file = path / run_directory.CONFIG
    written = _read(file, "experiment", "script")
    try:
        config = config_json.from_json(written["experiment"], _script(written), "experiment")
    except ValueError as error:
        raise RunError(f"{file}: {error}") from error
    if not isinstance(config, ExperimentConfig):
        raise RunError(f"{file} contains no experiment")
    return config


def load(path: Path) -> dict[str, Any]:
    """Read a run's manifest.json.

    Raises:
      RunError: if it is damaged.
      OSError: if it cannot be read.
    """
    return _read(path / run_directory.MANIFEST, "status", "sessions", "provenance", "data_files")


def status(path: Path) -> str:
    """Return "running", "killed", "interrupted", "finished" or "diverged".

    Raises:
      RunError: if the manifest is damaged.
      OSError: if it cannot be read.
    """
    written = load(path)["status"]
    return "killed" if written == "running" and not run_directory.is_locked(path) else written


def memoryless_loss(path: Path) -> float | None:
    """Return the loss of the best predictor without memory; None if the manifest has none."""
    return load(path).get("memoryless_loss") if (path / run_directory.MANIFEST).exists() else None


def differences(path: Path) -> list[str]:
    """List what may give this process other bits than the run; if empty, they must be equal."""
    script, manifest = _script(_read(path / run_directory.CONFIG, "script")), load(path)
    found = provenance.differences(manifest["provenance"], provenance.collect(script))
    for session in manifest["sessions"]:
        resumed = f"when it was resumed at step {session['from_step']}, "
        found += [resumed + difference for difference in session.get("differences", ())]
    return found


def check_data(path: Path) -> None:
    """Raise RunError if a file of data or weights is missing or has changed since the start."""
    manifest = load(path)
    files, source = dict(manifest["data_files"]), manifest.get("init_from") or {}
    if "file" in source:
        files[source["file"]] = source["sha256"]
    for file, digest in files.items():
        if not Path(file).exists():
            started_in = manifest.get("working_directory")
            raise RunError(f"there is no {file} here; the run was started in {started_in}")
        if sha256_of(Path(file)) != digest:
            raise RunError(f"{file} has changed since the run in {path} started; restore it")


def begin_session(path: Path, step: int, config: ExperimentConfig) -> None:
    """Record that this process works on the run, from this step on and in this layout."""
    manifest, script = load(path), _script(_read(path / run_directory.CONFIG, "script"))
    session: dict[str, Any] = {"command": [sys.executable, *sys.argv]}
    session |= {"started": provenance.utc_now(), "from_step": step}
    session |= {"vmap_size": config.vmap_size, "mesh": str(config.mesh or MeshShape())}
    session |= {"processes": jax.process_count()}
    now = provenance.collect(script) if manifest["sessions"] else manifest["provenance"]
    found = provenance.differences(manifest["provenance"], now)
    for first in manifest["sessions"][:1]:
        found += [
            f"the {name.replace('_', ' ')} was {first[name]}, is {session[name]}"
            for name in ("vmap_size", "mesh")
            if first.get(name, session[name]) != session[name]
        ]
    if found:
        session["differences"] = found
    manifest |= {"status": "running", "sessions": [*manifest["sessions"], session]}
    write_json(path / run_directory.MANIFEST, manifest)


def end_session(path: Path, status: str, step: int, ends: dict[str, dict[int, int]]) -> None:
    """Record how the session ended: "finished", "interrupted" or "diverged".

    Args:
      path: the run's directory.
      status: one of these.
      step: the number of updates.
      ends: the seeds that are no longer trained, each with its last step: "diverged",
        "stopped_early", and "solved_at" if seeds stop when they have solved the task.
    """
    manifest = load(path)
    *earlier, session = manifest["sessions"]
    if "ended" in session:  # the run had already ended
        return
    session |= {"ended": provenance.utc_now(), "to_step": step}
    manifest |= {"status": status, "sessions": [*earlier, session], **ends}
    write_json(path / run_directory.MANIFEST, manifest)


def _read(file: Path, *keys: str) -> dict[str, Any]:
    try:
        contents = read_json(file)
    except ValueError as error:
        raise RunError(str(error)) from error
    if not isinstance(contents, dict) or not contents.keys() >= set(keys):
        raise RunError(f"{file} is not the {file.name} of a run of jaxrnn")
    return contents


def _script(written: dict[str, Any]) -> Path | None:
    return Path(written["script"]) if written.get("script") else None
