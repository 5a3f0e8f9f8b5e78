"""What the cells of a character model follow in a text: its lines, words, quotes, brackets...

Karpathy, Johnson and Li (2015), "Visualizing and Understanding Recurrent Networks", section 4.1,
found such cells by eye. Here each cell is compared with a list of features, by correlation.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

FEWEST = 5  # characters that must have a feature, and lack it: with fewer any cell may seem to
AT_ONCE = 256  # cells compared at a time, which bounds the memory of their float64 copies

OPENING, CLOSING = frozenset("([{（［｛〈《【〔"), frozenset(")]}）］｝〉》】〕")
OPENING_QUOTES, CLOSING_QUOTES = frozenset("“「『«"), frozenset("”」』»")
SENTENCE_ENDS = frozenset(".!?。！？…")
VOWELS = frozenset("aeiouAEIOU")
SYLLABLE = re.compile("[\u1100-\u1112][\u1161-\u1175][\u11a8-\u11c2]?")
"""A Hangul syllable in conjoining jamo: an initial consonant, a vowel and perhaps a final one."""


class Match(NamedTuple):
    """A cell and the feature that it follows best."""

    cell: int  # 0..C-1
    feature: str  # its name; empty if the cell follows none
    r: float  # Pearson's correlation of the two, -1 to 1


def features(text: Sequence[str]) -> dict[str, np.ndarray]:
    r"""What a cell might follow in a text, as it stands after each unit was read.

    Positions count from 0 at the first unit; "position in the word" counts letters and digits from
    1 and is 0 between words. "inside quotes" begins with the opening quote, ends with the closing
    one, and also at a blank line, lest one lost quote turns all the rest inside out. "bracket
    depth" counts the open ones, and never falls below 0. "indentation" is the white space that the
    line began with; a line break has 0, as the line to come. "speaker's line" is a line that ends
    with a colon, as in a play. "syllable with a final" is a composed Hangul syllable that ends in a
    consonant; "initial", "vowel" and "final jamo" are the parts of decomposed ones.

    Args:
      text: L units, most often characters; "\n" ends a line.

    Returns:
      by name, [L] float64 each; a feature may be the same all over this text.

    >>> found = features('"Hi" a\nbc')
    >>> [int(n) for n in found["position in the line"]]
    [0, 1, 2, 3, 4, 5, 6, 0, 1]
    >>> [int(n) for n in found["inside quotes"]]
    [1, 1, 1, 0, 0, 0, 0, 0, 0]
    """
    text = list(text)
    length = len(text)
    kinds = [unicodedata.category(unit)[0] if len(unit) == 1 else "" for unit in text]
    breaks = _which(unit == "\n" for unit in text)
    blank = breaks & np.append(True, breaks[:-1])[:length]  # ends a line with nothing in it
    spaces = _which(unit.isspace() for unit in text)
    sentence_ends = _which(unit in SENTENCE_ENDS for unit in text)
    line, word, indentation = _since(breaks), _in_word(text), _indentation(spaces, breaks)
    # Whether a word of this line has already ended before or at this unit.
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
        "capital letter": _which(unit.isupper() for unit in text),
        "vowel letter": _which(unit in VOWELS for unit in text),
        "digit": _which(kind == "N" for kind in kinds),
        "punctuation": _which(kind in ("P", "S") for kind in kinds),
        "space or line break": spaces,
        "line break": breaks,
        "space or line break next": np.append(spaces[1:], False)[:length],
        "line break next": np.append(breaks[1:], False)[:length],
        "syllable with a final": _which(
            len(unit) == 1 and "가" <= unit <= "힣" and (ord(unit) - ord("가")) % 28 > 0
            for unit in text
        ),
        "initial jamo": _which("\u1100" <= unit <= "\u115f" for unit in text),
        "vowel jamo": _which("\u1160" <= unit <= "\u11a7" for unit in text),
        "final jamo": _which("\u11a8" <= unit <= "\u11ff" for unit in text),
    }
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


def rank(activations: np.ndarray, features: Mapping[str, np.ndarray]) -> list[Match]:
    """Each cell with the feature it follows best, the best cells first.

    The best feature is the one with the largest absolute correlation. A feature that is the same
    all over the text, or that fewer than `FEWEST` characters have or lack, is left out. The more
    features there are and the shorter the text, the larger the correlations of mere chance.

    Args:
      activations: [L, C].
      features: by name, [L] each.

    Returns:
      C matches by falling |r|, equals by cell. A cell that never changes comes last with r = 0.

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
    names = [name for name, values in features.items() if _tells(values)]
    if not names:
        return [Match(cell, "", 0.0) for cell in range(activations.shape[1])]
    wanted = _standard(np.stack([features[name] for name in names], axis=1).astype(np.float64))
    matches = []
    for start in range(0, activations.shape[1], AT_ONCE):
        cells = _standard(activations[:, start : start + AT_ONCE].astype(np.float64))
        r = np.clip(cells.T @ wanted, -1, 1)  # [cells, features]
        for cell, best in enumerate(np.abs(r).argmax(axis=1)):
            name = names[best] if r[cell, best] else ""
            matches.append(Match(start + cell, name, float(r[cell, best])))
    return sorted(matches, key=lambda match: (-abs(match.r), match.cell))


def _tells(values: np.ndarray) -> bool:
    """Whether a feature varies, over more than a few characters."""
    _, counts = np.unique(values, return_counts=True)
    return len(counts) > 1 and len(values) - counts.max() >= FEWEST


def _standard(columns: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and length 1, so that products are correlations; constant ones are 0."""
    varies = np.ptp(columns, axis=0) > 0
    columns = columns - columns.mean(axis=0, keepdims=True)
    size = np.sqrt(np.sum(columns**2, axis=0))
    varies &= size > 0
    return np.where(varies[None], columns / np.where(varies, size, 1)[None], 0.0)


def _which(values: Iterable[bool]) -> np.ndarray:
    return np.fromiter(values, bool)


def _since(ends: np.ndarray) -> np.ndarray:
    """[L] int: how many units stand between the last end, which is no part of it, and this one."""
    steps = np.arange(len(ends))
    starts = np.where(np.append(True, ends[:-1])[: len(ends)], steps, 0)
    return steps - np.maximum.accumulate(starts)


def _since_last(ends: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """[L] int: how many units were `counted` after the last one that ends, up to this one."""
    total = np.cumsum(counted)
    return total - np.maximum.accumulate(np.where(ends, total, 0))


def _in_word(text: list[str]) -> np.ndarray:
    """[L] int: 1, 2, ... in a run of letters and digits, with their marks and apostrophes."""
    position, positions = 0, []
    for unit in text:
        goes_on = position and (
            unit in ("'", "’") or unicodedata.category(unit[:1] or " ")[0] == "M"
        )
        position = position + 1 if unit.isalnum() or goes_on else 0
        positions.append(position)
    return np.array(positions, int)


def _indentation(spaces: np.ndarray, breaks: np.ndarray) -> np.ndarray:
    """[L] int: the units of white space that this line began with, as far as it was read."""
    words = _since_last(breaks, ~spaces)
    return _since_last(breaks, spaces & ~breaks & (words == 0))


def _speaker(text: list[str]) -> np.ndarray:
    """[L] bool: whether the unit's line, its break included, ends with a colon."""
    told: list[bool] = []
    line: list[str] = []
    for unit in [*text, "\n"]:
        line.append(unit)
        if unit == "\n":
            told += [line[-2:-1] == [":"]] * len(line)
            line = []
    return np.array(told[: len(text)], bool)


def _inside_quotes(text: list[str], blank: np.ndarray) -> np.ndarray:
    inside, told = False, []
    for unit, ends in zip(text, blank, strict=True):
        if unit == '"':
            inside = not inside
        elif unit in OPENING_QUOTES:
            inside = True
        elif ends or unit in CLOSING_QUOTES:
            inside = False
        told.append(inside)
    return np.array(told, bool)


def _depth(text: list[str]) -> np.ndarray:
    depth, told = 0, []
    for unit in text:
        depth = max(0, depth + (unit in OPENING) - (unit in CLOSING))
        told.append(depth)
    return np.array(told, int)
