"""Models refuse inputs that do not fit, with one clear line and never an assertion of chex."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import GRUCell, LanguageModel, LSTMCell, Recurrent, SequenceModel
from jaxrnn.errors import SettingError

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (jnp.zeros((2, 5)), TypeError, "inputs must be integer, not float32"),
        (jnp.zeros(5, jnp.int32), ValueError, r"inputs must be \[B, T\], but its shape is \(5,\)"),
        (jnp.zeros((2, 5, 3), jnp.int32), ValueError, r"inputs must be \[B, T\]"),
        (jnp.zeros((2, 0), jnp.int32), ValueError, "at least one time step"),
        (np.zeros((2, 5), bool), TypeError, "inputs must be integer, not bool"),
    ],
)
@pytest.mark.parametrize("embedding_size", [None, 3])
def test_language_model_refuses_inputs(inputs, error, message, embedding_size):
    model = LanguageModel(Recurrent(GRUCell(4)), 7, embedding_size=embedding_size)
    with pytest.raises(error, match=message):
        jax.eval_shape(model.init, KEY, inputs)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (jnp.zeros((2, 5), jnp.int32), ValueError, r"inputs must be \[B, T, F\]"),
        (jnp.zeros((2, 5, 3), jnp.int32), TypeError, "inputs must be floating, not int32"),
    ],
)
def test_sequence_model_refuses_inputs(inputs, error, message):
    with pytest.raises(error, match=message):
        jax.eval_shape(SequenceModel(Recurrent(LSTMCell(4)), 7).init, KEY, inputs)


def test_settings_that_do_not_fit_each_other():
    with pytest.raises(SettingError, match="tie_embeddings needs an embedding size"):
        LanguageModel(Recurrent(GRUCell(4)), 7, tie_embeddings=True)
    with pytest.raises(ValueError, match="must not be reversed"):
        LanguageModel(Recurrent(GRUCell(4), reverse=True), 7)
    with pytest.raises(ValueError, match="must be one such as Recurrent"):
        SequenceModel(GRUCell(4), 7)
    model = LanguageModel(Recurrent(GRUCell(4)), 7, embedding_size=3, tie_embeddings=True)
    with pytest.raises(SettingError, match="hidden size, 4, not of 3"):
        jax.eval_shape(model.init, KEY, jnp.zeros((2, 5), jnp.int32))
