"""Every cell: shapes, Flax's own cells, starting values, equality, and shut gates."""

from math import sqrt

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from variants import VARIANTS, B, F, H, apply, assert_close, drawn, randomised

from jaxrnn.cells import CELLS, INITIALIZERS, ElmanCell, GRUCell, LSTMCell, MinLSTMCell, positive
from jaxrnn.layers.recurrent import Recurrent


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", [None, jnp.bfloat16], ids=["None", "bfloat16"])
def test_shapes_and_types(name, dtype, key):
    cell = VARIANTS[name].make_cell(dtype=dtype)
    carry = cell.initialize_carry(key, (B, F))
    chex.assert_trees_all_equal(carry, jax.tree.map(jnp.zeros_like, carry))
    inputs = jax.ShapeDtypeStruct((B, F), jnp.float32)
    (_, outputs), params = jax.eval_shape(cell.init_with_output, key, carry, inputs)
    size = getattr(cell, "projection_size", None) or H
    states = jax.tree.leaves(carry)
    chex.assert_shape(outputs, (B, size))
    if VARIANTS[name].cell in ("mlstm", "deltanet", "gateddeltanet"):
        heads = cell.num_heads
        chex.assert_shape(states[0], (B, heads, H // heads, H // heads))
    else:
        chex.assert_shape(states[-1], (B, getattr(cell, "state_size", None) or size))
        chex.assert_shape(states[0], (B, getattr(cell, "state_size", None) or H))
    assert {leaf.dtype for leaf in jax.tree.leaves((carry, params))} == {jnp.dtype("float32")}
    assert cell.num_feature_axes == 1


@pytest.mark.parametrize(
    "ours, flax",
    [
        (LSTMCell(H), nn.LSTMCell(H)),
        (GRUCell(H), nn.GRUCell(H)),
        (ElmanCell(H), nn.SimpleCell(H)),
        (ElmanCell(H, activation_fn=nn.relu), nn.SimpleCell(H, activation_fn=nn.relu)),
        (ElmanCell(H, residual=True), nn.SimpleCell(H, residual=True)),
    ],
    ids=["lstm", "gru", "rnn", "relu", "residual"],
)
def test_cells_equal_flaxs_with_the_same_parameters(ours, flax, key):
    inputs, start, carry = randomised(
        (jnp.zeros((B, F)), flax.initialize_carry(key, (B, F)), ours.initialize_carry(key, (B, F))),
        key,
    )
    params = randomised(flax.init(key, start, inputs), key)
    chex.assert_trees_all_equal_shapes(params, ours.init(key, carry, inputs))
    carry = jax.tree.unflatten(jax.tree.structure(carry), jax.tree.leaves(start))
    actual, wanted = ours.apply(params, carry, inputs), flax.apply(params, start, inputs)
    chex.assert_trees_all_equal(jax.tree.leaves(actual), jax.tree.leaves(wanted))


def initial_params(cell, features=F):
    """The parameters that a cell starts with."""
    inputs = jnp.zeros((B, features))
    carry = cell.initialize_carry(jax.random.key(1), inputs.shape)
    return jax.tree.map(np.asarray, cell.init(jax.random.key(2), carry, inputs)["params"])


def test_only_the_forget_gate_starts_with_a_bias_unless_the_input_gate_is_given_one():
    assert LSTMCell(H).forget_bias == 1.0
    for cell in (LSTMCell(H, forget_bias=1.5), LSTMCell(H, forget_bias=1.5, peepholes=True)):
        params = initial_params(cell)
        biases = {gate: params["h" + gate]["bias"].tolist() for gate in "ifgo"}
        assert biases == {"i": [0] * H, "f": [1.5] * H, "g": [0] * H, "o": [0] * H}

    params = initial_params(LSTMCell(H, input_bias=-2.0))
    biases = {gate: params["h" + gate]["bias"].tolist() for gate in "ifgo"}
    assert biases == {"i": [-2] * H, "f": [1] * H, "g": [0] * H, "o": [0] * H}
    for input_bias, wanted in ((0.0, -1.0), (-2.0, -2.0)):
        params = initial_params(LSTMCell(H, coupled_gates=True, input_bias=input_bias))
        assert params["hi"]["bias"].tolist() == [wanted] * H

    params = initial_params(LSTMCell(H, forget_bias=1.5, layer_norm=True))
    assert params["norm_h"]["bias"].tolist() == [0] * H + [1.5] * H + [0] * 2 * H
    assert all("bias" not in params[side + gate] for side in "ih" for gate in "ifgo")

    params = initial_params(MinLSTMCell(H, forget_bias=1.5))
    biases = {gate: params["i" + gate]["bias"].tolist() for gate in "fig"}
    assert biases == {"f": [1.5] * H, "i": [0] * H, "g": [0] * H}


def test_peepholes_and_norms_start_without_effect():
    params = initial_params(LSTMCell(H, peepholes=True, layer_norm=True))
    assert not any(params[peephole].any() for peephole in ("pi", "pf", "po"))
    assert all((params[norm]["scale"] == 1).all() for norm in ("norm_i", "norm_h", "norm_c"))
    assert not params["norm_c"]["bias"].any()


UNITS, FEATURES = 48, 64
STANDARD_DEVIATIONS = {
    "glorot_uniform": sqrt(2 / (FEATURES + UNITS)),
    "glorot_normal": sqrt(2 / (FEATURES + UNITS)),
    "lecun_uniform": sqrt(1 / FEATURES),
    "lecun_normal": sqrt(1 / FEATURES),
    "he_uniform": sqrt(2 / FEATURES),
    "he_normal": sqrt(2 / FEATURES),
    "normal_0.001": 0.001,
    "uniform_0_1": sqrt(1 / 12),
    "zeros": 0.0,
}


@pytest.mark.parametrize("name", INITIALIZERS)
def test_initializers_by_name(name):
    """Each gate's matrix is made by itself: its fan-out is H, not 4H."""
    recurrent = initial_params(LSTMCell(UNITS, recurrent_kernel_init=name))["hg"]["kernel"]
    weights = initial_params(LSTMCell(UNITS, kernel_init=name), FEATURES)["ig"]["kernel"]
    if name == "orthogonal":
        assert_close(recurrent @ recurrent.T, np.eye(UNITS))
        assert_close(weights.T @ weights, np.eye(UNITS))
    elif name == "identity":
        np.testing.assert_array_equal(recurrent, np.eye(UNITS))
    else:
        # 3072 weights: a deviation is off by about 1.3 %.
        std = STANDARD_DEVIATIONS[name]
        np.testing.assert_allclose(weights.std(), std, rtol=0.06)
        if name.endswith("uniform"):
            assert 0.99 < np.abs(weights).max() / (sqrt(3) * std) <= 1
        if "normal" in name:
            assert np.abs(weights).max() > 1.9 * std  # beyond any uniform's bound


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_both_kernels_are_glorot_by_default(name):
    params = initial_params(CELLS[name](UNITS), FEATURES)
    for gate, weights in params.items():
        fans = {"i": FEATURES + UNITS, "h": 2 * UNITS}[gate[0]]
        assert 0.99 < np.abs(weights["kernel"]).max() / sqrt(6 / fans) <= 1


def test_the_irnn_starts_as_the_identity_with_small_inputs():
    params = initial_params(CELLS["irnn"](UNITS), FEATURES)
    np.testing.assert_array_equal(params["h"]["kernel"], np.eye(UNITS))
    np.testing.assert_allclose(params["i"]["kernel"].std(), 0.001, rtol=0.06)
    assert not params["i"]["bias"].any()
    assert CELLS["irnn"](UNITS).activation_fn is nn.relu


@pytest.mark.parametrize("name", VARIANTS)
def test_equal_modules_share_a_compilation(name):
    make = VARIANTS[name].make_cell
    cell, again = make(kernel_init="orthogonal"), make(kernel_init="orthogonal")
    assert cell is not again
    assert (cell, hash(cell)) == (again, hash(again))
    for other in (make(), make(2 * H, kernel_init="orthogonal")):
        assert cell != other


def test_positive_equals_its_definition(key):
    x = jnp.append(3 * jax.random.normal(key, (50,)), 0.0)
    wanted = [v + 0.5 if v >= 0 else 1 / (1 + np.exp(-v)) for v in np.asarray(x, np.float64)]
    assert_close(positive(x), np.array(wanted), 1e-6)
    assert (positive(x) > 0).all()
    assert jax.grad(positive)(200.0) == 1.0


@pytest.mark.parametrize("a_f, a_i", [(-200.0, -200.0), (-200.0, -201.5), (-1e4, -300.0)])
def test_minlstm_is_finite_with_both_gates_closed(a_f, a_i, key):
    """There f / (f + i) as it is written is 0 / 0; its limit is the sigmoid of a_f - a_i."""
    assert jax.nn.sigmoid(a_f) == jax.nn.sigmoid(a_i) == 0
    layer = Recurrent(MinLSTMCell(H))
    variables, inputs, start = drawn(layer, key)
    params = variables["params"]["cell"]
    for name, bias in {"if": a_f, "ii": a_i}.items():
        params[name] = jax.tree.map(jnp.zeros_like, params[name])
        params[name]["bias"] += bias

    def last(variables):
        return apply(layer, variables, inputs[:, :1], start)[1]

    f = 1 / (1 + np.exp(np.minimum(a_i - a_f, 500.0)))
    g = inputs[:, 0] @ params["ig"]["kernel"] + params["ig"]["bias"][None]
    assert_close(last(variables), f * start + (1 - f) * g)
    gradient = jax.grad(lambda variables: last(variables).sum())(variables)["params"]["cell"]
    wanted = f * (1 - f) * (start - g).sum(axis=0)
    assert_close(gradient["if"]["bias"], wanted)
    assert_close(gradient["ii"]["bias"], -wanted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"projection_size": True}, "projection_size must be a whole number from 1 or None"),
        ({"projection_size": 0}, "projection_size must be a whole number from 1 or None, not 0"),
        ({"cell_clip": True}, "cell_clip must be a positive finite number or None, not True"),
        ({"cell_clip": 0}, "cell_clip must be a positive finite number or None, not 0"),
        ({"coupled_gates": "yes"}, "coupled_gates must be True or False, not 'yes'"),
        ({"peepholes": 1}, "peepholes must be True or False, not 1"),
        ({"layer_norm": None}, "layer_norm must be True or False, not None"),
    ],
    ids=str,
)
def test_options_of_an_lstm_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        LSTMCell(H, **options)
