"""Tokenizers: characters, bytes or Korean jamo.

Tokens are kept as a `str` of one character per token, so that a vocabulary is always a tuple of
one-character strings:

    characters   the text, composed (Unicode NFC)
    bytes        each UTF-8 byte, as the Latin-1 character with that number
    jamo         the text, composed, then every Hangul syllable decomposed: 한 is ᄒ, ᅡ, ᆫ

Source: The Unicode Standard, section 3.12, "Conjoining Jamo Behavior".
"""

import codecs
import unicodedata

import numpy as np

from jaxrnn.choices import check_choice
from jaxrnn.errors import SettingError
from jaxrnn.text.characters import display, normalize

TOKENIZERS = ("characters", "bytes", "jamo")

LEADS, VOWELS, TAILS = 19, 21, 28  # the jamo that form syllables; tail 0 means no tail
FIRST_LEAD, FIRST_VOWEL, NO_TAIL, FIRST_SYLLABLE = 0x1100, 0x1161, 0x11A7, 0xAC00


def check_tokenizer(tokenizer: str) -> None:
    """Raise SettingError unless `tokenizer` is one of `TOKENIZERS`."""
    check_choice("tokenizer", tokenizer, TOKENIZERS)


def tokenize(text: str, tokenizer: str) -> str:
    r"""Split a text into tokens.

    For characters and jamo, CR LF and lone CR become LF.

    Args:
      text: any text.
      tokenizer: one of `TOKENIZERS`.

    Returns:
      a string with one character per token.

    Raises:
      SettingError: if there is no such tokenizer, or `text` holds bytes that are not UTF-8 (Python
        keeps them as lone surrogates).

    >>> tokenize("한é", "jamo") == "\u1112\u1161\u11abé", tokenize("é", "bytes")
    (True, 'Ã©')
    >>> [len(tokenize("한국", tokenizer)) for tokenizer in TOKENIZERS]
    [2, 6, 6]
    """
    check_tokenizer(tokenizer)
    if tokenizer == "bytes":
        try:
            return text.encode().decode("latin-1")
        except UnicodeEncodeError:
            raise SettingError("the text is not valid UTF-8") from None
    composed = normalize(normalize_newlines(text))
    if tokenizer == "characters":
        return composed
    return from_codes(decompose_syllables(to_codes(composed)))


def detokenize(tokens: str, tokenizer: str) -> str:
    r"""Join tokens to a text: the inverse of `tokenize`, but the result is composed (NFC).

    Any tokens give a text. Bytes that are not UTF-8 become U+FFFD, one for each maximal subpart as
    Unicode defines it. Jamo that form no syllable are kept.

    Raises:
      SettingError: if there is no such tokenizer.

    >>> detokenize(tokenize("한국", "jamo"), "jamo"), detokenize("ab\xed\x95", "bytes")
    ('한국', 'ab�')
    """
    check_tokenizer(tokenizer)
    if tokenizer == "bytes":
        return tokens.encode("latin-1").decode(errors="replace")
    return unicodedata.normalize("NFC", tokens) if tokenizer == "jamo" else tokens


class Decoder:
    """`detokenize` for a stream: returns text as soon as later tokens cannot change it.

    The results of `feed` and `flush`, joined, equal `detokenize` of all tokens, however they were
    split.

    >>> decoder = Decoder("jamo")
    >>> [decoder.feed(token) for token in tokenize("한국", "jamo")], decoder.flush()
    (['', '', '', '한', '', ''], '국')
    """

    def __init__(self, tokenizer: str) -> None:
        """Raise SettingError if there is no such tokenizer."""
        check_tokenizer(tokenizer)
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # jamo that the next token could still compose with or reorder

    def feed(self, tokens: str) -> str:
        """Add tokens; return the text that is now final."""
        if self._tokenizer == "characters":
            return tokens
        if self._tokenizer == "bytes":
            return self._utf8.decode(tokens.encode("latin-1"))
        final = []
        for token in tokens:
            if _starts_new_text(token, self._held):
                final.append(unicodedata.normalize("NFC", self._held))
                self._held = ""
            self._held += token
        return "".join(final)

    def flush(self) -> str:
        """End the text: return what was held back and reset the decoder."""
        rest, self._held = unicodedata.normalize("NFC", self._held), ""
        return rest + self._utf8.decode(b"", final=True)


def display_token(token: str, tokenizer: str = "characters") -> str:
    r"""A printable name of one token.

    It is a byte's number if that is not printable ASCII; otherwise see `characters.display`.

    >>> [display_token(token) for token in ("a", "\n", " ", "é")]
    ['a', '↵', '␣', 'é']
    >>> [display_token(token, "bytes") for token in ("a", "\n", "é")]
    ['a', '0x0A', '0xE9']
    """
    if tokenizer == "bytes" and not (token.isascii() and token.isprintable()):
        return f"0x{ord(token):02X}"
    return display(token)


def normalize_newlines(text: str) -> str:
    """Replace CR LF and lone CR by LF."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def to_codes(text: str) -> np.ndarray:
    """The code point of each character: [T] uint32."""
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


def from_codes(codes: np.ndarray) -> str:
    """The text of [T] code points: the inverse of `to_codes`."""
    return codes.astype("<u4").tobytes().decode("utf-32-le")


def decompose_syllables(codes: np.ndarray) -> np.ndarray:
    """Replace every Hangul syllable by its two or three jamo.

    Args:
      codes: [T] uint32 code points.

    Returns:
      [T'] uint32, T' >= T. Only syllables are decomposed; é and が are kept.

    >>> [hex(code) for code in decompose_syllables(to_codes("한가"))]
    ['0x1112', '0x1161', '0x11ab', '0x1100', '0x1161']
    """
    nth = codes - np.uint32(FIRST_SYLLABLE)  # wraps around below the first, so is large there
    syllable = nth < LEADS * VOWELS * TAILS
    if not syllable.any():
        return codes
    parts = np.empty((len(codes), 3), np.uint32)
    parts[:, 0] = np.where(syllable, FIRST_LEAD + nth // (VOWELS * TAILS), codes)
    parts[:, 1] = FIRST_VOWEL + nth // TAILS % VOWELS
    parts[:, 2] = NO_TAIL + nth % TAILS
    used = np.empty(parts.shape, bool)
    used[:, 0] = True
    used[:, 1] = syllable
    used[:, 2] = syllable & (parts[:, 2] != NO_TAIL)
    return parts[used]


def starts_character(codes: np.ndarray, tokenizer: str) -> np.ndarray:
    """Which tokens are the first of a composed character.

    Args:
      codes: [T] code points of tokens. The first one starts a character unless it is a UTF-8
        continuation byte.
      tokenizer: one of `TOKENIZERS`.

    Returns:
      [T] bool.

    >>> starts_character(to_codes(tokenize("한 a", "jamo")), "jamo").tolist()
    [True, False, False, True, True]
    """
    if tokenizer == "bytes":
        return codes & 0xC0 != 0x80
    starts = np.ones(len(codes), bool)
    if tokenizer == "jamo":  # in composed text, jamo that can form a syllable do form one
        lead = codes - np.uint32(FIRST_LEAD) < LEADS
        vowel = codes - np.uint32(FIRST_VOWEL) < VOWELS
        tail = codes - np.uint32(NO_TAIL + 1) < TAILS - 1
        open_syllable = lead[:-1] & vowel[1:]
        starts[1:] &= ~open_syllable
        starts[2:] &= ~(open_syllable[:-1] & tail[2:])
    return starts


def _starts_new_text(token: str, before: str) -> bool:
    """Whether `before` is composed the same, no matter what comes from `token` on."""
    if unicodedata.combining(unicodedata.normalize("NFD", token)[0]):
        return False  # a mark: a later mark may be sorted before it
    apart = unicodedata.normalize("NFC", before) + unicodedata.normalize("NFC", token)
    return unicodedata.normalize("NFC", before + token) == apart
