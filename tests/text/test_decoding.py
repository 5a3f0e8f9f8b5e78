"""Greedy and beam decoding, against a search by hand over teacher-forced probabilities."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn.cells import GRUCell, LSTMCell
from jaxrnn.errors import RunError, SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Stack
from jaxrnn.models import EncoderDecoder
from jaxrnn.text.decoding import Sources, beam_decode, greedy_decode

S, V = 4, 3
SOURCES = Sources(np.array([[4, 1, 2, 3], [2, 2, 0, 0], [3, 0, 0, 0]]), np.array([4, 2, 1]))


def make(attention: bool):
    """A network whose targets end now and then, and whose best beams start from worse ones."""
    if attention:
        layers = Recurrent(GRUCell(5)), Recurrent(LSTMCell(5))
    else:
        layers = Recurrent(LSTMCell(5)), Stack((Recurrent(GRUCell(5)), Recurrent(GRUCell(4))))
    model = EncoderDecoder(*layers, S, 5, V, attention_size=4 if attention else None)
    params = jax.jit(model.init)(jax.random.key(3), jnp.zeros((1, S + 1), jnp.int32))["params"]
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1 if attention else 2), len(leaves))
    noise = [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return model, jax.tree.unflatten(structure, noise)


def everything(model, params, row: int, length: int) -> dict[tuple[int, ...], float]:
    """The log-probability of each beginning of each target, all read with teacher forcing."""
    ways = np.array([*itertools.product(range(V), repeat=length)])
    before = np.pad(ways[:, :-1], ((0, 0), (1, 0)))
    source = np.tile(SOURCES.ids[row], (len(ways), 1))
    inputs = jnp.asarray(np.concatenate([source, before], axis=1))
    lengths = jnp.full(len(ways), int(SOURCES.lengths[row]))
    logits = jax.jit(model.apply)({"params": params}, inputs, lengths=lengths)[0]
    logits = np.asarray(logits, np.float64)
    logs = logits[:, S:] - np.log(np.exp(logits[:, S:]).sum(-1, keepdims=True))
    each = np.take_along_axis(logs, ways[..., None], -1)[..., 0]
    known = {}
    for n, way in enumerate(ways.tolist()):
        for end in range(1, length + 1):
            target = cut(way[:end])
            known[target + (0,) * (end - len(target))] = each[n, : len(target)].sum()
    return known


def cut(way) -> tuple[int, ...]:
    """A target up to its end, which is part of it."""
    way = tuple(way)
    return way[: way.index(0) + 1] if 0 in way else way


def search_by_hand(known, length: int, beams: int) -> list[tuple[int, ...]]:
    kept: list[tuple[int, ...]] = [()]
    for _ in range(length):
        longer = [(*way, v) for way in kept for v in range(V) if v == 0 or 0 not in way]
        kept = sorted(longer, key=lambda way: -known[way])[:beams]
    return kept


@pytest.mark.sampled(8)
@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("beams", [2, 3, 40])
def test_beams_match_a_search_by_hand(attention, beams):
    model, params = make(attention)
    length = 4
    found = beam_decode(model, params, SOURCES, length, beams)
    assert found.ids.shape == (3, beams, length) and found.ids.dtype == np.int32
    narrow = False
    for row in range(3):
        known = everything(model, params, row, length)
        targets = {way: value for way, value in known.items() if len(way) == length}
        ways = search_by_hand(known, length, beams)
        best = sorted(targets, key=lambda way: -targets[way])
        assert len(ways) == min(beams, len(targets))  # 40 beams hold all 31 targets
        narrow |= ways != best[:beams]
        live = found.log_probability[row] > -np.inf
        assert live.sum() == len(ways) and live[: len(ways)].all()
        assert [tuple(ids) for ids in found.ids[row, live].tolist()] == ways
        wanted = [known[way] for way in ways]
        np.testing.assert_allclose(found.log_probability[row, live], wanted, rtol=1e-4, atol=1e-4)
        if beams == 40:
            np.testing.assert_allclose(np.exp(wanted).sum(), 1.0, rtol=1e-6)
    assert narrow == (beams < 40)  # so the width matters


@pytest.mark.slow
@pytest.mark.parametrize("attention", [False, True])
def test_greedy_is_one_beam_and_the_likeliest_token_each_time(attention):
    model, params = make(attention)
    greedy = greedy_decode(model, params, SOURCES, 6)
    beam = beam_decode(model, params, SOURCES, 6, 1)
    np.testing.assert_array_equal(greedy.ids, beam.ids[:, 0])
    np.testing.assert_allclose(greedy.log_probability, beam.log_probability[:, 0], rtol=1e-5)
    for row in range(3):
        known = everything(model, params, row, 4)
        assert greedy.ids[row, :4].tolist() == list(search_by_hand(known, 4, 1)[0])
    assert len({tuple(ids) for ids in greedy.ids.tolist()}) > 1  # they depend on the source


def test_greedy_decoding_is_exact_where_teacher_forcing_is():
    """Over many targets, of which a few are what the network writes."""
    model, params = make(True)
    rows = 500
    rng = np.random.default_rng(0)
    ids, lengths = rng.integers(1, 5, (rows, S)), rng.integers(1, S + 1, rows)
    sources = Sources(ids, lengths)
    written = greedy_decode(model, params, sources, 4).ids
    target = rng.integers(0, V, (rows, 4))
    target = np.where(rng.random((rows, 1)) < 0.5, written, target)  # half of them as written
    target *= np.cumprod(target > 0, axis=1)  # nothing after the end
    inputs = np.concatenate([ids, np.pad(target[:, :-1], ((0, 0), (1, 0)))], axis=1)
    apply = jax.jit(model.apply)
    logits = apply({"params": params}, jnp.asarray(inputs), lengths=jnp.asarray(lengths))[0]
    counts = np.arange(4) <= (target > 0).sum(1, keepdims=True)
    forced = ((np.asarray(logits)[:, S:].argmax(-1) == target) | ~counts).all(1)
    wanted = (written == target).all(1)
    np.testing.assert_array_equal(forced, wanted)
    assert 50 < wanted.sum() < 450


@pytest.mark.slow
def test_rows_do_not_depend_on_each_other():
    model, params = make(True)
    whole = beam_decode(model, params, SOURCES, 4, 3)
    alone = beam_decode(model, params, Sources(SOURCES.ids[1:2], SOURCES.lengths[1:2]), 4, 3)
    np.testing.assert_array_equal(alone.ids[0], whole.ids[1])


def test_bad_arguments():
    model, params = make(False)
    with pytest.raises(SettingError, match="max length must be at least 1"):
        greedy_decode(model, params, SOURCES, 0)
    with pytest.raises(SettingError, match="beams must be a whole number"):
        beam_decode(model, params, SOURCES, 3, 1.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="lengths must be from 0 to T = 4"):
        greedy_decode(model, params, SOURCES._replace(lengths=np.array([5, 1, 1])), 3)
    broken = jax.tree.map(lambda leaf: leaf * np.float32(np.nan), params)
    with pytest.raises(RunError, match="not finite"):
        greedy_decode(model, broken, SOURCES, 3)
    with pytest.raises(RunError, match="not finite"):
        beam_decode(model, broken, SOURCES, 3, 2)
