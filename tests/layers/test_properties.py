"""What holds for every cell, whatever the numbers, the lengths, the resets and the cuts.

No values are recorded here: two ways to one result must agree. The way that uses no layer is
`by_hand`: the cell alone, one row, one step and one gradient at a time.

To compile takes a thousand times as long as to run. So the shapes are always the same, and `run`,
compiled once a layer, serves most tests with new numbers each time. Only `test_any_shape` draws
shapes, for two cells: padding, resets and chunks are the layer's doing, the same for any cell.
"""

from functools import cache, partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import export
from variants import VARIANTS, assert_close, possible

from jaxrnn.cells import GRUCell, LinearCell, LSTMCell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional, BidirectionalCarry

B, T, F, H = 3, 6, 2, 4  # no two alike
CUTS = [(1, 4, 1), (4, 1, 1), (1, 1, 4), (1, 1, 1, 1, 1, 1)]  # of T, into pieces of two sizes

NAMES = (
    *("lstm", "lstm-both", "gru", "gru-reset_before", "rnn", "irnn", "minlstm", "mingru"),
    *("indrnn", "urlstm", "lru-state", "rglru", "slstm-heads", "gateddeltanet-negative"),
)
CELLS = {name: VARIANTS[name].make_cell(H) for name in NAMES}
STEP_BY_STEP = {name: Recurrent(cell, implementation="scan") for name, cell in CELLS.items()}
AT_ONCE = {
    f"{name}-at_once": Recurrent(cell, implementation="associative_scan")
    for name, cell in CELLS.items()
    if isinstance(cell, LinearCell)
}
FORWARD = STEP_BY_STEP | AT_ONCE
REVERSE = {f"{name}-reverse": layer.clone(reverse=True) for name, layer in FORWARD.items()}
# For what is the layer's doing, whatever the cell: of each kind of carry, with and without a way of
# its own to take all steps, one.
KINDS = ("lstm", "gru-reset_before", "minlstm", "mingru-at_once")
FEW = {name: FORWARD[name] for name in KINDS}
FEW_REVERSE = {f"{name}-reverse": REVERSE[f"{name}-reverse"] for name in KINDS}


class Case(NamedTuple):
    """What a layer is called with, and the weights of the sum whose gradient is taken."""

    params: Any
    inputs: Any  # [B, T, F]
    carry: Any
    lengths: Any  # [B]
    resets: Any  # [B, T]
    weights: Any  # of the outputs and of the last carry


@st.composite
def draws(draw, batch=B, steps=T):
    """A seed, lengths [B] and resets [B, T]."""
    length, start = st.integers(0, steps), st.sampled_from([False, False, True])
    lengths = draw(st.lists(length, min_size=batch, max_size=batch))
    resets = draw(st.lists(start, min_size=batch * steps, max_size=batch * steps))
    return draw(st.integers(0, 2**32)), np.array(lengths), np.reshape(resets, (batch, steps))


def examples(count):
    """The same examples at every run."""
    return settings(derandomize=True, deadline=None, max_examples=count)


def each(layers, count, *strategies):
    """A test of every layer, with what is drawn, and more if there are more strategies."""
    layer = pytest.mark.parametrize("layer", layers.values(), ids=layers.keys())
    few = pytest.mark.sampled(max(2, len(layers) // 2))
    return lambda test: few(layer(examples(count)(given(draws(), *strategies)(test))))


@cache
def shapes(layer, *of_inputs):
    """Of parameters and inputs, and of outputs and carry."""
    inputs = jax.ShapeDtypeStruct(of_inputs, np.float32)
    results, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), inputs)
    return variables["params"], inputs, results


def case_of(layer, drawn, features=F):
    """The case of a seed: no two numbers alike, parameters included.

    Numbers twice as large would shut gates until 1 - tanh(x)**2 is nothing but rounding.
    """
    seed, lengths, resets = drawn
    params, inputs, results = shapes(layer, *resets.shape, features)
    rng = np.random.default_rng(seed)
    params, inputs, carry, weights = jax.tree.map(
        lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32),
        (params, inputs, results[1], results),
    )
    return Case(params, inputs, possible(carry), lengths, resets, weights)


def call(module, params, *arguments, **options):
    return module.apply({"params": params}, *arguments, **options)


def results(layer, case, transform=lambda function: function):
    """Outputs and last carry; and the gradients by parameters, inputs and first carry."""
    function = partial(call, layer, lengths=case.lengths, resets=case.resets)
    values, back = jax.vjp(transform(function), case.params, case.inputs, case.carry)
    return values, back(case.weights)


run = jax.jit(results, static_argnums=0)  # as users compile
# What `run` is compared with: compiled in half the time, and by another way through XLA.
quick_jit = partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)
quick_run = quick_jit(results, static_argnums=(0, 2))
apply = quick_jit(call, static_argnums=0)


@partial(quick_jit, static_argnums=0)
def gradients(module, weights, *arguments):
    return jax.vjp(partial(call, module), *arguments)[1](weights)


def by_hand(layer, case):
    """As `results`: every sequence of every row from its own start, and no padding."""
    params = case.params["cell"]
    d_params = jax.tree.map(np.zeros_like, params)
    outputs, d_inputs = np.zeros_like(case.weights[0]), np.zeros_like(case.inputs)
    ends = []
    for b, length in enumerate(case.lengths):
        carry, d_carry = jax.tree.map(lambda x, b=b: x[b : b + 1], (case.carry, case.weights[1]))
        zero = jax.tree.map(np.zeros_like, carry)
        order, first = range(length), {t for t in range(length) if case.resets[b, t]}
        if layer.reverse:  # a sequence's first step is the one before another's
            order, first = order[::-1], {t - 1 for t in first}
        before = {}
        for t in order:
            before[t] = zero if t in first else carry
            carry, outputs[b, t] = apply(layer.cell, params, before[t], case.inputs[b : b + 1, t])
        for t in reversed(order):
            weights = d_carry, case.weights[0][b : b + 1, t]
            more, d_carry, d_inputs[b, t] = gradients(
                layer.cell, weights, params, before[t], case.inputs[b : b + 1, t]
            )
            d_params = jax.tree.map(np.add, d_params, more)
            d_carry = zero if t in first else d_carry
        ends.append((carry, d_carry))
    carry, d_carry = jax.tree.map(lambda *rows: np.concatenate(rows), *ends)
    return (outputs, carry), ({"cell": d_params}, d_inputs, d_carry)


def past(case):
    """Which steps are padding: [B, T]."""
    return np.arange(T) >= case.lengths[:, None]


@each(FORWARD | REVERSE, 10)
def test_a_batch_equals_each_sequence_alone(layer, drawn):
    case = case_of(layer, drawn)
    got = run(layer, case)
    assert_close(got, by_hand(layer, case))
    (outputs, carry), (_, d_inputs, _) = got
    assert not outputs[past(case)].any()
    assert not d_inputs[past(case)].any()
    empty = case.lengths == 0
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[empty], y[empty]), carry, case.carry)


@each(FORWARD | REVERSE, 15)
def test_padding_has_no_effect(layer, drawn):
    case = case_of(layer, drawn)
    garbage = np.random.default_rng(drawn[0]).choice([np.nan, np.inf, -np.inf, 3e38], (B, T, F))
    inputs = np.where(past(case)[..., None], garbage, case.inputs).astype(np.float32)
    got = run(layer, case._replace(inputs=inputs))
    jax.tree.map(np.testing.assert_array_equal, got, run(layer, case))


def zero_where(rows, part):
    return np.where(np.expand_dims(rows, tuple(range(1, part.ndim))), 0, part)


@each(FORWARD | REVERSE, 15, st.sampled_from(CUTS))
def test_chunks_with_carry_equal_the_whole(layer, drawn, cuts):
    """Backwards the last piece is the first, and none can see that the next one starts anew."""
    case = case_of(layer, drawn)
    carry, outputs = case.carry, np.zeros_like(case.weights[0])
    pieces = [(sum(cuts[:n]), size) for n, size in enumerate(cuts)]
    for start, size in reversed(pieces) if layer.reverse else pieces:
        piece = np.s_[:, start : start + size]
        lengths = np.clip(case.lengths - start, 0, size)
        options = {"lengths": lengths, "resets": case.resets[piece]}
        outputs[piece], carry = apply(layer, case.params, case.inputs[piece], carry, **options)
        if layer.reverse and start:
            anew = case.resets[:, start] & (lengths > 0)
            carry = jax.tree.map(partial(zero_where, anew), carry)
    assert_close((outputs, carry), run(layer, case)[0])


@each(FORWARD, 15)
def test_reverse_is_forward_on_flipped_rows(layer, drawn):
    case = case_of(layer, drawn)
    lengths, steps = case.lengths[:, None], np.broadcast_to(np.arange(T), (B, T))
    order = np.where(steps < lengths, lengths - 1 - steps, steps)
    flip = partial(np.take_along_axis, indices=order[..., None], axis=1)
    # Where a sequence ended, there it starts now.
    ends = np.roll(case.resets, -1, axis=1) & (steps < lengths - 1)
    outputs, carry = case.weights
    flipped = case._replace(
        inputs=flip(case.inputs),
        resets=flip(ends[..., None])[..., 0],
        weights=(flip(outputs), carry),
    )
    (outputs, carry), (d_params, d_inputs, d_carry) = run(layer, flipped)
    wanted = (flip(outputs), carry), (d_params, flip(d_inputs), d_carry)
    assert_close(run(layer.clone(reverse=True), case), wanted)


@each(FEW, 5)
def test_bidirectional_equals_two_layers(layer, drawn):
    seed, *rows = drawn
    # A cell of its own: of one cell object there would be one set of parameters.
    backward = layer.clone(cell=layer.cell.clone(), reverse=True)
    one, other = case_of(layer, drawn), case_of(backward, (seed + 1, *rows))
    other = other._replace(inputs=one.inputs)
    (ahead, last), (back, first) = run(layer, one)[0], run(backward, other)[0]
    params = {"forward": one.params, "backward": other.params}
    arguments = params, one.inputs, BidirectionalCarry(one.carry, other.carry)
    options = {"lengths": one.lengths, "resets": one.resets}
    carry = BidirectionalCarry(last, first)
    got = apply(Bidirectional(layer, backward, "concat"), *arguments, **options)
    assert_close(got, (np.concatenate([ahead, back], axis=-1), carry))
    got = apply(Bidirectional(layer, backward, "sum"), *arguments, **options)
    assert_close(got, (ahead + back, carry))


@each(AT_ONCE | {name: REVERSE[f"{name}-reverse"] for name in AT_ONCE}, 15)
def test_associative_scan_equals_scan(layer, drawn):
    case = case_of(layer, drawn)
    assert_close(run(layer, case), run(layer.clone(implementation="scan"), case))


@each(FEW | FEW_REVERSE, 5)
def test_chunks_change_nothing(layer, drawn):
    """Chunks of 4, so that the last one is padded; `test_any_shape` has other sizes."""
    case = case_of(layer, drawn)
    assert_close(quick_run(layer.clone(remat_chunk_size=4), case), run(layer, case))


Remat = nn.remat(Recurrent)


@each(FEW, 5)
def test_remat_changes_nothing(layer, drawn):
    case = case_of(layer, drawn)
    wanted = run(layer, case)
    assert_close(quick_run(layer, case, jax.checkpoint), wanted)
    again = Remat(layer.cell, implementation=layer.implementation)
    assert_close(quick_run(again, case), wanted)


@each(FEW_REVERSE, 2)
def test_jit_changes_nothing(layer, drawn):
    case = case_of(layer, drawn)
    options = {"lengths": case.lengths, "resets": case.resets}
    got = call(layer, case.params, case.inputs, case.carry, **options)
    assert_close(got, run(layer, case)[0])


@partial(quick_jit, static_argnums=0)
def run_all(layer, cases):
    """Every seed's parameters with every batch: [S, number of batches, ...]."""
    batches = jax.vmap(partial(results, layer), [Case(None, 0, 0, 0, 0, 0)])
    return jax.vmap(batches, [Case(0, None, None, None, None, None)])(cases)


@each(FORWARD, 5, draws())
def test_vmap_equals_one_at_a_time(layer, drawn, drawn_too):
    cases = [case_of(layer, drawn), case_of(layer, drawn_too)]
    got = run_all(layer, jax.tree.map(lambda *parts: np.stack(parts), *cases))
    for s, seed in enumerate(cases):
        for n, batch in enumerate(cases):
            wanted = run(layer, batch._replace(params=seed.params))
            assert_close(jax.tree.map(lambda part, at=(s, n): part[at], got), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rnn", "mingru-at_once"])
@examples(12)
@given(st.data())
def test_any_shape(name, data):
    """And chunks of any size, with lengths or without, with resets or without."""
    batch, steps, features, hidden, chunk = (
        data.draw(st.integers(1, most)) for most in (3, 7, 3, 3, 9)
    )
    reverse, has_lengths, has_resets = (data.draw(st.booleans()) for _ in range(3))
    cell = VARIANTS[name].make_cell(hidden)
    layer = FORWARD[name].clone(cell=cell, remat_chunk_size=chunk, reverse=reverse)
    case = told = case_of(layer, data.draw(draws(batch, steps)), features)
    if not has_lengths:
        told, case = told._replace(lengths=None), case._replace(lengths=np.full(batch, steps))
    if not has_resets:
        told, case = told._replace(resets=None), case._replace(resets=case.resets & False)
    assert_close(quick_run(layer, told), by_hand(layer, case))


def exported(layer, key, *, lengths=None, resets=None):
    """Results of a layer exported with symbolic B and T, and of the layer itself."""
    inputs = jax.random.normal(key, (3, 7, 4))
    arguments = layer.init(key, inputs), inputs, {"lengths": lengths, "resets": resets}

    @jax.jit
    def apply(variables, inputs, options):
        return layer.apply(variables, inputs, **options)

    shapes = jax.eval_shape(lambda: arguments)
    axes = {1: "b", 2: "b, t", 3: "b, t, 4"}
    scope = export.SymbolicScope()

    def symbolic(array):
        shape = export.symbolic_shape(axes[array.ndim], scope=scope)
        return jax.ShapeDtypeStruct(shape, array.dtype)

    shapes = (shapes[0], *jax.tree.map(symbolic, shapes[1:]))
    again = export.deserialize(export.export(apply)(*shapes).serialize())
    return [jax.tree.leaves(call(*arguments)) for call in (again.call, apply)]


@pytest.mark.sampled(25)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("with_lengths", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_a_layer_is_exported_with_symbolic_batch_and_time(name, with_lengths, reverse, key):
    layer = Recurrent(CELLS[name], reverse=reverse)
    got, wanted = exported(layer, key, lengths=jnp.array([7, 3, 0]) if with_lengths else None)
    chex.assert_trees_all_close(got, wanted, atol=1e-6)


MORE_EXPORTED = {
    "cifg": Recurrent(LSTMCell(H, coupled_gates=True)),
    "projection": Recurrent(LSTMCell(H, projection_size=3)),
    "clip": Recurrent(LSTMCell(H, cell_clip=0.4)),
    "bidirectional": Bidirectional(Recurrent(GRUCell(H)), Recurrent(GRUCell(H), reverse=True)),
    "remat": Recurrent(LSTMCell(H), remat_chunk_size=4),
    "remat-reverse": Recurrent(GRUCell(H), reverse=True, remat_chunk_size=3),
    "remat-at_once": AT_ONCE["mingru-at_once"].clone(remat_chunk_size=4),
}


@pytest.mark.sampled(9)
@pytest.mark.parametrize("with_resets", [False, True])
@pytest.mark.parametrize("name", MORE_EXPORTED)
def test_options_are_exported_with_symbolic_batch_and_time(name, with_resets, key):
    resets = jnp.zeros((3, 7), bool).at[0, 2].set(True) if with_resets else None
    lengths = jnp.array([7, 3, 0])
    got, wanted = exported(MORE_EXPORTED[name], key, lengths=lengths, resets=resets)
    chex.assert_trees_all_close(got, wanted, atol=1e-6)


def test_a_linear_cell_is_scanned_where_time_is_symbolic(key, monkeypatch):
    layer = AT_ONCE["mingru-at_once"]
    with pytest.raises(ValueError, match=r"needs a known T, not the symbolic T = t: use impl"):
        exported(layer, key)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    got, wanted = exported(layer.clone(implementation="auto"), key)
    chex.assert_trees_all_close(got, wanted, atol=1e-6)
