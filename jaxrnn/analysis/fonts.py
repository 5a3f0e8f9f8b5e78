"""Fonts for plots: which installed ones can draw a text, and labels where none can."""

import contextlib
import re
from collections.abc import Iterable
from functools import cache

from matplotlib import font_manager

from jaxrnn.text.characters import display

BASE = "DejaVu Sans"
"""The font that Matplotlib includes; it has Latin, Greek and Cyrillic, but no Hangul or Han."""

# Fonts that draw placeholder boxes or color bitmaps.
_UNUSABLE = re.compile("Last ?Resort|Emoji")


def families(text: str) -> list[str]:
    """Choose font families that together draw as much of `text` as possible on this machine.

    Returns:
      `BASE`, then families with characters that it lacks.
    """
    chosen, wanted = [BASE], set(text) - _glyphs(font_manager.findfont(BASE))
    fonts = _installed() if wanted else {}
    for name in sorted(fonts):
        found = wanted & _glyphs(fonts[name])
        if found:
            chosen.append(name)
            wanted -= found
    return chosen


def undrawable(text: str) -> set[str]:
    """Return the characters of `text` that no installed font has."""
    drawable = set[str]().union(*(_glyphs(font_manager.findfont(name)) for name in families(text)))
    return {character for character in text if character.isprintable()} - drawable


def labels(characters: Iterable[str]) -> list[str]:
    r"""Return a label for each character: see `characters.display`; its escape if no font has it.

    >>> labels("h \n")
    ['h', '␣', '↵']
    """
    shown = [(character, display(character)) for character in characters]
    hidden = undrawable("".join(label for _, label in shown))
    return [
        character.encode("unicode_escape").decode() if hidden.intersection(label) else label
        for character, label in shown
    ]


def _installed() -> dict[str, str]:
    """Return the fonts of this machine, family name -> file, including newly installed ones."""
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in set(font_manager.findSystemFonts()) - known:
        with contextlib.suppress(OSError, RuntimeError):  # not a font that Matplotlib can read
            font_manager.fontManager.addfont(path)
    fonts = {entry.name: entry.fname for entry in font_manager.fontManager.ttflist}
    return {name: path for name, path in fonts.items() if not _UNUSABLE.search(name)}


@cache
def _glyphs(path: str) -> frozenset[str]:
    """Return the characters of a font file; none if Matplotlib cannot read it."""
    try:
        return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()
