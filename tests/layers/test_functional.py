"""`lstm` and `gru` as pure functions, from plain JAX, Flax NNX, Equinox and Haiku."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jaxrnn import GRUCell, GRUParams, LSTMCell, LSTMParams, Recurrent, gru, lstm

B, T, F, H = 3, 6, 4, 5
INPUTS = jax.random.normal(jax.random.key(0), (B, T, F))
WEIGHTS = jax.random.normal(jax.random.key(1), (B, T, H))


def loss_and_gradients(run, params, inputs=INPUTS):
    """The value and gradients of a weighted sum of all outputs."""
    return jax.value_and_grad(lambda *each: jnp.sum(WEIGHTS * run(*each)), (0, 1))(params, inputs)


@pytest.mark.slow
def test_nnx_lstm_has_the_same_values_and_gradients():
    cell = nnx.OptimizedLSTMCell(F, H, rngs=nnx.Rngs(3))
    graph, state = nnx.split(cell)
    layer = lambda state, inputs: nnx.RNN(nnx.merge(graph, state))(inputs)  # noqa: E731

    def ours(state, inputs):  # NNX concatenates the gates in the same order: i, f, g, o
        dense_i, dense_h = (state[name] for name in ("dense_i", "dense_h"))
        kernels = dense_i["kernel"][...], dense_h["kernel"][...]
        return lstm(LSTMParams(*kernels, dense_h["bias"][...]), inputs)[0]

    with jax.numpy_rank_promotion("allow"):
        chex.assert_trees_all_close(
            loss_and_gradients(ours, state), loss_and_gradients(layer, state), rtol=1e-4, atol=1e-5
        )


def test_equinox_lstm_has_the_same_values_and_gradients():
    eqx = pytest.importorskip("equinox")
    cell = eqx.nn.LSTMCell(F, H, key=jax.random.key(4))

    def theirs(cell, inputs):
        def row(xs):
            step = lambda carry, x: (cell(x, carry),) * 2  # noqa: E731
            return jax.lax.scan(step, (jnp.zeros(H), jnp.zeros(H)), xs)[1][0]

        return jax.vmap(row)(inputs)

    def ours(cell, inputs):  # the gates are i, f, g, o, and kernels are [4H, F]
        params = LSTMParams(cell.weight_ih.T, cell.weight_hh.T, cell.bias)
        return lstm(params, inputs)[0]

    arrays, static = eqx.partition(cell, eqx.is_array)
    results = [
        loss_and_gradients(lambda a, x, run=run: run(eqx.combine(a, static), x), arrays)
        for run in (ours, theirs)
    ]
    chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_haiku_lstm_has_the_same_values_and_gradients():
    hk = pytest.importorskip("haiku")

    @hk.without_apply_rng
    @hk.transform
    def layer(inputs):
        core = hk.LSTM(H)
        return hk.dynamic_unroll(core, inputs, core.initial_state(B), time_major=False)[0]

    params = layer.init(jax.random.key(5), INPUTS)

    def ours(params, inputs):  # gates i, g, f, o; one kernel for inputs and h; f gets + 1
        ((name, weights),) = params.items()
        assert name.endswith("linear")
        i, g, f, o = jnp.split(weights["w"], 4, axis=1)
        bi, bg, bf, bo = jnp.split(weights["b"], 4)
        kernel = jnp.concatenate([i, f, g, o], axis=1)
        bias = jnp.concatenate([bi, bf + 1, bg, bo])
        return lstm(LSTMParams(kernel[:F], kernel[F:], bias), inputs)[0]

    with jax.numpy_rank_promotion("allow"):
        chex.assert_trees_all_close(
            loss_and_gradients(ours, params),
            loss_and_gradients(layer.apply, params),
            rtol=1e-4,
            atol=1e-5,
        )


def concat(params, side, gates, part="kernel"):
    return jnp.concatenate([params[side + gate][part] for gate in gates], axis=-1)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_functions_equal_the_layer_to_the_bit(kind, reverse):
    cell = LSTMCell(H) if kind == "lstm" else GRUCell(H)
    layer = Recurrent(cell, reverse=reverse)
    variables = layer.init(jax.random.key(6), INPUTS)
    options: Any = {
        "lengths": jnp.array([T, 3, 0]),
        "resets": jax.random.bernoulli(jax.random.key(7), 0.3, (B, T)),
    }
    cell_params: Any = variables["params"]["cell"]
    gates = "ifgo" if kind == "lstm" else "rzn"
    kernels = concat(cell_params, "i", gates), concat(cell_params, "h", gates)
    if kind == "lstm":
        params = LSTMParams(*kernels, concat(cell_params, "h", gates, "bias"))
        found = lstm(params, INPUTS, reverse=reverse, **options)
    else:
        bias = concat(cell_params, "i", gates, "bias")
        params = GRUParams(*kernels, bias, cell_params["hn"]["bias"])
        found = gru(params, INPUTS, reverse=reverse, **options)
    chex.assert_trees_all_equal(found, layer.apply(variables, INPUTS, **options))


PARAMS = LSTMParams(jnp.ones((F, 4 * H)), jnp.ones((H, 4 * H)), jnp.zeros(4 * H))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((PARAMS, INPUTS[0]), ValueError, r"inputs must be \[B, T, F\]"),
        ((PARAMS, INPUTS[..., :2]), ValueError, "inputs must have F = 4"),
        ((PARAMS, INPUTS.astype(jnp.float16)), TypeError, "inputs must be float32"),
        ((tuple(PARAMS), INPUTS), TypeError, "params must be LSTMParams, not tuple"),
        ((PARAMS._replace(bias=jnp.zeros(H)), INPUTS), ValueError, r"params.bias must be \[4H\]"),
        ((PARAMS, INPUTS, jnp.zeros((B, H))), TypeError, r"carry must be an LSTMCarry\(c, h\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        lstm(*arguments)


def test_lengths_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"lengths\[1\] is 9"):
        lstm(PARAMS, INPUTS, lengths=jnp.array([1, 9, 2]))
