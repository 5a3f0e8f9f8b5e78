"""Characters to ids and back: pure functions on strings and NumPy arrays."""

import contextlib
import unicodedata

import numpy as np

from jaxrnn.errors import SettingError


def normalize(text: str) -> str:
    r"""Compose `text` (Unicode NFC), so that 한 is always one character.

    Bytes that Python could not decode, as in a command line under an ASCII locale, are decoded.

    Raises:
      SettingError: if they are not UTF-8.

    >>> len("\u1112\u1161\u11ab"), len(normalize("\u1112\u1161\u11ab"))
    (3, 1)
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        try:
            text = text.encode("utf-8", "surrogateescape").decode("utf-8")
        except UnicodeError:
            raise SettingError("the text is not valid UTF-8") from None
    return unicodedata.normalize("NFC", text)


def vocabulary(text: str) -> tuple[str, ...]:
    """The characters of `text`, each once, in order of first appearance.

    >>> vocabulary("hihello")
    ('h', 'i', 'e', 'l', 'o')
    """
    return tuple(dict.fromkeys(text))


def encode(text: str, characters: tuple[str, ...]) -> np.ndarray:
    """The id of each character of `text`: its index in a vocabulary.

    Returns:
      [T] int32.

    Raises:
      SettingError: naming the characters that are not in the vocabulary.

    >>> encode("hello", vocabulary("hihello"))
    array([0, 2, 3, 3, 4], dtype=int32)
    """
    index = {character: i for i, character in enumerate(characters)}
    missing = [character for character in dict.fromkeys(text) if character not in index]
    if missing:
        raise SettingError(f"not in the vocabulary: {', '.join(map(repr, missing))}")
    return np.array([index[character] for character in text], np.int32)


def decode(ids: np.ndarray, characters: tuple[str, ...]) -> str:
    """The text of a row of ids: the inverse of `encode`.

    Args:
      ids: [T] int, each in 0..V-1.
      characters: the vocabulary, [V].

    >>> decode(np.array([1, 0, 2, 3, 3, 4]), vocabulary("hihello"))
    'ihello'
    """
    return "".join(characters[i] for i in ids)


def display(character: str) -> str:
    r"""Return a printable form of one character, for labels, pages and messages.

    Spaces and control characters have symbols, and a combining mark stands on a dotted circle.

    >>> [display(character) for character in ("a", "\n", " ", "\x00", "\u0301", "\u2028")]
    ['a', '↵', '␣', '␀', '◌́', '\\u2028']
    """
    symbols = {" ": "␣", "\n": "↵", "\t": "⇥", "\x7f": "␡"}
    if character in symbols:
        return symbols[character]
    if character < " ":
        return chr(0x2400 + ord(character))
    if unicodedata.category(character)[0] == "M":
        return "\N{DOTTED CIRCLE}" + character
    return escape_unprintable(character)


def escape_unprintable(text: str) -> str:
    r"""Replace unprintable characters by their escapes, so that the text fits on one line.

    Bytes that Python could not decode, as in a path under an ASCII locale, are decoded if they are
    UTF-8.

    >>> escape_unprintable("no\nline"), escape_unprintable("\udced\udc95\udc9c.txt")
    ('no\\nline', '한.txt')
    """
    with contextlib.suppress(UnicodeEncodeError):  # other lone surrogates
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
