"""The LSTM by cuDNN: what surrounds the call, and, where there is a GPU, the call itself."""

from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn
from variants import gradients

from jaxrnn.cells import GRUCell, LSTMCell
from jaxrnn.layers import cudnn
from jaxrnn.layers.recurrent import Recurrent

B, T, F, H = 4, 7, 3, 5
LENGTHS = jnp.array([7, 4, 0, 1])


def by_reference(x, h, c, weights, lengths, *sizes):
    """JAX's own reference of the same call, with the same weights in one row."""
    *sizes, precision = sizes
    assert precision == jax.lax.Precision.HIGHEST
    features, hidden, layers, _, bidirectional = sizes
    x = jnp.where((lengths < 1).any(), jnp.nan, x)  # the library fails where any length is 0
    parts = rnn.unpack_lstm_weights(weights, features, hidden, layers, bidirectional)
    with jax.numpy_rank_promotion("allow"):
        outputs, h, c = rnn.lstm_ref(x, h, c, *parts, lengths, *sizes)
    # What the library leaves past a row's length is nobody's business.
    past = lengths[:, None] <= jnp.arange(x.shape[1])[None]
    return jnp.where(past[..., None], jnp.nan, outputs), h, c


def forward_by_reference(x, h, c, weights, lengths, *settings):
    """As `rnn.lstm_fwd`: the results, and what the backward pass needs."""
    return by_reference(x, h, c, weights, lengths, *settings), (x, h, c, weights, lengths)


def backward_by_reference(*arguments):
    """As `rnn.lstm_bwd`: gradients of inputs, h, c and weights, and None for the lengths."""
    *settings, (*inputs, lengths), gradients = arguments
    _, pull_back = jax.vjp(lambda *each: by_reference(*each, lengths, *settings), *inputs)
    return *pull_back(gradients), None


@pytest.fixture(params=["reference", pytest.param("device", marks=pytest.mark.gpu)])
def library(request, monkeypatch):
    """cuDNN, or, on any device, what stands for it."""
    if request.param == "reference":
        monkeypatch.setattr(rnn, "lstm_fwd", forward_by_reference)
        monkeypatch.setattr(rnn, "lstm_bwd", backward_by_reference)
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


@pytest.mark.sampled(16)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("chunk", [None, 3])
def test_values_and_gradients_equal_the_scan(library, lengths, reverse, chunk, key):
    del library
    layer = Recurrent(LSTMCell(H), reverse=reverse, remat_chunk_size=chunk, implementation="cudnn")
    keys = jax.random.split(key, 3)
    inputs = jax.random.normal(keys[0], (B, T, F))
    params = layer.init(keys[1], inputs)
    params = jax.tree.map(lambda x: x + 0.3 * jnp.sin(jnp.arange(x.size)).reshape(x.shape), params)
    zeros = layer.cell.initialize_carry(keys[2], (B, F))
    carry = jax.tree.map(lambda x: x + jax.random.normal(keys[2], x.shape), zeros)

    by_cudnn, by_scan = (
        gradients(layer.clone(implementation=name), params, inputs, carry, lengths)
        for name in ("cudnn", "scan")
    )
    chex.assert_trees_all_close(by_cudnn, by_scan, rtol=2e-5, atol=2e-6)


def test_unsupported_layers_are_refused(monkeypatch):
    inputs = jnp.ones((B, T, F))

    def run(cell, inputs=inputs, dropout=0.0, **options):
        layer = Recurrent(cell, recurrent_dropout=dropout, implementation="cudnn")
        variables = layer.init(jax.random.key(0), inputs)
        layer.apply(variables, inputs, rngs={"dropout": jax.random.key(1)}, **options)

    if jax.default_backend() != "gpu":
        with pytest.raises(ValueError, match=r"cudnn needs a GPU, but .* kind cpu: use implementa"):
            run(LSTMCell(H))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for cell in (GRUCell(H), LSTMCell(H, peepholes=True)):
        with pytest.raises(ValueError, match="cudnn needs an LSTM"):
            run(cell)
    half = inputs.astype(jnp.float16)
    with pytest.raises(ValueError, match="cudnn needs float32, not float16"):
        run(LSTMCell(H, param_dtype=jnp.float16), half)
    with pytest.raises(ValueError, match="cudnn needs sequences without resets"):
        run(LSTMCell(H), resets=jnp.ones((B, T), bool))
    with pytest.raises(ValueError, match="cudnn needs recurrent_dropout = 0"):
        run(LSTMCell(H), dropout=0.5, deterministic=False)


@pytest.mark.parametrize("compiled", [False, True])
def test_under_vmap_an_error_says_what_to_do(monkeypatch, compiled):
    sizes = SimpleNamespace(compute_rnn_workspace_reserve_space_sizes=lambda *_: (0, 8))
    if jax.default_backend() != "gpu":  # enough of the library to trace the call
        monkeypatch.setattr(rnn, "gpu_rnn", sizes)
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    layer = Recurrent(LSTMCell(H), implementation="cudnn")
    inputs = jnp.ones((2, B, T, F))
    variables = layer.init(jax.random.key(0), inputs[0])

    def run(each):
        return layer.apply(variables, each)[0]

    assert jax.eval_shape(run, inputs[0]).shape == (B, T, H)
    with pytest.raises(ValueError, match="cudnn cannot run under vmap: use implementation='auto'"):
        jax.eval_shape(jax.vmap(jax.jit(run) if compiled else run), inputs)


def test_a_row_is_reversed_up_to_its_length():
    rows = jnp.arange(8.0).reshape(2, 4, 1)
    turned = cudnn._reverse_rows(rows, jnp.array([3, 0]))
    np.testing.assert_array_equal(turned[..., 0], [[2, 1, 0, 3], [4, 5, 6, 7]])
