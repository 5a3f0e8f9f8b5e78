"""Checks that the processes of a run train the same: each of them must call these functions."""

import json
import zlib
from pathlib import Path
from typing import Any

from jaxrnn.errors import RunError, SettingError
from jaxrnn.runs import config_json
from jaxrnn.runs.files import sha256_of
from jaxrnn.training import processes
from jaxrnn.training.config import ExperimentConfig

PARTS = ("task", "model", "train", "seed", "seeds", "vmap_size", "init_from", "mesh")


def require_same_experiment(config: ExperimentConfig) -> None:
    """Raise SettingError if several processes were started with other settings or data files.

    Files may be at different places. Without this check the processes would wait for each other
    for ever, or train a network that no single process would.
    """
    if not processes.are_several():
        return
    digests = processes.share([_digest(config, part) for part in PARTS])
    for process, others in enumerate(digests):
        parts = [part for part, mine in zip(PARTS, others == digests[0], strict=True) if not mine]
        if parts:
            processes.end_together()
            raise SettingError(
                f"process {process} was started with other settings or data than process 0"
                f" ({', '.join(parts)}): start the same command in each process"
            )


def require_same_step(run_dir: Path, step: int) -> None:
    """Raise RunError if several processes found checkpoints of different steps."""
    found = processes.share([step])[:, 0].tolist()
    if len(set(found)) > 1:
        processes.end_together()
        raise RunError(
            f"the processes found checkpoints of the steps {found} in {run_dir}: it must be on a"
            " file system that they share"
        )


def _digest(config: ExperimentConfig, part: str) -> int:
    """Return 31 bits that depend on a part of the experiment."""
    value = config_json.to_json(getattr(config, part))
    if part == "task":
        value = [_without_paths(value), [sha256_of(Path(file)) for file in config.task.files]]
    return zlib.crc32(json.dumps(value, sort_keys=True).encode()) >> 1


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_paths(inner) for name, inner in value.items() if name != "path"}
    return [_without_paths(inner) for inner in value] if isinstance(value, list) else value
