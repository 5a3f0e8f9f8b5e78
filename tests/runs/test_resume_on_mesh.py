"""A run that started on one mesh of devices goes on with another."""

import signal
from dataclasses import replace

import chex
import numpy as np
import pytest
from example_tasks import Echo

from jaxrnn.cells import LSTMCell
from jaxrnn.cli.commands import Resume
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.runs import checkpoints, run_metadata, runner
from jaxrnn.runs.callbacks import Callback
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.mesh import MeshShape

TRAIN = TrainConfig(20, 0.01, steps_per_call=4, checkpoint_seconds=0)
MODEL = SequenceModel(Recurrent(LSTMCell(5)), 4)
TASK = Echo(batch_size=8, stateful=True)
SEEDS = 4


class Terminate(Callback):
    """Ask the run to stop after its third call."""

    calls = 0

    def after_call(self, run_state):
        self.calls += 1
        if self.calls == 3:
            signal.raise_signal(signal.SIGTERM)


def config(mesh, seeds):
    return ExperimentConfig(TASK, MODEL, TRAIN, 5, seeds, 1, mesh=MeshShape.parse(mesh))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return runner.run(config("seed=1", SEEDS), run_dir=tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.optimized
@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "tolerance"),
    [
        ("seed=4", "seed=1", 0.0),
        ("seed=1", "seed=4", 0.0),
        ("seed=2,data=2", "seed=3", 1e-5),
        ("seed=1", "data=2", 1e-5),
    ],
)
def test_an_interrupted_run_goes_on(whole, tmp_path, capsys, before, after, tolerance):
    expected, run_dir = whole, tmp_path / "run"
    with pytest.raises(SystemExit):
        runner.run(config(before, SEEDS), run_dir=run_dir, callbacks=[Terminate()])
    assert 0 < checkpoints.steps(run_dir / "checkpoints")[-1] < TRAIN.steps
    result = runner.resume(run_dir, mesh=MeshShape.parse(after))
    assert f"the run used the mesh {before}; it resumes with {after}" in capsys.readouterr().err
    chex.assert_trees_all_close(result.state, expected.state, atol=tolerance)
    np.testing.assert_allclose(
        result.history.values["loss"], expected.history.values["loss"], atol=tolerance
    )


@pytest.mark.slow
def test_the_command_takes_a_mesh(tmp_path, capsys):
    run_dir = tmp_path / "run"
    with pytest.raises(SystemExit):
        runner.run(config("seed=2", 2), run_dir=run_dir, callbacks=[Terminate()])
    Resume(run_dir, mesh="seed=1")()
    assert "it resumes with seed=1" in capsys.readouterr().err
    assert checkpoints.steps(run_dir / "checkpoints")[-1] == TRAIN.steps


def test_the_layouts_of_sessions_are_among_their_differences(tmp_path):
    """`verify` then says why the bits differ."""
    run_metadata.begin(tmp_path, config("seed=1", 4))
    for step, mesh, size in ((0, "seed=1", 1), (4, "seed=1", 1), (8, "seed=2", 2)):
        run_metadata.begin_session(tmp_path, step, replace(config(mesh, 4), vmap_size=size))
    assert run_metadata.differences(tmp_path) == [
        f"when it was resumed at step 8, the {changed}"
        for changed in ("vmap size was 1, is 2", "mesh was seed=1, is seed=2")
    ]
