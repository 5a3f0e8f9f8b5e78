"""Models refuse inputs that do not fit, with one clear line and never an assertion of chex."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import (
    Bidirectional,
    GRUCell,
    LanguageModel,
    LSTMCell,
    Recurrent,
    SequenceModel,
    Stack,
)
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


def test_incompatible_settings():
    with pytest.raises(SettingError, match="tie_embeddings needs an embedding size"):
        LanguageModel(Recurrent(GRUCell(4)), 7, tie_embeddings=True)
    with pytest.raises(ValueError, match="must not be reversed"):
        LanguageModel(Recurrent(GRUCell(4), reverse=True), 7)
    with pytest.raises(ValueError, match="must be one such as Recurrent"):
        SequenceModel(GRUCell(4), 7)
    model = LanguageModel(Recurrent(GRUCell(4)), 7, embedding_size=3, tie_embeddings=True)
    with pytest.raises(SettingError, match="hidden size, 4, not 3"):
        jax.eval_shape(model.init, KEY, jnp.zeros((2, 5), jnp.int32))


@pytest.mark.parametrize("size", [0, -1, 2.5, "7", True, None])
def test_output_sizes_are_positive_integers(size):
    with pytest.raises(SettingError, match="output size must be"):
        SequenceModel(Recurrent(LSTMCell(4)), size)
    with pytest.raises(SettingError, match="vocabulary size must be"):
        LanguageModel(Recurrent(LSTMCell(4)), size)
    if size is not None:
        with pytest.raises(SettingError, match="embedding size must be"):
            LanguageModel(Recurrent(LSTMCell(4)), 7, embedding_size=size)


@pytest.mark.parametrize(
    ("options", "other", "message"),
    [
        ({}, {"vocabulary_size": 9}, "inputs must have F = 7, as the parameters have, but F = 9"),
        (
            {"embedding_size": 3},
            {"vocabulary_size": 9},
            r"params embedding/embedding must be \[V, F\] with V = 9",
        ),
        (
            {"embedding_size": 3},
            {"embedding_size": 5},
            r"params embedding/embedding must be \[V, F\] with F = 5",
        ),
    ],
)
def test_language_model_refuses_another_models_parameters(options, other, message):
    ids = jnp.zeros((2, 5), jnp.int32)
    model = LanguageModel(Recurrent(GRUCell(4)), 7, **options)
    variables = jax.eval_shape(model.init, KEY, ids)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.clone(**other).apply, variables, ids)


def test_sequence_model_refuses_another_models_readout():
    inputs = jnp.zeros((2, 5, 3))
    variables = jax.eval_shape(SequenceModel(Recurrent(LSTMCell(4)), 7).init, KEY, inputs)
    message = r"params readout/kernel must be \[H, V\] with V = 9, .*, so V = 7"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(SequenceModel(Recurrent(LSTMCell(4)), 9).apply, variables, inputs)


def test_numpy_integers_are_accepted_as_sizes():
    three, seven = np.int64(3), np.int32(7)
    sizes: Any = (three,)
    model = SequenceModel(Recurrent(GRUCell(4)), *sizes)
    assert type(model.output_size) is int and model == model.clone(output_size=3)
    sizes = (seven, three)
    model = LanguageModel(Recurrent(GRUCell(4)), *sizes)
    assert (type(model.vocabulary_size), type(model.embedding_size)) == (int, int)


def half(cell=LSTMCell, **options):
    """A layer in bfloat16, of the same size as the embedding."""
    return Recurrent(cell(3, dtype=jnp.bfloat16), **options)


def whole():
    return Recurrent(GRUCell(3))


@pytest.mark.sampled(5)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "layers", [half(), Stack((whole(), half()), residual=True), Stack((half(), half()))]
)
def test_logits_after_bfloat16_cells_are_float32(layers, tied):
    ids = jnp.array([[3, 0, 6, 1]])
    model = LanguageModel(layers, 7, embedding_size=3, tie_embeddings=tied)
    (logits, _), _ = model.init_with_output(KEY, ids)
    assert logits.dtype == jnp.float32


@pytest.mark.parametrize("merge", ["concat", "sum"])
def test_directions_of_two_dtypes_are_merged_in_the_wider(merge):
    layer = Bidirectional(whole(), half(reverse=True), merge)
    (outputs, _), _ = layer.init_with_output(KEY, jnp.ones((2, 5, 3)))
    assert outputs.dtype == jnp.float32
