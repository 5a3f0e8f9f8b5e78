"""The layer over time: equations, number types, compilations, memory and dropout."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from reference import identity
from variants import (
    LENGTHS,
    VARIANTS,
    B,
    H,
    T,
    apply,
    assert_close,
    drawn,
    expected,
    loop,
    randomised,
)

from jaxrnn.cells import CELLS, ElmanCell, GRUCell, LSTMCell
from jaxrnn.layers.recurrent import Recurrent

lengths = jnp.array(LENGTHS)


@pytest.mark.sampled(44)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("name", VARIANTS)
def test_layer_equals_a_python_loop_and_the_equations(name, reverse, dtype, key):
    variant, tolerance = VARIANTS[name], {"float32": 1e-5, "float64": 1e-12}[dtype]
    with jax.enable_x64(dtype == "float64"):
        cell = variant.make_cell(param_dtype=jnp.dtype(dtype))
        layer = variant.make_layer(cell, reverse=reverse)
        variables, inputs, start = drawn(layer, key, dtype=dtype)
        outputs, carry = apply(layer, variables, inputs, start, lengths=lengths)
        assert {leaf.dtype for leaf in jax.tree.leaves((outputs, carry))} == {jnp.dtype(dtype)}
        params, options = variables["params"]["cell"], {"lengths": LENGTHS, "reverse": reverse}
        by_hand = loop(cell, {"params": params}, inputs, start, **options)
        assert_close((outputs, carry), by_hand, tolerance)
        wanted = expected(variant, params, inputs, start, **options)
        assert_close(outputs, wanted["h"], tolerance)


@pytest.mark.parametrize("name", CELLS)
def test_without_a_carry_it_starts_from_zero(name, key):
    layer = VARIANTS[name].make_layer()
    variables, inputs, start = drawn(layer, key)
    outputs, _ = apply(layer, variables, inputs)
    start = jax.tree.map(jnp.zeros_like, start)
    wanted = expected(VARIANTS[name], variables["params"]["cell"], inputs, start)
    assert_close(outputs, wanted["h"])


class OwnCell(nn.SimpleCell):
    """A user's cell: its names begin as Flax's gates do, but name no product with x alone."""

    @nn.compact
    def __call__(self, carry, inputs):
        """One product, with inputs and state side by side."""
        scale = self.param("inner_scale", nn.initializers.ones, ())
        both = jnp.concatenate([inputs, carry], axis=-1)
        h = jnp.tanh(scale * nn.Dense(self.features, name="inner")(both))
        return h, h


@pytest.mark.parametrize(
    "cell", [nn.MGUCell(H), nn.OptimizedLSTMCell(H), OwnCell(H)], ids=["mgu", "lstm", "own"]
)
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
def test_any_flax_cell_works(cell, reverse, key):
    layer = Recurrent(cell, reverse=reverse)
    variables, inputs, start = drawn(layer, key)
    actual = apply(layer, variables, inputs, start, lengths=lengths)
    params = {"params": variables["params"]["cell"]}
    assert_close(actual, loop(cell, params, inputs, start, lengths=LENGTHS, reverse=reverse), 1e-6)


class NoisyCell(nn.SimpleCell):
    """A user's cell with dropout of its own: zoneout, in which some units keep their state."""

    @nn.compact
    def __call__(self, carry, inputs):
        """Adds up its inputs where it does not keep its state."""
        kept = jax.random.bernoulli(self.make_rng("dropout"), 0.5, carry.shape)
        h = jnp.where(kept, carry, carry + 1)
        return h, h


@pytest.mark.parametrize("chunk", [None, 4])
def test_a_cells_own_dropout_differs_at_each_step(chunk, key):
    layer = Recurrent(NoisyCell(64), remat_chunk_size=chunk)
    outputs, _ = layer.apply({}, jnp.zeros((2, 12, 3)), rngs={"dropout": key})
    steps = np.diff(outputs, axis=1, prepend=0.0)
    assert set(np.unique(steps)) == {0.0, 1.0}
    assert len(np.unique(steps.reshape(-1, 64), axis=0)) > 12
    assert abs(steps.mean() - 0.5) < 0.1


@pytest.mark.parametrize("cell", [LSTMCell, GRUCell, ElmanCell])
def test_sequences_start_from_the_cells_initial_carry(cell, key):
    layer = Recurrent(cell(H, carry_init=nn.initializers.ones))
    variables, inputs, start = drawn(layer, key)
    ones = jax.tree.map(jnp.ones_like, start)
    resets = jnp.zeros((B, T), bool).at[:, 3].set(True)
    outputs, _ = apply(layer, variables, inputs, resets=resets)
    first, _ = apply(layer, variables, inputs[:, :3], ones)
    second, _ = apply(layer, variables, inputs[:, 3:], ones)
    assert_close(outputs, jnp.concatenate([first, second], axis=1), 1e-6)


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("implementation", ["scan", "associative_scan"])
@pytest.mark.parametrize("name", ["minlstm", "mingru", "lru", "rglru"])
def test_non_finite_values_stay_in_their_sequence(name, implementation, reverse, key):
    layer = Recurrent(CELLS[name](H), implementation=implementation, reverse=reverse)
    variables, inputs, start = drawn(layer, key)
    resets = jnp.zeros((B, T), bool).at[:, 3].set(True)
    scan_cell = layer.clone(implementation="scan")
    wanted, last = apply(scan_cell, variables, inputs, start, resets=resets)
    broken = 4 if reverse else 1  # in the sequence that comes first
    clean = slice(0, 3) if reverse else slice(3, None)
    for xs, carry in (
        (inputs.at[:, broken].set(jnp.nan), start),
        (inputs, jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), start)),
    ):
        outputs, end = apply(layer, variables, xs, carry, resets=resets)
        assert_close((outputs[:, clean], end), (wanted[:, clean], last), 1e-6)
        assert np.isnan(outputs[:, broken]).all()


@pytest.mark.sampled(12)
@pytest.mark.parametrize("name", VARIANTS)
def test_bfloat16_products_with_a_float32_carry(name, key):
    cell = VARIANTS[name].make_cell(dtype=jnp.bfloat16)
    half, whole = VARIANTS[name].make_layer(cell), VARIANTS[name].make_layer()
    # Half the usual: a tanh network of larger weights is chaotic, and any rounding grows in it.
    args = jax.tree.map(lambda leaf: leaf / 2, drawn(half, key))
    assert {leaf.dtype for leaf in jax.tree.leaves(args)} == {jnp.dtype("float32")}

    def loss(*args):
        return jnp.square(half.apply(*args)[0].astype(jnp.float32)).sum()

    program = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*args)
    chex.assert_trees_all_equal_shapes_and_dtypes(program.out_info, args)
    products = re.findall(r"dot_general.*: \((.*)\) ->", program.as_text())
    assert products
    assert all(product.count("xbf16>") == 2 for product in products)

    outputs, carry = apply(half, *args)
    assert outputs.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(carry)} == {jnp.dtype("float32")}
    # bfloat16 rounds by up to 2^-8 of a number; a few such errors may add up over the steps.
    assert_close(outputs.astype(jnp.float32), apply(whole, *args)[0], 4 * 2**-8)


def test_a_bfloat16_cell_counts_beyond_bfloat16_precision(key):
    """With all gates open an LSTM adds up. In bfloat16, 256 + 1 is 256 again."""
    cell = LSTMCell(
        1, forget_bias=20.0, bias_init=nn.initializers.constant(20.0), dtype=jnp.bfloat16
    )
    inputs = jnp.ones((1, 1000, 1))
    variables = jax.tree.map(jnp.abs, Recurrent(cell).init(key, inputs))
    _, carry = apply(Recurrent(cell), variables, inputs)
    assert_close(carry.c, np.array([[1000.0]]), 2**-8)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", CELLS)
def test_equal_shapes_are_compiled_once(name, key):
    chex.clear_trace_counter()
    once = chex.assert_max_traces(lambda layer, *args, **options: layer.apply(*args, **options), 1)
    once = jax.jit(once, static_argnums=0)
    layer, again = VARIANTS[name].make_layer(), VARIANTS[name].make_layer()
    args = drawn(layer, key)
    once(layer, *args, lengths=lengths)
    once(again, *randomised(args, key), lengths=lengths - jnp.array([1, 2, 0]))
    with pytest.raises(AssertionError, match="traced"):
        once(layer, *args)


def gradient_memory(steps, **options):
    """The bytes that the gradient of an LSTM's last state takes besides its inputs and results.

    Of the last state, because the outputs of all steps, and their gradients, cannot be made fewer.
    """
    layer = Recurrent(LSTMCell(64), **options)
    inputs = jax.ShapeDtypeStruct((4, steps, 1), jnp.float32)
    variables = jax.eval_shape(layer.init, jax.random.key(0), inputs)

    def loss(variables, inputs):
        return apply(layer, variables, inputs)[1].h.sum()

    memory = jax.jit(jax.grad(loss)).lower(variables, inputs).compile().memory_analysis()
    assert memory
    return memory.temp_size_in_bytes


@pytest.mark.slow
@pytest.mark.optimized
def test_chunks_need_memory_of_the_square_root_of_the_steps():
    plain = {steps: gradient_memory(steps) for steps in (256, 1024, 4096)}
    chunked = {steps: gradient_memory(steps, remat_chunk_size=int(steps**0.5)) for steps in plain}
    assert plain[1024] > 10 * chunked[1024]
    assert plain[4096] > 12 * plain[256]
    assert chunked[4096] < 6 * chunked[256]


@pytest.mark.sampled(4)
@pytest.mark.optimized
@pytest.mark.parametrize("name", ["minlstm", "mingru", "lru", "rglru"])
def test_only_the_scan_has_a_loop(name, key, monkeypatch):
    def lowered(implementation):
        layer = Recurrent(CELLS[name](H), implementation=implementation)
        variables, inputs, start = drawn(layer, key)
        return jax.jit(layer.apply).lower(variables, inputs, start)

    scan_cell, together = lowered("scan"), lowered("associative_scan")
    assert " while(" in str(scan_cell.compile().as_text())
    assert " while(" not in str(together.compile().as_text())
    for backend, wanted in {"cpu": scan_cell, "gpu": together, "tpu": together}.items():
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        assert lowered("auto").as_text() == wanted.as_text()


RATE = 0.4


def masks_seen(key, rows=16, units=16):
    """The mask at every step, [B, T, H]: it is seen where the recurrence is h' = x + mask * h."""
    cell = ElmanCell(units, activation_fn=identity)
    params = {"i": {"kernel": jnp.eye(units), "bias": jnp.zeros(units)}}
    params = {"cell": params | {"h": {"kernel": jnp.eye(units)}}}
    inputs = 1 + jax.random.uniform(jax.random.key(1), (rows, T, units))
    layer = Recurrent(cell, recurrent_dropout=RATE)
    dropout = {"deterministic": False, "rngs": {"dropout": key}}
    outputs, _ = apply(layer, {"params": params}, inputs, **dropout)
    return (outputs[:, 1:] - inputs[:, 1:]) / outputs[:, :-1]


def test_the_same_units_are_dropped_at_all_steps_of_a_row(key):
    masks = masks_seen(key)
    assert_close(masks, jnp.broadcast_to(masks[:, :1], masks.shape))
    mask = np.asarray(masks[:, 0])
    kept = mask > 1
    assert_close(mask, np.where(kept, 1 / (1 - RATE), 0))
    assert abs(mask.mean() - 1) < 0.2  # 256 units: four standard deviations
    assert len(np.unique(kept, axis=0)) == len(kept)
    assert_close(masks_seen(key), masks)
    other = masks_seen(jax.random.fold_in(key, 1))[:, 0] > 1
    assert 0.2 < (other != kept).mean() < 0.8


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "name, options",
    [
        ("lstm", {}),
        ("lstm-both", {}),
        ("gru", {}),
        ("gru-reset_before", {}),
        ("rnn", {}),
        ("indrnn-clip", {}),
        ("urlstm", {}),
        ("slstm-heads", {}),
        ("gru", {"reverse": True, "remat_chunk_size": 3}),
    ],
    ids=str,
)
def test_recurrent_dropout_masks_only_what_the_gates_read(name, options, key):
    """In the equations, what a GRU's z keeps, and an LSTM's c, are not masked."""
    layer = VARIANTS[name].make_layer(recurrent_dropout=RATE, **options)
    variables, inputs, start = drawn(layer, key)
    dropout = {"deterministic": False, "rngs": {"dropout": key}}
    outputs, _ = apply(layer, variables, inputs, start, lengths=lengths, **dropout)
    mask, reverse = masks_seen(key, B, H)[:, 0], layer.reverse
    params = variables["params"]["cell"]
    wanted = expected(
        VARIANTS[name], params, inputs, start, lengths=LENGTHS, reverse=reverse, mask=mask
    )
    assert_close(outputs, wanted["h"])


def test_a_deterministic_layer_drops_nothing(key):
    layer = Recurrent(GRUCell(H), recurrent_dropout=RATE)
    variables, inputs, start = drawn(layer, key)
    whole = apply(Recurrent(GRUCell(H)), variables, inputs, start)
    chex.assert_trees_all_equal(apply(layer, variables, inputs, start), whole)
    chex.assert_trees_all_equal(
        apply(layer, variables, inputs, start, deterministic=True, rngs={"dropout": key}), whole
    )
    with pytest.raises(ValueError, match="deterministic=False needs a key"):
        layer.apply(variables, inputs, start, deterministic=False)
