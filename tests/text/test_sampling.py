"""Sampling follows the filtered softmax, and generation feeds back its own tokens."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_language_model import language, read_whole, with_bias

from jaxrnn.errors import RunError, SettingError
from jaxrnn.text.sampling import DEFAULT_SAMPLING, Sampling, generate, sample_token

V = 7
PROMPT = np.array([2, 6, 0, 3], np.int32)
COMPILED = "/jax/core/compile/backend_compile_duration"

GREEDY = Sampling(temperature=0)


def text(
    model, params, key, prompt, num_tokens, samples=3, sampling=DEFAULT_SAMPLING, tokens_per_call=5
):
    """All that is generated, [samples, length]; by the same few programs in most tests."""
    drawn = generate(model, params, key, prompt, num_tokens, samples, sampling, tokens_per_call)
    return np.concatenate([*drawn], axis=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature must be a finite number from 0, not -0.1"),
        ({"temperature": float("nan")}, "temperature must be a finite number from 0, not nan"),
        ({"temperature": float("inf")}, "temperature must be a finite number from 0, not inf"),
        ({"temperature": "1"}, "temperature must be a finite number from 0, not '1'"),
        ({"top_k": 0}, "top k must be at least 1"),
        ({"top_k": 2.0}, "top k must be a whole number, not 2.0"),
        ({"top_p": 0.0}, "top p must be more than 0 and at most 1, not 0.0"),
        ({"top_p": 1.01}, "top p must be more than 0 and at most 1, not 1.01"),
        ({"top_p": float("nan")}, "top p must be more than 0 and at most 1, not nan"),
    ],
)
def test_invalid_settings_raise(settings, message):
    with pytest.raises(SettingError) as refused:
        Sampling(**settings)
    assert str(refused.value) == message


def filtered(logits, temperature=1.0, top_k=None, top_p=None):
    """The probabilities [V] by their definitions, a unit at a time."""
    weights = [np.exp(float(score) / temperature) for score in logits]
    order = sorted(range(len(weights)), key=lambda unit: (-weights[unit], unit))[:top_k]
    total, kept, reached = sum(weights[unit] for unit in order), [], 0.0
    for unit in order:
        if reached >= (top_p or 1.0):
            break
        kept.append(unit)
        reached += weights[unit] / total
    share = sum(weights[unit] for unit in kept)
    return np.array([w / share if unit in kept else 0.0 for unit, w in enumerate(weights)])


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 3},
        {"top_p": 0.6},
        {"temperature": 2.5, "top_p": 0.6},
        {"temperature": 0.7, "top_k": 5, "top_p": 0.85},
    ],
    ids=str,
)
def test_samples_follow_the_filtered_softmax(settings, key):
    logits = 1.5 * jax.random.normal(key, (2, V))
    draws = 10000
    ids = sample_token(key, jnp.tile(logits, (draws, 1)), Sampling(**settings))
    ids = np.asarray(ids).reshape(draws, 2)
    assert ids.dtype == np.int32
    for row in range(2):
        wanted = filtered(np.asarray(logits[row], np.float64), **settings)
        counts = np.bincount(ids[:, row], minlength=V)
        assert not counts[wanted == 0].any()
        # Chi-square of V - 1 = 6 degrees of freedom or fewer exceeds 28 once in ten thousand times.
        seen, expected = counts[wanted > 0], draws * wanted[wanted > 0]
        assert np.sum((seen - expected) ** 2 / expected) < 28, (counts / draws, wanted)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"top_k": 1}, {2}),
        ({"top_k": 2}, {2, 4}),
        ({"top_k": 3}, {2, 4, 0}),
        ({"top_p": 0.001}, {2}),
        ({"top_p": 0.51}, {2, 4}),
        ({"top_p": 0.74}, {2, 4}),
        ({"top_p": 0.76}, {2, 4, 0}),
        ({"top_p": 0.88}, {2, 4, 0, 3}),
        # Of the three likeliest they have 4/7, 2/7 and 1/7.
        ({"top_k": 3, "top_p": 0.84}, {2, 4}),
        ({"top_k": 3, "top_p": 0.86}, {2, 4, 0}),
        ({"temperature": 0, "top_k": 3, "top_p": 0.9}, {2}),
        ({"temperature": 1e-300}, {2}),
        ({"temperature": 1e300}, {0, 2, 3, 4}),
    ],
    ids=str,
)
def test_filter_thresholds_and_ties(settings, allowed, key):
    """Units 0 and 3 tie; unit 1 is impossible."""
    logits = jnp.log(jnp.array([0.125, 0.0, 0.5, 0.125, 0.25]))
    drawn = sample_token(key, jnp.broadcast_to(logits, (400, 5)), Sampling(**settings))
    assert set(drawn.tolist()) == allowed


def test_greedy_breaks_ties_by_the_lowest_id(key):
    logits = jnp.array([[0.0, 2.0, 1.0, 2.0], [3.0, -1.0, 3.0, 3.0]])
    assert sample_token(key, logits, GREEDY).tolist() == [1, 0]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "settings", [{"top_k": 5}, {"top_k": 9}, {"top_p": 1}, {"top_k": 3}, {"top_p": 0.8}], ids=str
)
def test_a_filter_keeps_samples_inside_it(settings, key):
    logits = jax.random.normal(key, (400, 5))
    before, drawn = sample_token(key, logits), sample_token(key, logits, Sampling(**settings))
    allowed = np.array([filtered(row, **settings) for row in np.asarray(logits, np.float64)]) > 0
    stays = allowed[np.arange(400), before]
    assert stays.all() == (settings in ({"top_k": 5}, {"top_k": 9}, {"top_p": 1}))
    np.testing.assert_array_equal(drawn[stays], before[stays])


def test_a_row_does_not_depend_on_the_number_of_rows(key):
    logits = jnp.broadcast_to(jax.random.normal(key, (5,)), (400, 5))
    drawn = np.asarray(sample_token(key, logits, DEFAULT_SAMPLING))
    assert len(set(drawn.tolist())) == 5  # though the rows are alike
    np.testing.assert_array_equal(sample_token(key, logits[:5], DEFAULT_SAMPLING), drawn[:5])


def test_logits_of_another_rank_raise(key):
    with pytest.raises(ValueError, match=r"logits must be \[B, V\]"):
        sample_token(key, jnp.zeros(V), DEFAULT_SAMPLING)


@pytest.mark.sampled(6)
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("lstm", DEFAULT_SAMPLING),
        ("lstm", GREEDY),
        ("gru", Sampling(temperature=0.8, top_k=5, top_p=0.9)),
        ("rnn", DEFAULT_SAMPLING),
        ("two", DEFAULT_SAMPLING),
    ],
    ids=str,
)
def test_generation_matches_rereading_the_whole_text(name, settings, key):
    """Every unit, step after step, from the scores of all before it read anew."""
    samples, length = 3, 13
    model, params = language(name, V)
    drawn = text(model, params, key, PROMPT, length, samples, settings)
    assert drawn.shape == (samples, length) and drawn.dtype == np.int32
    ids = np.zeros((samples, len(PROMPT) + length), np.int32)  # what is not yet said, nobody sees
    ids[:, : len(PROMPT)] = PROMPT
    for n in range(length):
        logits = read_whole(model, params, ids)[:, len(PROMPT) - 1 + n]
        ids[:, len(PROMPT) + n] = (
            np.asarray(logits).argmax(-1)
            if settings.temperature == 0
            else sample_token(jax.random.fold_in(key, n), logits, settings)
        )
    np.testing.assert_array_equal(drawn, ids[:, len(PROMPT) :])
    assert len(set(drawn.ravel().tolist())) > 2


def test_a_longer_prompt_continues_the_same_text(key):
    """Greedy, as the keys of the steps are others."""
    model, params = language("lstm", V)
    whole = text(model, params, key, PROMPT, 12, sampling=GREEDY)
    longer = np.concatenate([PROMPT, whole[0, :3]]).astype(np.uint8)
    again = text(model, params, key, longer, 9, sampling=GREEDY)
    np.testing.assert_array_equal(again, whole[:, 3:])


def test_the_text_depends_on_the_key(key):
    model, params = language("lstm", V)
    say = partial(text, model, params, prompt=PROMPT, num_tokens=30)
    first = say(key)
    np.testing.assert_array_equal(say(key), first)
    others = [say(jax.random.fold_in(key, n)) for n in range(3)]
    texts = [tuple(row) for sample in (first, *others) for row in sample]
    assert len(set(texts)) == len(texts) == 12


def test_a_sample_does_not_depend_on_the_number_of_samples(key):
    model, params = language("two", V)
    five = text(model, params, key, PROMPT, 40, samples=5)
    np.testing.assert_array_equal(text(model, params, key, PROMPT, 40), five[:3])


@pytest.mark.parametrize(
    ("num_tokens", "tokens_per_call", "parts"),
    [(11, 4, [4, 4, 3]), (12, 4, [4, 4, 4]), (1, 4, [1]), (11, 40, [11])],
)
def test_a_text_depends_on_neither_tokens_per_call_nor_its_length(
    num_tokens, tokens_per_call, parts, key
):
    model, params = language("lstm", V)
    drawn = [*generate(model, params, key, PROMPT, num_tokens, 3, tokens_per_call=tokens_per_call)]
    assert [part.shape for part in drawn] == [(3, n) for n in parts]
    whole = text(model, params, key, PROMPT, 20)
    np.testing.assert_array_equal(np.concatenate(drawn, axis=1), whole[:, :num_tokens])


def test_compiles_once_for_any_length_key_parameters_and_sampling(key):
    compiled = []

    def listen(event, *_, **__):
        if event == COMPILED:
            compiled.append(event)

    model, params = language("rnn", V)
    other, others = jax.random.key(3), jax.tree.map(lambda leaf: leaf / 2, params)
    text(model, params, key, PROMPT, 3)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for length in (1, 5, 22):
            text(language("rnn", V)[0], others, other, PROMPT[::-1], length)
        for sampling in (GREEDY, Sampling(0.7), Sampling(top_k=2), Sampling(1.3, 5, 0.8)):
            text(model, params, key, PROMPT, 3, sampling=sampling)
        assert not compiled
        text(model, params, key, PROMPT, 3, tokens_per_call=7)
        assert len(compiled) == 1
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_tokens": 0}, SettingError, "num tokens must be at least 1"),
        ({"samples": 0}, SettingError, "samples must be at least 1"),
        ({"tokens_per_call": 0}, SettingError, "tokens per call must be at least 1"),
        ({"num_tokens": 2.5}, SettingError, "num tokens must be a whole number, not 2.5"),
        (
            {"prompt": np.array([], np.int32)},
            SettingError,
            "the prompt must have at least one token",
        ),
        (
            {"prompt": np.array([1, 7, 2])},
            SettingError,
            "token ids of the prompt must be from 0 to 6, not 7",
        ),
        (
            {"prompt": np.array([1, -1])},
            SettingError,
            "token ids of the prompt must be from 0 to 6, not -1",
        ),
        (
            {"prompt": np.array([2**32 + 1])},
            SettingError,
            "token ids of the prompt must be from 0 to 6, not 4294967297",
        ),
        ({"prompt": np.array([1.0], np.float32)}, TypeError, "prompt must be integer, not float32"),
        (
            {"prompt": PROMPT[None]},
            ValueError,
            "prompt must be [P], but its shape is (1, 4)",
        ),
    ],
    ids=str,
)
def test_invalid_arguments_raise_immediately(options, error, message, key):
    model, params = language("lstm", V)
    with pytest.raises(error) as refused:
        generate(model, params, key, **{"prompt": PROMPT, "num_tokens": 5} | options)
    assert str(refused.value) == message


def test_logits_that_are_not_finite_raise(key):
    model, params = language("lstm", V)
    for value in (jnp.nan, jnp.inf):
        with pytest.raises(RunError, match="the model's scores are not finite"):
            text(model, with_bias(params, 2, value), key, PROMPT, 5)
    never = text(model, with_bias(params, 2, -jnp.inf), key, PROMPT, 60)
    assert 2 in text(model, params, key, PROMPT, 60)
    assert 2 not in never


def test_tokens_before_a_non_finite_step_are_kept(key):
    """The model breaks when it reads unit 1; steps past the wanted length do not count."""
    model, params = language("rnn", V)
    greedy = partial(text, model, prompt=PROMPT, key=key, sampling=GREEDY)
    said = greedy(params=params, num_tokens=12)[0]
    unit = next(u for u in said.tolist() if u not in PROMPT)
    first = said.tolist().index(unit) + 1
    table = params["Embed_0"]["embedding"].at[unit].set(jnp.nan)
    broken = params | {"Embed_0": {"embedding": table}}
    np.testing.assert_array_equal(greedy(params=broken, num_tokens=first)[0], said[:first])
    with pytest.raises(RunError, match="not finite"):
        greedy(params=broken, num_tokens=first + 1)
