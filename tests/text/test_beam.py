"""Beam search finds what an exhaustive search finds, within its width."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from toy_language_model import LAYERS, language, read_whole, with_bias

from jaxrnn.errors import RunError, SettingError
from jaxrnn.text.beam import beam_search
from jaxrnn.text.sampling import Sampling, generate

PROMPT = np.array([2, 0, 1], np.int32)


def everything(model, params, length):
    """The log-probability of every beginning of every continuation: float64, by its units."""
    ways = np.array([*itertools.product(range(model.size), repeat=length)], np.int32)
    ids = np.concatenate([np.tile(PROMPT, (len(ways), 1)), ways], axis=1)
    scores = np.asarray(read_whole(model, params, ids), np.float64)[:, len(PROMPT) - 1 : -1]
    logs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))  # [V**L, L, V]
    each = np.take_along_axis(logs, ways[..., None], -1)[..., 0].cumsum(-1)
    return {
        tuple(way[: n + 1]): each[row, n]
        for row, way in enumerate(ways.tolist())
        for n in range(length)
    }


def search_by_hand(known, size, length, beams):
    """The textbook's search over a table of log-probabilities."""
    kept: list[tuple[int, ...]] = [()]
    for _ in range(length):
        longer = [(*beam, unit) for beam in kept for unit in range(size)]
        kept = sorted(longer, key=lambda way: -known[way])[:beams]
    return kept


def assert_found(found, ways, known):
    ids, log_probability = found
    assert ids.dtype == np.int32 and log_probability.dtype == np.float32
    assert list(map(tuple, ids.tolist())) == ways
    np.testing.assert_allclose(log_probability, [known[way] for way in ways], rtol=1e-5)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("name", "beams"), [*zip(LAYERS, (5, 3, 3, 8), strict=True)])
def test_matches_a_textbook_search(name, beams, key):
    model, params = language(name, 4)
    known = everything(model, params, 6)
    ways = search_by_hand(known, 4, 6, beams)
    best = sorted((way for way in known if len(way) == 6), key=lambda way: -known[way])
    assert ways != best[:beams]  # so the width matters
    assert_found(beam_search(model, params, PROMPT, 6, beams), ways, known)


@pytest.mark.parametrize("beams", [27, 100])
def test_a_wide_enough_search_is_exhaustive(beams, key):
    model, params = language("gru", 3)
    known = everything(model, params, 4)
    ways = sorted((way for way in known if len(way) == 4), key=lambda way: -known[way])[:beams]
    assert len(ways) == min(beams, 81)
    assert_found(beam_search(model, params, PROMPT, 4, beams), ways, known)


def test_one_beam_is_greedy(key):
    model, params = language("two", 9)
    (greedy,) = generate(model, params, key, PROMPT, 30, sampling=Sampling(temperature=0))
    np.testing.assert_array_equal(beam_search(model, params, PROMPT, 30, 1)[0], greedy)


def test_impossible_continuations_are_not_returned(key):
    model, params = language("gru", 3)
    ids, log_probability = beam_search(model, with_bias(params, 1, -jnp.inf), PROMPT, 4, 27)
    assert {*map(tuple, ids.tolist())} == {*itertools.product((0, 2), repeat=4)}
    np.testing.assert_allclose(np.exp(log_probability).sum(), 1, rtol=1e-5)


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_logits_that_are_not_finite_raise(value, key):
    model, params = language("gru", 3)
    with pytest.raises(RunError, match="the model's scores are not finite"):
        beam_search(model, with_bias(params, 1, value), PROMPT, 4, 27)


@pytest.mark.parametrize(
    ("prompt", "length", "beams", "message"),
    [
        (PROMPT, 4, 0, "beams must be at least 1"),
        (PROMPT, 4, 1.5, "beams must be a whole number, not 1.5"),
        (PROMPT, 0, 2, "num tokens must be at least 1"),
        (PROMPT[:0], 4, 2, "the prompt must have at least one token"),
        (PROMPT + 1, 4, 2, "token ids of the prompt must be from 0 to 2, not 3"),
    ],
)
def test_invalid_arguments_raise(prompt, length, beams, message, key):
    model, params = language("gru", 3)
    with pytest.raises(SettingError) as refused:
        beam_search(model, params, prompt, length, beams)
    assert str(refused.value) == message
