"""Layers that leave out the padding, against the scan, which computes every step of every row."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxrnn import CELLS, Recurrent
from jaxrnn.layers import ragged

B, T, F, H = 11, 37, 3, 5
LENGTHS = {
    "uniform": [5, 37, 1, 20, 37, 12, 30, 16, 17, 9, 2],
    "sorted": [37, 33, 30, 27, 22, 20, 16, 12, 8, 3, 1],
    "none": [0, 5, 0, 0, 20, 0, 37, 0, 3, 0, 0],
    "empty": [0] * B,
    "full": [T] * B,
    "short": [3, 1, 2, 3, 3, 1, 2, 2, 1, 3, 3],
}


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Whatever the size."""
    monkeypatch.setattr(ragged, "MIN_PRODUCTS", 0)


def case(name, key, dtype=jnp.float64):
    """A layer, its variables, inputs and an initial carry."""
    layer = Recurrent(CELLS[name](H, param_dtype=dtype))
    keys = jax.random.split(key, 3)
    inputs = jax.random.normal(keys[0], (B, T, F), dtype)
    variables = layer.init(keys[1], inputs)
    blank = layer.cell.initialize_carry(key, (B, F))
    carry = jax.tree.map(lambda leaf: jax.random.normal(keys[2], leaf.shape, dtype), blank)
    return layer, variables, inputs, carry


def loss(layer, options):
    def of(variables, inputs, carry):
        results = layer.apply(variables, inputs, carry, **options)
        return sum(
            jnp.sum(part * jnp.cos(jnp.arange(part.size, dtype=part.dtype)).reshape(part.shape))
            for part in jax.tree.leaves(results)
        )

    return jax.jit(jax.value_and_grad(of, argnums=(0, 1, 2)))


def is_sorted(function, *arguments):
    return " sort[" in str(jax.make_jaxpr(function)(*arguments))


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("cell", "reverse", "extra"),
    [
        ("lstm", False, ""),
        *(("lstm", False, "resets"), ("lstm", False, "dropout")),
        *(("lstm", True, ""), ("lstm", True, "resets"), ("lstm", True, "dropout")),
        *(("gru", False, ""), ("gru", True, "resets")),
    ],
)
def test_values_and_gradients_equal_the_scan(cell, reverse, extra, key):
    """For all lengths, which do not change the compiled programs."""
    with jax.enable_x64(True):
        layer, *arguments = case(cell, key)
        layer = layer.clone(reverse=reverse, recurrent_dropout=0.5 if extra == "dropout" else 0.0)
        options = {}
        if extra == "resets":
            options["resets"] = jax.random.bernoulli(key, 0.2, (B, T))
        if extra == "dropout":
            options |= {"deterministic": False, "rngs": {"dropout": key}}

        def compiled(layer):
            return jax.jit(
                lambda lengths, *rest: loss(layer, options | {"lengths": lengths})(*rest)
            )

        found, expected = compiled(layer), compiled(layer.clone(implementation="scan"))
        assert is_sorted(found, jnp.array(LENGTHS["uniform"]), *arguments)
        for name, lengths in LENGTHS.items():
            both = (run(jnp.array(lengths), *arguments) for run in (found, expected))
            chex.assert_trees_all_close(*both, rtol=1e-12, atol=1e-12, custom_message=name)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [ragged.CHUNK_STEPS + 1, 1, ragged.CHUNK_STEPS])
def test_any_number_of_steps(steps, key):
    with jax.enable_x64(True):
        layer, variables, inputs, carry = case("lstm", key)
        arguments = variables, inputs[:, :steps], carry
        options = {"lengths": jnp.minimum(jnp.array(LENGTHS["uniform"]), steps)}
        expected = loss(layer.clone(implementation="scan"), options)(*arguments)
        found = loss(layer, options)(*arguments)
        chex.assert_trees_all_close(found, expected, rtol=1e-12, atol=1e-12)


def test_steps_after_the_longest_row_are_not_computed(key):
    """Their inputs are not even read."""
    layer, variables, inputs, carry = case("lstm", key, jnp.float32)
    apply = jax.jit(lambda lengths: layer.apply(variables, inputs, carry, lengths=lengths))

    def trips(lengths):
        order = ragged.sort_rows(jnp.arange(T)[None] < jnp.array(lengths)[:, None])
        rows = ragged._level_rows(B)
        starts = np.array([0, *order.ends[:-1]])
        return int(np.sum(np.array(rows) * (np.array(order.ends) - starts)))

    assert trips(LENGTHS["empty"]) == 0
    assert trips(LENGTHS["full"]) == B * T
    assert trips(LENGTHS["short"]) <= 3 * B
    uniform = LENGTHS["uniform"]
    assert sum(uniform) <= trips(uniform) < sum(uniform) + (B * T - sum(uniform)) / 3
    assert not apply(jnp.zeros(B, int))[0].any()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("shared", [False, True])
def test_under_vmap(shared, key):
    """With lengths of its own for each network, the loops have no levels."""
    with jax.enable_x64(True):
        layer, variables, inputs, carry = case("gru", key)
        many = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 0.1, -leaf]), variables)
        lengths = jnp.array([LENGTHS[name] for name in ("uniform", "none", "sorted")])

        def one(variables, lengths):
            return loss(layer, {"lengths": lengths})(variables, inputs, carry)

        lengths = lengths[0] if shared else lengths
        together = jax.vmap(one, in_axes=(0, None if shared else 0))
        assert ("while[" in str(jax.make_jaxpr(together)(many, lengths))) == shared
        found = jax.jit(together)(many, lengths)
        one = jax.jit(one)
        for n in range(3):
            own = jax.tree.map(lambda leaf, n=n: leaf[n], many)
            expected = one(own, lengths if shared else lengths[n])
            chex.assert_trees_all_close(
                jax.tree.map(lambda leaf, n=n: leaf[n], found), expected, rtol=1e-12, atol=1e-12
            )


@pytest.mark.slow
def test_chunks_change_nothing(key):
    with jax.enable_x64(True):
        layer, *arguments = case("lstm", key)
        options = {"lengths": jnp.array(LENGTHS["uniform"])}
        expected = loss(layer, options)(*arguments)
        found = loss(layer.clone(remat_chunk_size=8), options)(*arguments)
        chex.assert_trees_all_close(found, expected, rtol=1e-12, atol=1e-12)


def test_rows_that_may_be_sharded_are_not_sorted(key):
    layer, *arguments = case("lstm", key, jnp.float32)
    run = loss(layer, {"lengths": jnp.array(LENGTHS["uniform"])})
    assert is_sorted(run, *arguments)
    for size in (1, 2):
        mesh = jax.make_mesh((size,), ("rows",), (AxisType.Auto,), devices=jax.devices()[:size])
        with jax.set_mesh(mesh):
            assert is_sorted(run, *arguments) == (size == 1)


def test_rows_of_each_device_are_sorted_in_shard_map(key):
    with jax.enable_x64(True):
        layer, variables, inputs, carry = case("gru", key)
        lengths, rows = jnp.array(LENGTHS["uniform"] * 2), P("rows")
        inputs, carry = (jnp.concatenate([each, -each]) for each in (inputs, carry))

        def run(variables, inputs, carry, lengths):
            return layer.apply(variables, inputs, carry, lengths=lengths)

        mesh = jax.make_mesh((2,), ("rows",), (AxisType.Auto,), devices=jax.devices()[:2])
        sharded = jax.shard_map(
            run, mesh=mesh, in_specs=(P(), rows, rows, rows), out_specs=rows, check_vma=False
        )
        arguments = variables, inputs, carry, lengths
        assert is_sorted(sharded, *arguments)
        scanned = layer.clone(implementation="scan")
        expected = scanned.apply(variables, inputs, carry, lengths=lengths)
        found = jax.jit(sharded)(*arguments)
        chex.assert_trees_all_close(found, expected, rtol=1e-12, atol=1e-12)


def test_small_layers_are_not_sorted(key, monkeypatch):
    layer, *arguments = case("lstm", key, jnp.float32)
    options = {"lengths": jnp.array(LENGTHS["uniform"])}
    assert is_sorted(loss(layer, options), *arguments)
    monkeypatch.setattr(ragged, "MIN_PRODUCTS", 2**25)
    assert not is_sorted(loss(layer, options), *arguments)
