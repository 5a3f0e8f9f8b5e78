"""Letters for pictures: which installed fonts can draw a text, and what to show where none can."""

import contextlib
import re
from collections.abc import Iterable
from functools import cache

from matplotlib import font_manager

BASE = "DejaVu Sans"
"""The font that Matplotlib brings along; it has Latin, Greek, Cyrillic, but no Hangul or Han."""

# Fonts that claim a character without drawing it legibly: placeholder boxes, bitmap colours.
_UNUSABLE = re.compile("Last ?Resort|Emoji")


def families(text: str) -> list[str]:
    """Font families that together can draw as much of `text` as this machine can.

    Returns:
      `BASE` first, then others that add to it.
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
    """The characters of `text` that no installed font has."""
    drawable = set[str]().union(*(_glyphs(font_manager.findfont(name)) for name in families(text)))
    return {character for character in text if character.isprintable()} - drawable


def labels(characters: Iterable[str]) -> list[str]:
    r"""Each character as it can be shown in a picture or on a line.

    >>> labels("h \n")
    ['h', '␣', 'U+000A']
    """
    characters = list(characters)
    hidden = undrawable("".join(characters))
    return [
        "␣" if c == " " else f"U+{ord(c):04X}" if c in hidden or not c.isprintable() else c
        for c in characters
    ]


def _installed() -> dict[str, str]:
    """The fonts of this machine, family name -> file, those installed only just now included."""
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in set(font_manager.findSystemFonts()) - known:
        with contextlib.suppress(OSError, RuntimeError):  # not a font that Matplotlib can read
            font_manager.fontManager.addfont(path)
    fonts = {entry.name: entry.fname for entry in font_manager.fontManager.ttflist}
    return {name: path for name, path in fonts.items() if not _UNUSABLE.search(name)}


@cache
def _glyphs(path: str) -> frozenset[str]:
    """The characters that a font file has; none if Matplotlib cannot read it."""
    try:
        return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()
