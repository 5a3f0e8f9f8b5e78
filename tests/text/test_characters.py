"""Characters to ids and back."""

import numpy as np
import pytest

from jaxrnn import rng
from jaxrnn.tasks.next_character import NextCharacter
from jaxrnn.text.characters import decode, encode, vocabulary


@pytest.mark.parametrize("text", ["hihello", "if you want you", "안녕하세요", "aa", "👩‍💻 a\n"])
def test_decode_inverts_encode(text):
    characters = vocabulary(text)
    ids = encode(text, characters)
    assert ids.dtype == np.int32
    assert decode(ids, characters) == text
    assert len(set(characters)) == len(characters)


def test_unknown_characters_are_named():
    with pytest.raises(ValueError, match="'z'"):
        encode("hiz", vocabulary("hi"))


def test_inputs_are_all_but_the_last_and_targets_all_but_the_first(key):
    batch = NextCharacter("if you want you").sample_batch(key, 0)
    characters = vocabulary("if you want you")
    read = decode(np.asarray(batch.inputs[0].argmax(-1)), characters)
    assert (read, decode(np.asarray(batch.targets[0]), characters)) == (
        "if you want yo",
        "f you want you",
    )
    np.testing.assert_array_equal(batch.inputs.sum(-1), 1)
    np.testing.assert_array_equal(batch.weights, 1)


def test_decomposed_and_composed_korean_give_equal_tasks():
    assert NextCharacter("\u1112\u1161\u11ab\uad6d") == NextCharacter("한국")


def test_child_keys_differ_and_unknown_names_raise():
    root = rng.root_key(3)
    drawn = {int(rng.jax.random.bits(rng.child_key(root, name))) for name in rng.STREAMS}
    assert len(drawn) == len(rng.STREAMS)
    with pytest.raises(ValueError, match="weather"):
        rng.child_key(root, "weather")
