"""The encoder-decoder: against NumPy, and what may and may not change its outputs."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jaxrnn.cells import ElmanCell, GRUCell, LSTMCell
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional, Stack
from jaxrnn.models import EncoderDecoder
from jaxrnn.runs.config_json import from_json, to_json

S, L = 5, 4
SIZES: dict[str, Any] = {
    "source_length": S,
    "source_size": 7,
    "output_size": 6,
    "embedding_size": 3,
}
LENGTHS = np.array([5, 3, 1])


def both(cell: Any = GRUCell):
    return Bidirectional(Recurrent(cell(4)), Recurrent(cell(4), reverse=True))


def lstms(dropout=0.0):
    return Stack((Recurrent(LSTMCell(4)), Recurrent(LSTMCell(4))), dropout=dropout)


def make(name: str, **options: Any) -> EncoderDecoder:
    options = SIZES | options
    if name == "attention":  # Bahdanau's
        return EncoderDecoder(both(), Recurrent(GRUCell(5)), attention_size=3, **options)
    if name == "deep attention":
        return EncoderDecoder(lstms(), lstms(), attention_size=3, **options)
    if name == "copy":  # Sutskever's
        return EncoderDecoder(lstms(), lstms(), bridge="copy", **options)
    mixed = Stack((Recurrent(LSTMCell(3)), Recurrent(ElmanCell(5))))
    return EncoderDecoder(both(LSTMCell), mixed, **options)


NAMES = ("attention", "deep attention", "copy", "dense")


def ids_and_variables(model: EncoderDecoder) -> tuple[jax.Array, Any]:
    """Inputs [3, S + L], padded, and parameters large enough to matter."""
    ids = jax.random.randint(jax.random.key(0), (3, S + L), 1, 6)
    ids = jnp.where(jnp.arange(S + L)[None] < S, ids, ids % 6)
    padding = jnp.arange(S + L)[None] >= LENGTHS[:, None]
    ids = jnp.where(padding & (jnp.arange(S + L)[None] < S), 0, ids)
    variables = jax.jit(model.init)(jax.random.key(1), ids)
    leaves, structure = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    noise = [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    return ids, jax.tree.unflatten(structure, noise)


def outputs(model, variables, ids, lengths=LENGTHS):
    return np.asarray(jax.jit(model.apply)(variables, ids, lengths=jnp.asarray(lengths))[0])


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def bahdanau(params, ids, length):
    """One row in float64 from the paper's equations: section 3, appendix A.1.2 and A.2."""
    source = params["source_embedding"]["embedding"][ids[:length]]
    sides = params["encoder"]
    forward = reference.gru(sides["forward"]["cell"], source)["h"]
    backward = reference.gru(sides["backward"]["cell"], source[::-1])["h"][::-1]
    h = np.concatenate([forward, backward], axis=1)  # the annotations
    last = np.concatenate([forward[-1], backward[0]])
    dense = params["dense_bridge"]["dense_0"]
    s = np.tanh(last @ dense["kernel"] + dense["bias"])
    w, u, v = (params["attention"][name]["kernel"] for name in "WUv")
    logits, weights = [], []
    for y in params["target_embedding"]["embedding"][ids[S:]]:
        e = np.array([v[:, 0] @ np.tanh(s @ w + h_j @ u) for h_j in h])
        a = softmax(e)
        c = sum(a_j * h_j for a_j, h_j in zip(a, h, strict=True))
        s = reference.gru(params["decoder"]["cell"], np.concatenate([y, c])[None], s)["h"][0]
        readout = params["readout"]
        logits.append(np.concatenate([s, c]) @ readout["kernel"] + readout["bias"])
        weights.append(a)
    return np.array(logits), np.array(weights)


def test_attention_matches_the_papers_equations():
    model = make("attention")
    ids, variables = ids_and_variables(model)
    found = outputs(model, variables, ids)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    for row, length in enumerate(LENGTHS):
        wanted, weights = bahdanau(params, np.asarray(ids[row]), length)
        np.testing.assert_allclose(found[row, S:], wanted, rtol=2e-5, atol=2e-5)
        assert length == 1 or weights.std(axis=0).max() > 1e-3  # they depend on the step
    assert not found[:, :S].any()


@pytest.mark.slow
def test_attention_without_any_source_is_finite():
    model = make("attention")
    ids, variables = ids_and_variables(model)

    def loss(variables):
        return jnp.sum(model.apply(variables, ids, lengths=jnp.array([0, 0, 2]))[0] ** 2)

    for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(variables)):
        assert np.isfinite(leaf).all()


@pytest.mark.slow
def test_a_copied_state_is_one_network_over_source_and_target():
    """With the same parameters in both halves, the decoder goes on where the encoder stopped."""
    model = make("copy", source_size=6)
    ids, variables = ids_and_variables(model)
    params = variables["params"]
    params |= {"decoder": params["encoder"], "source_embedding": params["target_embedding"]}
    ids = ids % 6
    found = outputs(model, {"params": params}, ids)
    for row, length in enumerate(LENGTHS):
        joined = jnp.concatenate([ids[row, :length], ids[row, S:]])[None]
        vectors = params["target_embedding"]["embedding"][joined]
        hidden, _ = lstms().apply({"params": params["encoder"]}, vectors)
        wanted = hidden @ params["readout"]["kernel"] + params["readout"]["bias"][None, None]
        np.testing.assert_allclose(found[row, S:], wanted[0, length:], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_each_array_of_the_carry_starts_from_its_own_dense_layer():
    model = make("dense")
    ids, variables = ids_and_variables(model)
    source, params = ids[:, :S], variables["params"]
    apply: Any = jax.jit(partial(model.apply, method="encode"))
    _, (carry, query) = apply(variables, source, jnp.asarray(LENGTHS))
    vectors = params["source_embedding"]["embedding"][source]
    apply = both(LSTMCell).apply
    _, last = apply({"params": params["encoder"]}, vectors, lengths=jnp.asarray(LENGTHS))
    hidden = np.concatenate([last.forward.h, last.backward.h], axis=1)
    for n, leaf in enumerate((carry[0].c, carry[0].h, carry[1])):
        dense = params["dense_bridge"][f"dense_{n}"]
        wanted = np.tanh(hidden @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"]))
        np.testing.assert_allclose(leaf, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(query, carry[1])


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", NAMES)
def test_padding_and_later_targets_change_nothing_and_the_rest_does(name):
    model = make(name)
    ids, variables = ids_and_variables(model)
    apply = jax.jit(lambda ids: model.apply(variables, ids, lengths=jnp.asarray(LENGTHS))[0])
    before = np.asarray(apply(ids))
    padded = np.asarray(apply(ids.at[1, LENGTHS[1] : S].set(5)))
    np.testing.assert_array_equal(padded, before)
    later = np.asarray(apply(ids.at[:, S + 2].add(1)))
    np.testing.assert_array_equal(later[:, : S + 2], before[:, : S + 2])
    assert (later[:, S + 2] != before[:, S + 2]).any(axis=-1).all()
    source = np.asarray(apply(ids.at[1, 0].add(1)))
    assert (source[1, S:] != before[1, S:]).any(axis=-1).all()
    np.testing.assert_array_equal(source[[0, 2]], before[[0, 2]])


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", NAMES)
def test_step_by_step_gives_the_outputs_of_the_whole(name):
    model = make(name)
    ids, variables = ids_and_variables(model)
    encode = jax.jit(partial(model.apply, method="encode"))
    step = jax.jit(partial(model.apply, variables, method="decode_step"))
    memory, state = encode(variables, ids[:, :S], jnp.asarray(LENGTHS))
    found = []
    for t in range(S, S + L):
        logits, state = step(ids[:, t], memory, state)
        found.append(logits)
    wanted = outputs(model, variables, ids)[:, S:]
    np.testing.assert_allclose(np.stack(found, axis=1), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_one_hot_inputs_are_the_rows_of_an_identity():
    sizes = {"source_size": 6, "embedding_size": 6}
    model = make("attention", **sizes)
    ids, variables = ids_and_variables(model)
    params = variables["params"]
    identity = {"embedding": jnp.eye(6)}
    embedded = outputs(
        model, {"params": params | dict.fromkeys(embeddings(params), identity)}, ids % 6
    )
    bare = make("attention", **sizes | {"embedding_size": None})
    kept = {name: part for name, part in params.items() if name not in embeddings(params)}
    np.testing.assert_allclose(
        outputs(bare, {"params": kept}, ids % 6), embedded, rtol=1e-5, atol=1e-6
    )


def embeddings(params):
    return [name for name in params if name.endswith("embedding")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deep attention", "copy"])
def test_dropout_follows_the_key(name):
    model = make(name, dropout=0.5)
    ids, variables = ids_and_variables(model)

    @jax.jit
    def dropped(key):
        return model.apply(variables, ids, deterministic=False, rngs={"dropout": key})[0]

    def drop(seed):
        return np.asarray(dropped(jax.random.key(seed)))

    assert (drop(0) == drop(0)).all() and (drop(0) != drop(1)).any()
    plain = outputs(model, variables, ids, np.full(3, S))
    assert (drop(0) != plain).any()


@pytest.mark.slow
def test_a_step_with_attention_has_a_dropout_mask_of_its_own():
    encoder, decoder = Recurrent(GRUCell(4)), Stack((Recurrent(GRUCell(4)),))
    model = EncoderDecoder(encoder, decoder, 2, 3, 4, attention_size=3, dropout=0.5)
    ids = jnp.ones((1, 2 + 20), jnp.int32)
    variables = jax.jit(model.init)(jax.random.key(0), ids)
    rngs = {"dropout": jax.random.key(1)}
    drop = jax.jit(partial(model.apply, deterministic=False, rngs=rngs))
    found = drop(variables, ids)[0][0, 2:]
    assert len(np.unique(np.asarray(found).round(5), axis=0)) > 10  # of 2**8 masks


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_written_and_read(name):
    model = make(name)
    assert from_json(to_json(model)) == model


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"decoder": Recurrent(GRUCell(4), reverse=True)}, ValueError, "must not be reversed"),
        ({"decoder": both()}, ValueError, "the decoder must be Recurrent, or a Stack"),
        ({"decoder": GRUCell(4)}, ValueError, "a layer must be one such as Recurrent"),
        ({"bridge": "copied"}, SettingError, "bridge must be dense or copy, not 'copied'"),
        ({"bridge": "copy"}, SettingError, 'bridge "copy" needs the same cells and sizes'),
        ({"source_length": 0}, SettingError, "source length must be at least 1"),
        ({"attention_size": 2.5}, SettingError, "attention size must be a whole number"),
        ({"dropout": 1.0}, ValueError, "dropout must be from 0 to less than 1"),
        (
            {"decoder": Recurrent(GRUCell(4), recurrent_dropout=0.5), "attention_size": 3},
            ValueError,
            "it can have no recurrent_dropout",
        ),
        (
            {
                "decoder": Stack((Recurrent(GRUCell(4)),), dropout=0.1, variational_dropout=True),
                "attention_size": 3,
            },
            ValueError,
            "it can have no recurrent_dropout or variational_dropout",
        ),
    ],
)
def test_layers_and_sizes_that_do_not_fit(change, error, message):
    parts: Any = {"encoder": both(), "decoder": Recurrent(GRUCell(4))}
    with pytest.raises(error, match=message):
        EncoderDecoder(**parts | SIZES | change)


def test_inputs_that_do_not_fit():
    model = make("dense")
    ids, variables = ids_and_variables(model)

    def call(*arguments, **options):
        return jax.eval_shape(lambda: model.apply(variables, *arguments, **options))

    with pytest.raises(ValueError, match="T > 5, the source's steps, not T = 5"):
        call(ids[:, :S])
    with pytest.raises(TypeError, match="an encoder-decoder reads token ids"):
        call(jnp.ones((3, S + L)))
    with pytest.raises(ValueError, match="no initial carry and no resets"):
        call(ids, resets=jnp.zeros(ids.shape, bool))
    with pytest.raises(ValueError, match="lengths must be from 0 to T = 5"):
        call(ids, lengths=np.array([6, 1, 1]))
