"""Fused layers: the values and gradients of the cell taken step by step, in fewer products."""

from functools import partial
from itertools import product
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxrnn.cells import CELLS, GRUCell, LSTMCell
from jaxrnn.layers import fused_loop
from jaxrnn.layers.fused import is_supported
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Stack

B, T, F, H = 4, 9, 3, 5
LENGTHS = jnp.array([9, 4, 0, 1])
RESETS = jnp.zeros((B, T), bool).at[0, 3].set(True).at[0, 4].set(True).at[1, 0].set(True)
MADE = CELLS | {"clipped": partial(LSTMCell, cell_clip=0.4)}
CASES = [*product(["lstm", "gru", "clipped"], ["plain", "lengths", "resets", "dropout", "all"])]


def ranks(array):
    """0, 1, 2, ... in an array of this shape."""
    return jnp.arange(array.size, dtype=array.dtype).reshape(array.shape)


def case(cell, what, key, dtype=jnp.float32):
    """A layer, what it is called with, and the keys of its dropout."""
    every = what == "all"
    options: dict[str, Any] = {}
    if every or what == "lengths":
        options["lengths"] = LENGTHS
    if every or what == "resets":
        options["resets"] = RESETS
    drop = 0.4 if every or what == "dropout" else 0.0
    if drop:
        options |= {"deterministic": False, "rngs": {"dropout": jax.random.key(9)}}
    made = MADE[cell](H, param_dtype=dtype)
    layer = Recurrent(made, recurrent_dropout=drop, implementation="fused")
    keys = jax.random.split(key, 4)
    inputs = jax.random.normal(keys[0], (B, T, F), dtype)
    params = layer.init(keys[1], inputs)["params"]
    params = jax.tree.map(
        lambda leaf: leaf + 0.3 * jnp.sin(jnp.arange(leaf.size)).reshape(leaf.shape), params
    )
    carry = layer.cell.initialize_carry(keys[2], (B, F))
    carry = jax.tree.map(lambda leaf: leaf + jax.random.normal(keys[2], leaf.shape, dtype), carry)
    return layer, params, carry, inputs, options


def loss_of(layer, options):
    """A number into which every output, and all of the last carry, go with weights of their own."""

    def loss(params, carry, inputs):
        outputs, last = layer.apply({"params": params}, inputs, carry, **options)
        parts = [outputs, *jax.tree.leaves(last)]
        return sum(
            jnp.sum(jnp.sin(part) * jnp.cos(jnp.arange(part.size)).reshape(part.shape))
            for part in parts
        )

    return loss


def both(layer, options, *arguments):
    """Value and gradients, fused and step by step."""
    return [
        jax.jit(jax.value_and_grad(loss_of(each, options), argnums=(0, 1, 2)))(*arguments)
        for each in (layer, layer.clone(implementation="scan"))
    ]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_large_input_products_are_computed_in_the_loop(cell, backend, key, monkeypatch):
    """Where a processor's caches would not hold them; a GPU has none to speak of."""
    layer, *arguments, options = case(cell, "all", key)
    monkeypatch.setattr(fused_loop, "CACHE_BYTES", 0)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    chex.assert_trees_all_close(*both(layer, options, *arguments), rtol=2e-5, atol=2e-6)
    assert products(layer, arguments[2]) == [2 if backend == "cpu" else 1, 1]


@pytest.mark.sampled(7)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("cell", "what"), CASES)
def test_values_and_gradients_equal_the_scan(cell, what, reverse, key):
    layer, *arguments, options = case(cell, what, key)
    fused, scanned = both(layer.clone(reverse=reverse), options, *arguments)
    chex.assert_trees_all_close(fused, scanned, rtol=2e-5, atol=2e-5)
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(fused[1][0]))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("cell", ["lstm", "gru", "clipped"])
def test_in_double_precision_they_agree_to_the_last_digits(cell, key):
    with jax.enable_x64(True):
        layer, *arguments, options = case(cell, "all", key, jnp.float64)
        fused, scanned = both(layer, options, *arguments)
        chex.assert_trees_all_close(fused, scanned, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_under_vmap_with_other_parameters_in_each(cell, key):
    layer, params, carry, inputs, options = case(cell, "all", key)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf, leaf + 0.1]), params)
    gradient = jax.value_and_grad(loss_of(layer, options), argnums=(0, 1, 2))
    together = jax.jit(jax.vmap(gradient, in_axes=(0, None, None)))(many, carry, inputs)
    for n in range(3):
        one = jax.tree.map(lambda leaf, n=n: leaf[n], many)
        expected = gradient(one, carry, inputs)
        found = jax.tree.map(lambda leaf, n=n: leaf[n], together)
        chex.assert_trees_all_close(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_chunks_change_nothing_when_fused(cell, key):
    layer, *arguments, options = case(cell, "all", key)
    whole, _ = both(layer, options, *arguments)
    chunked, _ = both(layer.clone(remat_chunk_size=4), options, *arguments)
    chex.assert_trees_all_close(whole, chunked, rtol=2e-5, atol=2e-5)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_second_derivatives_agree(cell, key):
    layer, *arguments, options = case(cell, "plain", key)

    def steepness(layer):
        def total(params, carry, inputs):
            slope = jax.grad(loss_of(layer, options))(params, carry, inputs)
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(slope))

        return jax.jit(jax.grad(total))(*arguments)

    fused, scanned = steepness(layer), steepness(layer.clone(implementation="scan"))
    chex.assert_trees_all_close(fused, scanned, rtol=1e-3, atol=1e-4)


def count(jaxpr):
    """The matrix products of a program, loops and all."""
    inner = [jax.tree.leaves(list(eqn.params.values()), is_leaf=is_program) for eqn in jaxpr.eqns]
    own = sum(eqn.primitive.name == "dot_general" for eqn in jaxpr.eqns)
    return own + sum(count(getattr(p, "jaxpr", p)) for ps in inner for p in ps if is_program(p))


def is_program(value):
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def loops(jaxpr):
    """The products in each loop, in order."""
    for eqn in jaxpr.eqns:
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=is_program):
            if is_program(value):
                body = getattr(value, "jaxpr", value)
                yield from [count(body)] if eqn.primitive.name == "scan" else loops(body)


def products(layer, inputs):
    """The matrix products of a step forward, and of one back."""
    params = layer.init(jax.random.key(0), inputs)

    def loss(params, inputs):
        return jnp.sum(layer.apply(params, inputs)[0] ** 2)

    return list(loops(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(params, inputs).jaxpr))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_forward_and_backward_steps_have_one_product_each(cell):
    inputs = jnp.ones((B, T, F))
    assert products(Recurrent(CELLS[cell](H)), inputs) == [1, 1]
    gates = {"lstm": 4, "gru": 3}[cell]
    forward, back = products(Recurrent(CELLS[cell](H), implementation="scan"), inputs)
    assert forward == 2 * gates and back > forward


UNUSUAL = {
    "peepholes": LSTMCell(H, peepholes=True),
    "layer norm": LSTMCell(H, layer_norm=True),
    "another squashing": LSTMCell(H, activation_fn=nn.relu),
    "other gates": GRUCell(H, gate_fn=nn.hard_sigmoid),
    "reset before": GRUCell(H, reset_after=False),
    "half precision": LSTMCell(H, dtype=jnp.bfloat16),
    "another start": LSTMCell(H, carry_init=nn.initializers.ones),
    "another cell": nn.LSTMCell(H),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", UNUSUAL)
def test_unsupported_options_use_the_scan(name, key):
    inputs = jax.random.normal(key, (B, T, F))
    layer = Recurrent(UNUSUAL[name])
    variables = layer.init(key, inputs)
    chex.assert_trees_all_equal(
        layer.apply(variables, inputs), layer.clone(implementation="scan").apply(variables, inputs)
    )
    with pytest.raises(ValueError, match="fused needs an LSTM, GRU or registered cell"):
        layer.clone(implementation="fused").apply(variables, inputs)


def test_auto_is_fused_if_supported(key):
    inputs = jax.random.normal(key, (B, T, F))
    for cell in (LSTMCell(H), GRUCell(H)):
        layer = Recurrent(cell)
        variables = layer.init(key, inputs)
        fused = layer.clone(implementation="fused").apply(variables, inputs)
        chex.assert_trees_all_equal(layer.apply(variables, inputs), fused)
        assert is_supported(
            cell.bind({"params": variables["params"]["cell"]}),
            cell.initialize_carry(key, (B, F)),
            inputs,
        )
        with pytest.raises(TypeError, match="forward-mode"):
            jax.jvp(lambda x, on=(layer, variables): on[0].apply(on[1], x)[0], (inputs,), (inputs,))


@pytest.mark.slow
def test_a_stack_of_fused_layers_trains_like_a_scanned_one(key):
    """Ten steps of gradient descent, through two layers."""
    inputs = jax.random.normal(key, (B, T, F))
    targets = jnp.roll(inputs, 2, axis=1)[..., :1]

    def train(implementation):
        layers = tuple(
            Recurrent(CELLS[cell](H), implementation=implementation) for cell in ("lstm", "gru")
        )
        model = Stack(layers)
        variables = model.init(jax.random.key(1), inputs)

        def loss(variables):
            return jnp.mean((model.apply(variables, inputs)[0] - targets) ** 2)

        def step(variables, _):
            value, slope = jax.value_and_grad(loss)(variables)
            return jax.tree.map(lambda leaf, d: leaf - 0.3 * d, variables, slope), value

        return jax.jit(lambda variables: jax.lax.scan(step, variables, None, 10))(variables)

    fused, scanned = train("fused"), train("scan")
    chex.assert_trees_all_close(fused, scanned, rtol=1e-4, atol=1e-5)
    assert fused[1][-1] < fused[1][0]
