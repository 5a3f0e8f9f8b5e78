"""The classic lab as TensorFlow 1.14 itself computed it: tests/goldens/README.md says how."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrnn.cells import LSTMCell
from jaxrnn.interop import from_tf1
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.tasks.next_character import NextCharacter
from jaxrnn.training.optimizer import OPTIMIZERS
from jaxrnn.training.step import TrainState, make_train_step

pytestmark = pytest.mark.optimized

H = V = 5
MODEL = SequenceModel(Recurrent(LSTMCell(H)), V)
GOLDEN = Path(__file__).parent / "goldens" / "tf114_hihello_seed777.npz"


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN)


def params_of(golden, moment):
    """The model's parameters at a moment, "init" or "final"."""
    variables = {
        "rnn/basic_lstm_cell/kernel": golden[f"{moment}.lstm_kernel"],
        "rnn/basic_lstm_cell/bias": golden[f"{moment}.lstm_bias"],
    }
    readout = {name: golden[f"{moment}.readout_{name}"] for name in ("kernel", "bias")}
    return jax.tree.map(
        jnp.asarray, {"recurrent": from_tf1(MODEL.recurrent, variables), "readout": readout}
    )


def trace(golden, optimizer, model=MODEL):
    """Each step's loss, before its update, and prediction, after it."""
    task, key = NextCharacter(num_logged_positions=1), jax.random.key(0)
    batch = task.sample_batch(key, jnp.int32(0))
    params = params_of(golden, "init")
    state = TrainState(jnp.int32(0), params, optimizer.init(params))
    train_step = jax.jit(make_train_step(task, model, optimizer))
    history = []
    for _ in range(50):
        state, metrics = train_step(state, batch, key)
        history.append(metrics)
    trained = state.params
    history.append(train_step(state, batch, key)[1])  # a last look
    losses = [metrics["loss"] for metrics in history[:-1]]
    predictions = [metrics["prediction"] for metrics in history[1:]]
    return np.array(losses), np.array(predictions), trained


def test_every_loss_and_prediction_equals_tensorflows(golden):
    losses, predictions, _ = trace(golden, optax.adam(0.1))
    np.testing.assert_allclose(losses, golden["loss"], atol=2e-4, rtol=0)
    np.testing.assert_array_equal(predictions, golden["prediction"])


def test_the_remaining_difference_is_adams_epsilon(golden):
    """With optax's Adam a loss is off by 1.0e-4; with TensorFlow's formula by 5e-6."""
    losses, predictions, params = trace(golden, OPTIMIZERS["adam-tf1"](0.1))
    np.testing.assert_allclose(losses, golden["loss"], atol=1e-5, rtol=0)
    np.testing.assert_array_equal(predictions, golden["prediction"])
    final = params_of(golden, "final")
    differences = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), params, final)
    assert max(jax.tree.leaves(differences)) < 1e-2
