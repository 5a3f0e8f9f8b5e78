"""Characters, bytes and jamo, against what Python's own codecs and `unicodedata` make of a text."""

import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaxrnn.errors import SettingError
from jaxrnn.text.tokenizer import (
    TOKENIZERS,
    Decoder,
    detokenize,
    display_token,
    starts_character,
    to_codes,
    tokenize,
)

LEAD, VOWEL, TAIL = "\u1112", "\u1161", "\u11ab"  # 한 in three
PARTS = [
    *("a", "e", " ", "\n", "\x00", "é", "e\u0301", "\u0301", "\u0323", "\u0307", "ø\u0301"),
    *(LEAD, VOWEL, TAIL, "\u11a7", "\u11c2", "\u11c3", "\u1100", "\u1175"),
    *("한", "가", "힣", "ㅎ", "가\u11a8", "가\u11c3"),
    *("か\u3099", "が", "中", "\uf900", "👩‍💻", "\U0001f1f0\U0001f1f7", "\ufeff", "ש\u05c1\u05bc"),
    *("\u09c7", "\u09be", "\u0f71", "\u0f73", "\u0344", "\u0958", "Å", "\U00011131\U00011127"),
]
"""What makes texts that compose, decompose and reorder across any cut."""

any_case = settings(derandomize=True, deadline=None, max_examples=200)

texts = st.lists(
    st.sampled_from(PARTS) | st.characters(exclude_categories=["Cs"]), max_size=12
).map("".join)


def tokenize_slowly(text: str, tokenizer: str) -> str:
    """Tokenize one character at a time."""
    if tokenizer == "bytes":
        return "".join(chr(byte) for byte in text.encode())
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = unicodedata.normalize("NFC", text)
    if tokenizer == "characters":
        return text
    return "".join(unicodedata.normalize("NFD", c) if "가" <= c <= "힣" else c for c in text)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@any_case
@given(text=texts)
def test_detokenize_inverts_tokenize(tokenizer, text):
    there = tokenize(text, tokenizer)
    assert there == tokenize_slowly(text, tokenizer)
    back = detokenize(there, tokenizer)
    newlines = text.replace("\r\n", "\n").replace("\r", "\n")
    assert back == (text if tokenizer == "bytes" else unicodedata.normalize("NFC", newlines))


def test_exactly_the_syllables_are_decomposed():
    text = "".join(chr(code) for code in range(0xA000, 0xE000) if not 0xD800 <= code < 0xE000)
    assert tokenize(text, "jamo") == tokenize_slowly(text, "jamo")


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@any_case
@given(text=texts)
def test_each_composed_character_starts_once(tokenizer, text):
    text = unicodedata.normalize("NFC", text.replace("\r", "\n"))
    found = starts_character(to_codes(tokenize(text, tokenizer)), tokenizer)
    wanted = [i == 0 for c in text for i in range(len(tokenize_slowly(c, tokenizer)))]
    np.testing.assert_array_equal(found, np.array(wanted, bool))


# A model may generate any tokens in any order.
said = {
    "characters": texts,
    "jamo": texts | st.text(st.sampled_from("".join(PARTS)), max_size=12),
    "bytes": st.text(st.characters(max_codepoint=0xFF), max_size=12)
    | texts.map(lambda text: tokenize_slowly(text, "bytes"))
    | st.lists(st.sampled_from(["\xed\x95\x9c", "\xf0\x9f", "\xe0\x80", "\xff", "a", "\x9c"])).map(
        "".join
    ),
}


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@any_case
@given(data=st.data())
def test_decoder_output_does_not_depend_on_the_pieces(tokenizer, data):
    text = data.draw(said[tokenizer])
    places = data.draw(st.lists(st.integers(0, len(text))))
    cuts = [0, *sorted(places), len(text)]
    decoder = Decoder(tokenizer)
    for _ in range(2):  # it can be used again
        told = [decoder.feed(text[a:b]) for a, b in pairwise(cuts)]
        assert "".join([*told, decoder.flush()]) == detokenize(text, tokenizer)


@any_case
@given(text=said["jamo"], more=said["jamo"])
@example(text=LEAD + VOWEL, more=TAIL)
@example(text="e\u0301", more="\u0323")
@example(text="\u0f71", more="\u0f73")
def test_later_tokens_do_not_change_decoded_text(text, more):
    assert detokenize(text + more, "jamo").startswith(Decoder("jamo").feed(text))


def test_decoder_holds_back_only_what_may_change():
    decoder = Decoder("jamo")
    assert [decoder.feed(unit) for unit in (LEAD, VOWEL, TAIL, "a", LEAD, "\n")] == [
        *("", "", "", "한", "a", LEAD)
    ]
    assert (decoder.flush(), decoder.flush()) == ("\n", "")
    decoder = Decoder("bytes")
    assert [decoder.feed(byte) for byte in "a\xed\x95\x9c\xed\xffb"] == [
        *"a",
        "",
        "",
        "한",
        "",
        "��",
        "b",
    ]
    assert decoder.feed("\xf0\x9f") + decoder.flush() == "�"


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_displayed_tokens_are_printable_and_distinct(tokenizer):
    every = [chr(code) for code in range(256 if tokenizer == "bytes" else 0x3200)]
    symbols = {*"␣↵⇥", *map(chr, range(0x2400, 0x2426))}
    names = [display_token(token, tokenizer) for token in every if token not in symbols]
    assert all(name.isprintable() and name.strip() for name in names)
    assert len(set(names)) == len(names)


def test_display_token():
    assert display_token("\u0301", "characters") == "◌\u0301"
    assert display_token(VOWEL, "jamo") == VOWEL
    assert display_token("\x00", "characters") == "␀"
    assert [display_token(unit, "bytes") for unit in "~\x7f\xff "] == ["~", "0x7F", "0xFF", "␣"]


@pytest.mark.parametrize(
    "use", [lambda u: tokenize("a", u), lambda u: detokenize("a", u), lambda u: Decoder(u)]
)
def test_unknown_tokenizers_raise(use):
    with pytest.raises(SettingError, match="characters, bytes or jamo, not 'words'"):
        use("words")


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_arguments_that_are_not_utf8_raise(tokenizer):
    with pytest.raises(SettingError, match="not valid UTF-8"):
        tokenize("a\udcff", tokenizer)
