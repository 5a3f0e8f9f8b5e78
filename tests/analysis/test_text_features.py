"""What a cell may follow in a text, against plain readings of it; correlations against NumPy's."""

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrnn.analysis import text_features
from jaxrnn.analysis.text_features import Match, features, rank


def plain(text):
    """The counting features, each from the text before a unit alone."""
    found: dict[str, list[int]] = {}
    for t, unit in enumerate(text):
        line = text[: t + 1].removesuffix("\n").rpartition("\n")[2] + "\n" * (unit == "\n")
        lines = text[: t + 1].split("\n")
        # Lines that ended, back to the last empty one. The start of the text is as good as one.
        ended = lines[:-1]
        since = 0
        while ended and ended[-1] != "":
            ended.pop()
            since += 1
        word = re.search(r"[^\W_](?:[^\W_]|['’])*\Z", text[: t + 1])
        first = re.fullmatch(r"\s*\S*", line) is not None and unit != "\n"
        row = {
            "position in the text": t,
            "position in the line": len(line) - 1,
            "line of the paragraph": since,
            "position in the word": len(word[0]) if word else 0,
            "first word of the line": first,
            "indentation": 0 if unit == "\n" else len(line) - len(line.lstrip()),
            "position in the sentence": len(re.split(r"(?:[.!?]|(?<=\n)\n|^\n)", text[:t])[-1]),
            "capital letter": unit in "ABCO",
            "space or line break next": text[t + 1 : t + 2] in (" ", "\n"),
            "line break next": text[t + 1 : t + 2] == "\n",
        }
        for name, value in row.items():
            found.setdefault(name, []).append(int(value))
    return found


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="aBé7'. !\n\n:(", max_size=40))
def test_counters_equal_a_plain_loop(text):
    found = features(text)
    for name, values in plain(text).items():
        assert found[name].tolist() == values, name
    assert {values.shape for values in found.values()} == {(len(text),)}


# Below each unit of a text, whose line breaks stand as / here, what the feature is after it.
BY_HAND = """
Old (wise [man]):/  "Say 'tis/3 o'clock."//A. B: c
00000000000000000000111111111111111111110000000000 inside quotes
00001111112222100000000000000000000000000000000000 bracket depth
11111111111111111100000000000000000000000000000000 speaker's line
00000000000000000012222222222000000000000000000000 indentation
12300123400123000000012300123010123456700001001001 position in the word
11100000000000000011111100000010000000000001100000 first word of the line
00000000000000000000000000000000000000000000000000 final jamo
"""


def test_spans_by_hand():
    text, *rows = BY_HAND.strip().splitlines()
    found = features(text.replace("/", "\n"))
    for row in rows:
        digits, _, name = row.partition(" ")
        assert "".join(str(int(value)) for value in found[name]) == digits, name


def test_an_unbalanced_quote_or_bracket_ends_at_a_blank_line():
    found = features('a "b\n\nc "d" e) (f')
    assert "".join(str(int(on)) for on in found["inside quotes"]) == "00111000110000000"
    assert found["bracket depth"].tolist() == [0] * 15 + [1, 1]
    assert features("“a” 「b」 «c»")["inside quotes"].tolist() == [1, 1, 0, 0] * 2 + [1, 1, 0]


def test_kinds_of_characters():
    found = features([*"aÉ1.,$ \n한가", "0xEA", ""])
    where = {name: np.flatnonzero(values).tolist() for name, values in found.items()}
    assert where["letter"] == [0, 1, 8, 9]
    assert where["capital letter"] == [1]
    assert where["vowel letter"] == [0]
    assert where["digit"] == [2]
    assert where["punctuation"] == [3, 4, 5]
    assert where["space or line break"] == [6, 7]
    assert where["line break"] == [7]
    assert where["syllable with a final"] == [8]


def test_jamo():
    text = unicodedata.normalize("NFD", "한가·a까닭")
    found = features(text)
    for t, unit in enumerate(text):
        part = unicodedata.name(unit).split()[1]
        assert found["initial jamo"][t] == (part == "CHOSEONG")
        assert found["vowel jamo"][t] == (part == "JUNGSEONG")
        assert found["final jamo"][t] == (part == "JONGSEONG")
    assert [found[name].sum() for name in ("initial jamo", "vowel jamo", "final jamo")] == [4, 4, 2]
    syllables = [match[0] for match in text_features.SYLLABLE.finditer(text)]
    assert [unicodedata.normalize("NFC", syllable) for syllable in syllables] == list("한가까닭")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rank_finds_the_largest_correlation(monkeypatch, dtype):
    monkeypatch.setattr(text_features, "AT_ONCE", 3)
    draw = np.random.default_rng(0)
    known = {"a": draw.normal(size=50), "b": draw.random(50) < 0.3, "c": np.arange(50) ** 2}
    cells = draw.normal(size=(50, 10)).astype(dtype)
    cells[:, 4] = -2 * known["c"] + 7
    cells[:, 7] = known["b"] * 1e-4 + 0.99
    matches = rank(cells, known | {"constant": np.full(50, 0.1)})
    assert sorted(match.cell for match in matches) == list(range(10))
    assert [abs(match.r) for match in matches] == sorted((abs(m.r) for m in matches), reverse=True)
    for cell, feature, r in matches:
        by_name = {
            name: np.corrcoef(cells[:, cell], values)[0, 1] for name, values in known.items()
        }
        assert feature == max(by_name, key=lambda name: abs(by_name[name]))
        np.testing.assert_allclose(r, by_name[feature], atol=1e-6)
    assert {matches[0].cell, matches[1].cell} == {4, 7}
    assert dict(zip([m.cell for m in matches], [m.feature for m in matches], strict=True))[4] == "c"


def test_constant_cells_come_last_and_ties_keep_their_order():
    ramp = 0.1 * np.arange(23.0) ** 2
    cells = np.stack([np.full(23, 0.7), ramp, np.zeros(23), -ramp, np.full(23, 0.1), ramp], axis=1)
    assert (cells.mean(axis=0) != cells[0])[[0, 4]].any(), "the mean of equals may not be theirs"
    matches = rank(cells, {"time": ramp})
    assert [match.cell for match in matches] == [1, 3, 5, 0, 2, 4]
    np.testing.assert_allclose([match.r for match in matches], [1, -1, 1, 0, 0, 0], atol=1e-12)
    assert [match.feature for match in matches] == ["time"] * 3 + [""] * 3


def test_a_rare_feature_is_left_out():
    rare, common = np.zeros(40), np.zeros(40)
    rare[:4] = 1
    common[:5] = 1
    draw = np.random.default_rng(0)
    cells = (rare + 0.01 * draw.normal(size=40))[:, None]
    assert rank(cells, {"rare": rare, "lacking": 1 - rare}) == [Match(0, "", 0.0)]
    assert rank(cells, {"rare": rare, "common": common})[0].feature == "common"


def test_a_text_of_one_character_or_none():
    assert all(len(values) == 0 for values in features("").values())
    assert rank(np.ones((1, 2)), features("a")) == [Match(0, "", 0.0), Match(1, "", 0.0)]
    assert rank(np.ones((3, 0)), features("abc")) == []


@pytest.mark.parametrize("cells", [np.zeros(3), np.full((3, 1), np.nan), np.full((3, 1), np.inf)])
def test_activations_that_are_not_finite_or_two_dimensional_are_refused(cells):
    with pytest.raises(ValueError, match=r"activations must be \[L, C\] finite numbers"):
        rank(cells, {"a": np.arange(3)})


def test_a_feature_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"feature 'a' must be \[L\] with L = 3"):
        rank(np.ones((3, 2)), {"a": np.arange(4)})
