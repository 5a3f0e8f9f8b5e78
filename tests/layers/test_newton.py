"""Layers by Newton's method: the scan's values and gradients, or a refusal."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from test_fused import CASES, LENGTHS, RESETS, B, F, H, T, both, case, loss_of

from jaxrnn.cells import CELLS, GRUCell, LSTMCell
from jaxrnn.layers import newton
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional

REFUSED = "newton did not converge in 50 iterations"


def newton_case(cell, what, key, dtype=jnp.float32):
    layer, *arguments, options = case(cell, what, key, dtype)
    return layer.clone(implementation="newton"), *arguments, options


def chaotic(cell, key, rows=2, steps=120):
    """A layer whose weights are so large that its states depend on the last bit."""
    layer = Recurrent(CELLS[cell](16), implementation="newton")
    inputs = jax.random.normal(key, (rows, steps, F))
    return layer, jax.tree.map(lambda leaf: 20 * leaf, layer.init(key, inputs)), inputs


@pytest.mark.sampled(15)
@pytest.mark.parametrize(
    ("cell", "what", "reverse"),
    [(*case, number % 2 == 1) for number, case in enumerate(CASES)],
)
def test_values_and_gradients_equal_the_scan(cell, what, reverse, key):
    """Each option is met in both directions, by another cell."""
    layer, *arguments, options = newton_case(cell, what, key)
    solved, scanned = both(layer.clone(reverse=reverse), options, *arguments)
    chex.assert_trees_all_close(solved, scanned, rtol=2e-5, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", ["gru", "clipped", "lstm"])
def test_in_double_precision_they_agree_to_the_last_digits(cell, reverse, key):
    with jax.enable_x64(True):
        layer, *arguments, options = newton_case(cell, "all", key, jnp.float64)
        solved, scanned = both(layer.clone(reverse=reverse), options, *arguments)
        chex.assert_trees_all_close(solved, scanned, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_long_sequence_equals_the_scan(cell, key):
    layer = Recurrent(CELLS[cell](4), implementation="newton")
    inputs = jax.random.normal(key, (1, 2000, F))
    variables = layer.init(key, inputs)
    outputs, carry = jax.jit(layer.apply)(variables, inputs)
    wanted, last = jax.jit(layer.clone(implementation="scan").apply)(variables, inputs)
    chex.assert_trees_all_close((outputs, carry), (wanted, last), rtol=1e-5, atol=1e-6)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_small_states_are_as_exact_as_large_ones(cell, key):
    layer = Recurrent(CELLS[cell](16), implementation="newton")
    inputs = 1e-9 * jax.random.normal(key, (2, 30, F))
    variables = layer.init(key, inputs)
    outputs, _ = jax.jit(layer.apply)(variables, inputs)
    wanted, _ = jax.jit(layer.clone(implementation="scan").apply)(variables, inputs)
    assert np.abs(outputs - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_under_vmap_with_other_parameters_in_each(cell, key):
    """A network that needs fewer iterations waits for the others."""
    layer, params, carry, inputs, options = newton_case(cell, "all", key)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf, 3 * leaf]), params)
    over = partial(jax.vmap, in_axes=(0, None, None))
    solved, scanned = (
        jax.jit(over(jax.value_and_grad(loss_of(each, options), argnums=(0, 1, 2))))
        for each in (layer, layer.clone(implementation="scan"))
    )
    arguments = many, carry, inputs
    chex.assert_trees_all_close(solved(*arguments), scanned(*arguments), rtol=5e-5, atol=5e-5)


@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_chunks_change_nothing(cell, key):
    layer, *arguments, options = newton_case(cell, "all", key)
    whole, _ = both(layer, options, *arguments)
    chunked, _ = both(layer.clone(remat_chunk_size=4), options, *arguments)
    chex.assert_trees_all_close(whole, chunked, rtol=2e-5, atol=2e-5)


@pytest.mark.slow
@pytest.mark.sampled(2)
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_second_derivatives_agree(cell, key):
    with jax.enable_x64(True):
        layer, *arguments, options = newton_case(cell, "all", key, jnp.float64)

        def steepness(layer):
            def total(params, carry, inputs):
                slope = jax.grad(loss_of(layer, options))(params, carry, inputs)
                return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(slope))

            return jax.jit(jax.grad(total))(*arguments)

        solved, scanned = steepness(layer), steepness(layer.clone(implementation="scan"))
        chex.assert_trees_all_close(solved, scanned, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_in_both_directions(key):
    def layer(implementation):
        one = partial(Recurrent, implementation=implementation)
        return Bidirectional(one(LSTMCell(H)), one(GRUCell(H), reverse=True))

    inputs = jax.random.normal(key, (B, T, F))
    variables = layer("scan").init(key, inputs)
    options: dict[str, Any] = {"lengths": LENGTHS, "resets": RESETS}
    solved, scanned = (layer(i).apply(variables, inputs, **options) for i in ("newton", "scan"))
    chex.assert_trees_all_close(solved, scanned, rtol=2e-5, atol=2e-6)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_after_k_iterations_the_first_k_states_are_exact(cell, key, monkeypatch):
    """In a chaotic network, too; so in exact numbers T iterations are always enough."""
    layer, variables, inputs = chaotic(cell, key, rows=1, steps=60)
    wanted, _ = layer.clone(implementation="scan").apply(variables, inputs)
    bound = layer.cell.bind({"params": variables["params"]["cell"]})
    fused_cell = newton.fused.of(bound)
    params = fused_cell.gate_params(bound.variables["params"])
    first = jnp.zeros((1, 32 if cell == "lstm" else 16))
    monkeypatch.setattr(newton, "MAX_ITERATIONS", 6)
    solve: Any = newton._solve
    no_masks = newton.Masks(None, None, None)
    states, converged = solve.__wrapped__(
        fused_cell, params, first, inputs.swapaxes(0, 1), no_masks
    )
    off = np.abs(states[:, 0, -16:] - wanted[0]).max(-1)
    assert (off[:6] < 1e-5).all() and off.max() > 0.1 and not converged.any()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_row_that_does_not_converge_is_refused(cell, key):
    layer, variables, inputs = chaotic(cell, key)
    inputs = inputs.at[1].set(0.0)  # with zero biases the states stay at zero
    with pytest.raises(FloatingPointError, match=REFUSED + r" \(row 0\), or inputs"):
        layer.apply(variables, inputs)

    def loss(variables, row):
        return jnp.sum(layer.apply(variables, inputs)[0][row])

    with pytest.raises(FloatingPointError, match=REFUSED):
        jax.grad(loss)(variables, 0)
    outputs, carry = jax.jit(layer.apply)(variables, inputs)
    assert np.isnan(outputs[0]).all() and (outputs[1] == 0).all()
    assert all(np.isnan(leaf[0]).all() and (leaf[1] == 0).all() for leaf in jax.tree.leaves(carry))
    slope = jax.jit(jax.grad(loss))(variables, 0)
    assert any(np.isnan(leaf).any() for leaf in jax.tree.leaves(slope))
    with pytest.raises(FloatingPointError, match="not finite"):
        layer.apply(variables, inputs.at[1, 3].set(jnp.nan))


def test_rows_that_are_not_finite_end_the_loop(key, monkeypatch):
    monkeypatch.setattr(newton, "MAX_ITERATIONS", 2**31 - 1)
    layer, variables, inputs = chaotic("gru", key, steps=7)
    outputs, _ = jax.jit(layer.apply)(variables, jnp.full_like(inputs, jnp.nan))
    assert np.isnan(outputs).all()


OTHERS = {
    "peepholes": (LSTMCell(H, peepholes=True), "an LSTM or GRU with default options"),
    "reset before": (GRUCell(H, reset_after=False), "an LSTM or GRU with default options"),
    "mixed": (LSTMCell(H, dtype=jnp.bfloat16), "an LSTM or GRU with default options and a single"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_options_are_refused(name, key):
    cell, message = OTHERS[name]
    layer, inputs = Recurrent(cell, implementation="newton"), jnp.ones((B, T, F))
    with pytest.raises(ValueError, match=f"newton needs {message}.*: use implementation='auto'"):
        layer.apply(layer.init(key, inputs), inputs)


@pytest.mark.parametrize("cell", [CELLS["mingru"](H), CELLS["rnn"](H), nn.LSTMCell(H)])
def test_other_cells_are_refused(cell):
    with pytest.raises(ValueError, match=f"newton is for .* not {type(cell).__name__}"):
        Recurrent(cell, implementation="newton")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_refused(dtype, key):
    layer = Recurrent(LSTMCell(H, param_dtype=dtype), implementation="newton")
    inputs = jnp.ones((B, T, F), dtype)
    with pytest.raises(ValueError, match=f"newton needs float32 or float64, not {dtype.__name__}"):
        layer.apply(layer.init(key, inputs), inputs)


def test_a_symbolic_length_is_refused(key):
    layer = Recurrent(LSTMCell(H), implementation="newton")
    variables = layer.init(key, jnp.ones((B, T, F)))
    shape = jax.export.symbolic_shape(f"b, t, {F}")
    with pytest.raises(ValueError, match="newton needs a known T, not the symbolic T = t"):
        jax.export.export(jax.jit(layer.apply))(variables, jax.ShapeDtypeStruct(shape, jnp.float32))


def test_a_second_call_compiles_nothing(key):
    layer = Recurrent(GRUCell(4), implementation="newton")
    inputs = jax.random.normal(key, (2, 8, F))
    variables = layer.init(key, inputs)
    layer.apply(variables, inputs)
    solve: Any = newton._solve
    before = solve._cache_size()
    layer.apply(variables, inputs + 1)
    assert solve._cache_size() == before > 0
