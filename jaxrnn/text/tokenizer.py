"""What a language model reads and says one at a time: characters, bytes, or Korean jamo.

A text in units is a `str` whose characters are the units, so that a vocabulary is always a tuple of
one-character strings:

    characters   the text composed (Unicode NFC)
    bytes        each UTF-8 byte, as the Latin-1 character of that number
    jamo         the text composed, then every Hangul syllable taken apart: 한 is ᄒ, ᅡ, ᆫ

The arithmetic of syllables is that of the Unicode Standard, section 3.12, "Conjoining Jamo
Behavior".
"""

import codecs
import unicodedata

import numpy as np

from jaxrnn.errors import SettingError
from jaxrnn.text.characters import escape_unprintable, normalize

TOKENIZERS = ("characters", "bytes", "jamo")

LEADS, VOWELS, TAILS = 19, 21, 28  # of the jamo that make syllables; one of the tails is none
FIRST_LEAD, FIRST_VOWEL, NO_TAIL, FIRST_SYLLABLE = 0x1100, 0x1161, 0x11A7, 0xAC00


def check_tokenizer(units: str) -> None:
    """Refuse what is none of `TOKENIZERS`, with a SettingError."""
    if units not in TOKENIZERS:
        raise SettingError(f"units must be characters, bytes or jamo, not {units!r}")


def tokenize(text: str, units: str) -> str:
    r"""`text` in units.

    Raises:
      SettingError: if `units` is none of `TOKENIZERS`, or `text` holds bytes that are not UTF-8 (Python
        keeps them as lone surrogates).

    >>> tokenize("한é", "jamo") == "\u1112\u1161\u11abé", tokenize("é", "bytes")
    (True, 'Ã©')
    >>> [len(tokenize("한국", units)) for units in TOKENIZERS]
    [2, 6, 6]
    """
    check_tokenizer(units)
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise SettingError("the text is not valid UTF-8") from None
    if units == "bytes":
        return raw.decode("latin-1")
    composed = normalize(text)
    return composed if units == "characters" else from_codes(take_apart(to_codes(composed)))


def detokenize(units_text: str, units: str) -> str:
    r"""The text that a text in units stands for; undoes `tokenize`, except that it stays composed.

    Any units make a text. Bytes that are not UTF-8 become U+FFFD, one for each part that Unicode
    calls a maximal subpart. Jamo that make no syllable stay as they are.

    Raises:
      SettingError: if `units` is none of `TOKENIZERS`.

    >>> detokenize(tokenize("한국", "jamo"), "jamo"), detokenize("ab\xed\x95", "bytes")
    ('한국', 'ab�')
    """
    check_tokenizer(units)
    if units == "bytes":
        return units_text.encode("latin-1").decode(errors="replace")
    return unicodedata.normalize("NFC", units_text) if units == "jamo" else units_text


class Decoder:
    """`detokenize` for units that come one after another: says early what can no longer change.

    All that `feed` and `flush` return, joined, is `detokenize` of all that was fed, wherever it was
    cut.

    >>> decoder = Decoder("jamo")
    >>> [decoder.feed(unit) for unit in tokenize("한국", "jamo")], decoder.flush()
    (['', '', '', '한', '', ''], '국')
    """

    def __init__(self, units: str) -> None:
        """Start with nothing held back; a SettingError if `units` is none of `TOKENIZERS`."""
        check_tokenizer(units)
        self._units = units
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # jamo: what a unit that comes next could still compose with, or reorder

    def feed(self, units_text: str) -> str:
        """Take more units; return the text that is certain by now."""
        if self._units == "characters":
            return units_text
        if self._units == "bytes":
            return self._utf8.decode(units_text.encode("latin-1"))
        certain = []
        for unit in units_text:
            if _starts_afresh(unit, self._held):
                certain.append(unicodedata.normalize("NFC", self._held))
                self._held = ""
            self._held += unit
        return "".join(certain)

    def flush(self) -> str:
        """End the text: return what was held back. After that another may begin."""
        rest, self._held = unicodedata.normalize("NFC", self._held), ""
        return rest + self._utf8.decode(b"", final=True)


def shown(unit: str, units: str) -> str:
    r"""A printable name of one unit.

    Of a space it is ␣. A mark that goes on top of another character stands on a dotted circle.

    >>> [shown(unit, "characters") for unit in ("a", "\n", " ", "é")]
    ['a', '\\n', '␣', 'é']
    >>> [shown(unit, "bytes") for unit in ("a", "\n", "é")]
    ['a', '0x0A', '0xE9']
    """
    if unit == " ":
        return "␣"
    if units == "bytes" and not (unit.isascii() and unit.isprintable()):
        return f"0x{ord(unit):02X}"
    on_top = unicodedata.category(unit).startswith("M") and unit.isprintable()
    return f"\N{DOTTED CIRCLE}{unit}" if on_top else escape_unprintable(unit)


def to_codes(text: str) -> np.ndarray:
    """The code point of each character: [T] uint32."""
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


def from_codes(codes: np.ndarray) -> str:
    """The text of [T] code points; undoes `to_codes`."""
    return codes.astype("<u4").tobytes().decode("utf-32-le")


def take_apart(codes: np.ndarray) -> np.ndarray:
    """Put two or three jamo in the place of every Hangul syllable.

    Args:
      codes: [T] uint32, code points.

    Returns:
      as many uint32 or more: only syllables are taken apart, é and が stay.

    >>> [hex(code) for code in take_apart(to_codes("한가"))]
    ['0x1112', '0x1161', '0x11ab', '0x1100', '0x1161']
    """
    nth = codes - np.uint32(FIRST_SYLLABLE)  # wraps around below the first, so is then large
    syllable = nth < LEADS * VOWELS * TAILS
    if not syllable.any():
        return codes
    parts = np.empty((len(codes), 3), np.uint32)
    parts[:, 0] = np.where(syllable, FIRST_LEAD + nth // (VOWELS * TAILS), codes)
    parts[:, 1] = FIRST_VOWEL + nth // TAILS % VOWELS
    parts[:, 2] = NO_TAIL + nth % TAILS
    there = np.empty(parts.shape, bool)
    there[:, 0] = True
    there[:, 1] = syllable
    there[:, 2] = syllable & (parts[:, 2] != NO_TAIL)
    return parts[there]


def begins(codes: np.ndarray, units: str) -> np.ndarray:
    """Which units begin a character.

    Args:
      codes: [T] code points of a text in units: the first begins one, if it is not a byte from
        within a character.
      units: which.

    Returns:
      [T] bool, true at the first unit of each composed character.

    >>> begins(to_codes(tokenize("한 a", "jamo")), "jamo").tolist()
    [True, False, False, True, True]
    """
    if units == "bytes":
        return codes & 0xC0 != 0x80
    begins = np.ones(len(codes), bool)
    if units == "jamo":  # of a composed text, in which jamo that can make a syllable do make one
        lead = codes - np.uint32(FIRST_LEAD) < LEADS
        vowel = codes - np.uint32(FIRST_VOWEL) < VOWELS
        tail = codes - np.uint32(NO_TAIL + 1) < TAILS - 1
        open_syllable = lead[:-1] & vowel[1:]
        begins[1:] &= ~open_syllable
        begins[2:] &= ~(open_syllable[:-1] & tail[2:])
    return begins


def _starts_afresh(unit: str, before: str) -> bool:
    """Whether `before` is composed the same, whatever comes from `unit` on."""
    if unicodedata.combining(unicodedata.normalize("NFD", unit)[0]):
        return False  # a mark: what follows it may yet be put in front of it
    apart = unicodedata.normalize("NFC", before) + unicodedata.normalize("NFC", unit)
    return unicodedata.normalize("NFC", before + unit) == apart
