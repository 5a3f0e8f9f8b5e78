"""Small runs for tests that read them."""

from pathlib import Path
from typing import Any

from jaxrnn import Adding, ElmanCell, ExperimentConfig, Recurrent, SequenceModel, TrainConfig, run


def make_run(path: Path, steps: int = 4, seeds: int = 2, **train: Any) -> Path:
    """Train Elman networks of three units on the adding problem, in `path`."""
    model = SequenceModel(Recurrent(ElmanCell(3)), output_size=1)
    task = Adding(5, batch_size=2)
    config = ExperimentConfig(task, model, TrainConfig(steps, **train), seeds=seeds, vmap_size=2)
    return run(config, run_dir=path).run_dir
