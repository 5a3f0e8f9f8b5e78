"""The loop trains each cell to learn; what it compiles for that need not be optimized."""

import pytest
from example_tasks import Echo

from jaxrnn.cells import CELLS
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.training.calls import compile_loop
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.loop import TrainLoop


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_training_learns(cell):
    """32 units are enough for the IRNN, whose input weights start close to 0.

    To tell the last symbol from those before, the RG-LRU has a convolution before it in its paper;
    alone, with its slow decays, it learns part of this task.
    """
    model = SequenceModel(Recurrent(CELLS[cell](32)), 4)
    config = ExperimentConfig(Echo(), model, TrainConfig(300, 0.01), seed=7)
    train_loop = TrainLoop(config)
    _, metrics = compile_loop(train_loop)(train_loop.blank, config.seed_numbers, 0, 301)
    loss = metrics["loss"][0]
    assert loss[-20:].mean() < (0.75 if cell == "rglru" else 0.5) * loss[:5].mean()
