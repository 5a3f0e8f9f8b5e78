"""Features of a text that the cells of a character model may track: lines, words, quotes...

Karpathy, Johnson and Li (2015), "Visualizing and Understanding Recurrent Networks", section 4.1,
found such cells by eye. Here each cell is correlated with a list of features.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

FEWEST = 5  # tokens with and without a feature; fewer would give chance correlations
AT_ONCE = 256  # cells at a time, to bound the memory of their float64 copies

OPENING, CLOSING = frozenset("([{（［｛〈《【〔"), frozenset(")]}）］｝〉》】〕")
OPENING_QUOTES, CLOSING_QUOTES = frozenset("“「『«"), frozenset("”」』»")
SENTENCE_ENDS = frozenset(".!?。！？…")
VOWELS = frozenset("aeiouAEIOU")
SYLLABLE = re.compile("[\u1100-\u1112][\u1161-\u1175][\u11a8-\u11c2]?")
"""A Hangul syllable in conjoining jamo: an initial consonant, a vowel, and a final one or none."""


class Match(NamedTuple):
    """A cell and the feature that correlates best with it."""

    cell: int  # 0..C-1
    feature: str  # its name; empty if there is none
    r: float  # Pearson's correlation of the two, -1 to 1


def features(text: Sequence[str]) -> dict[str, np.ndarray]:
    r"""Compute the features of a text after each token.

    Positions count from 0; "position in the word" counts letters and digits from 1 and is 0 between
    words. "inside quotes" lasts from an opening to a closing quote, and also ends at a blank line,
    in case a quote is unbalanced. "bracket depth" counts the open brackets and is never negative.
    "indentation" is the white space at the start of the line; it is 0 at a line break. "speaker's
    line" is a line that ends with a colon, as in a play. "syllable with a final" is a composed
    Hangul syllable that ends in a consonant; "initial", "vowel" and "final jamo" are the parts of
    decomposed ones.

    Args:
      text: L tokens, most often characters; "\n" ends a line.

    Returns:
      by name, [L] float64 each; some may be constant in this text.

    >>> found = features('"Hi" a\nbc')
    >>> [int(n) for n in found["position in the line"]]
    [0, 1, 2, 3, 4, 5, 6, 0, 1]
    >>> [int(n) for n in found["inside quotes"]]
    [1, 1, 1, 0, 0, 0, 0, 0, 0]
    """
    text = list(text)
    length = len(text)
    kinds = [unicodedata.category(token)[0] if len(token) == 1 else "" for token in text]
    breaks = _which(token == "\n" for token in text)
    blank = breaks & np.append(True, breaks[:-1])[:length]  # the end of an empty line
    spaces = _which(token.isspace() for token in text)
    sentence_ends = _which(token in SENTENCE_ENDS for token in text)
    line, word, indentation = _since(breaks), _in_word(text), _indentation(spaces, breaks)
    # Whether a word of this line has ended before or at this token.
    ended = _since_last(breaks, spaces & (line > indentation)) > 0
    found = {
        "position in the text": np.arange(length),
        "position in the line": line,
        "line of the paragraph": _since_last(blank, breaks),
        "position in the sentence": _since(sentence_ends | blank),
        "position in the word": word,
        "first word of the line": ~ended & ~breaks,
        "indentation": indentation,
        "speaker's line": _speaker(text),
        "inside quotes": _inside_quotes(text, blank),
        "bracket depth": _depth(text),
        "letter": _which(kind == "L" for kind in kinds),
        "capital letter": _which(token.isupper() for token in text),
        "vowel letter": _which(token in VOWELS for token in text),
        "digit": _which(kind == "N" for kind in kinds),
        "punctuation": _which(kind in ("P", "S") for kind in kinds),
        "space or line break": spaces,
        "line break": breaks,
        "space or line break next": np.append(spaces[1:], False)[:length],
        "line break next": np.append(breaks[1:], False)[:length],
        "syllable with a final": _which(
            len(token) == 1 and "가" <= token <= "힣" and (ord(token) - ord("가")) % 28 > 0
            for token in text
        ),
        "initial jamo": _which("\u1100" <= token <= "\u115f" for token in text),
        "vowel jamo": _which("\u1160" <= token <= "\u11a7" for token in text),
        "final jamo": _which("\u11a8" <= token <= "\u11ff" for token in text),
    }
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


def rank(activations: np.ndarray, features: Mapping[str, np.ndarray]) -> list[Match]:
    """Find the best feature for each cell, and sort the cells by it.

    The best feature has the largest absolute correlation. Features are left out if they are
    constant, or if fewer than `FEWEST` tokens deviate from their most common value. The more
    features and the shorter the text, the larger the correlations by chance.

    Args:
      activations: [L, C].
      features: by name, [L] each.

    Returns:
      C matches in order of falling |r|, then of cells. A constant cell comes last with r = 0.

    Raises:
      ValueError: if the activations are not [L, C] finite numbers, or a feature is not [L].

    >>> cells = np.stack([np.zeros(12), -np.arange(12.0)], axis=1)
    >>> rank(cells, {"time": np.arange(12), "nothing": np.ones(12)})
    [Match(cell=1, feature='time', r=-1.0), Match(cell=0, feature='', r=0.0)]
    """
    activations = np.asarray(activations)
    if activations.ndim != 2 or not np.isfinite(activations).all():
        raise ValueError("activations must be [L, C] finite numbers")
    for name, values in features.items():
        if np.shape(values) != activations.shape[:1]:
            raise ValueError(f"the feature {name!r} must be [L] with L = {len(activations)}")
    names = [name for name, values in features.items() if _varies(values)]
    if not names:
        return [Match(cell, "", 0.0) for cell in range(activations.shape[1])]
    wanted = _standardize(np.stack([features[name] for name in names], axis=1).astype(np.float64))
    matches = []
    for start in range(0, activations.shape[1], AT_ONCE):
        cells = _standardize(activations[:, start : start + AT_ONCE].astype(np.float64))
        r = np.clip(cells.T @ wanted, -1, 1)  # [cells, features]
        for cell, best in enumerate(np.abs(r).argmax(axis=1)):
            name = names[best] if r[cell, best] else ""
            matches.append(Match(start + cell, name, float(r[cell, best])))
    return sorted(matches, key=lambda match: (-abs(match.r), match.cell))


def _varies(values: np.ndarray) -> bool:
    """Tell whether a feature varies over more than a few tokens."""
    _, counts = np.unique(values, return_counts=True)
    return len(counts) > 1 and len(values) - counts.max() >= FEWEST


def _standardize(columns: np.ndarray) -> np.ndarray:
    """Scale columns to mean 0 and norm 1, so products are correlations; constant ones become 0."""
    varies = np.ptp(columns, axis=0) > 0
    columns = columns - columns.mean(axis=0, keepdims=True)
    size = np.sqrt(np.sum(columns**2, axis=0))
    varies &= size > 0
    return np.where(varies[None], columns / np.where(varies, size, 1)[None], 0.0)


def _which(values: Iterable[bool]) -> np.ndarray:
    return np.fromiter(values, bool)


def _since(ends: np.ndarray) -> np.ndarray:
    """Count the tokens since the last end, not counting it: [L] int."""
    steps = np.arange(len(ends))
    starts = np.where(np.append(True, ends[:-1])[: len(ends)], steps, 0)
    return steps - np.maximum.accumulate(starts)


def _since_last(ends: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Count the `counted` tokens after the last end, up to this token: [L] int."""
    total = np.cumsum(counted)
    return total - np.maximum.accumulate(np.where(ends, total, 0))


def _in_word(text: list[str]) -> np.ndarray:
    """Return 1, 2, ... in each run of letters, digits, marks and apostrophes, else 0: [L] int."""
    position, positions = 0, []
    for token in text:
        continues = position and (
            token in ("'", "’") or unicodedata.category(token[:1] or " ")[0] == "M"
        )
        position = position + 1 if token.isalnum() or continues else 0
        positions.append(position)
    return np.array(positions, int)


def _indentation(spaces: np.ndarray, breaks: np.ndarray) -> np.ndarray:
    """Count the white space at the start of the line, as far as it was read: [L] int."""
    words = _since_last(breaks, ~spaces)
    return _since_last(breaks, spaces & ~breaks & (words == 0))


def _speaker(text: list[str]) -> np.ndarray:
    """Tell whether the token's line, including its line break, ends with a colon: [L] bool."""
    values: list[bool] = []
    line: list[str] = []
    for token in [*text, "\n"]:
        line.append(token)
        if token == "\n":
            values += [line[-2:-1] == [":"]] * len(line)
            line = []
    return np.array(values[: len(text)], bool)


def _inside_quotes(text: list[str], blank: np.ndarray) -> np.ndarray:
    inside, values = False, []
    for token, ends in zip(text, blank, strict=True):
        if token == '"':
            inside = not inside
        elif token in OPENING_QUOTES:
            inside = True
        elif ends or token in CLOSING_QUOTES:
            inside = False
        values.append(inside)
    return np.array(values, bool)


def _depth(text: list[str]) -> np.ndarray:
    depth, values = 0, []
    for token in text:
        depth = max(0, depth + (token in OPENING) - (token in CLOSING))
        values.append(depth)
    return np.array(values, int)
