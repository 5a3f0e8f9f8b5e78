"""A text file as numbers, in three parts: what a character language model learns from.

The file is read once, a piece at a time, and never stands in memory as one `str`: of a file of 100
MB that would be up to 400 MB. Units get numbers in the order in which they turn up, and are
renumbered in the order of the vocabulary at the end, in place.
"""

import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from jaxrnn.errors import RunError, SettingError
from jaxrnn.text.tokenizer import (
    begins,
    check_tokenizer,
    from_codes,
    shown,
    take_apart,
    to_codes,
    tokenize,
)

PIECE = 2**20  # bytes read at a time; what it is makes no difference to the result
BOM = b"\xef\xbb\xbf"
CODE_POINTS = 0x110000
MOST_NAMED = 10  # units outside a vocabulary, by name; of more only the count


class Corpus(NamedTuple):
    """The numbers of a text's units, in three parts that follow each other in the text."""

    vocabulary: tuple[str, ...]  # [V] the unit of each number; in the order of their code points
    train: np.ndarray  # [T] uint8, uint16 or uint32: the smallest that holds V-1
    validation: np.ndarray  # [T] likewise, of the part that follows; may be empty, as the next may
    test: np.ndarray  # [T] likewise, of the rest
    characters: tuple[int, int, int]  # composed characters that begin in each part


def read(
    path: Path,
    units: str = "characters",
    val_fraction: float = 0.1,
    test_fraction: float = 0.0,
    vocabulary: tuple[str, ...] | None = None,
) -> Corpus:
    """Read a text file.

    As characters or jamo it must be UTF-8. It is composed (NFC), CR LF and lone CR become LF, and a
    byte order mark at the start is dropped; NUL and other control characters are characters as any.
    As bytes all of it is kept as it is.

    The parts are cut at the same character for characters and for jamo, so that both see the same
    held-out text; for bytes at a byte, which may lie within a character. To compare losses of
    different units, count them per character, by `Corpus.characters`. Parts of a short file may be
    empty.

    Args:
      path: the file.
      units: characters, bytes or jamo.
      splits: the share of the training part, and of the validation part; the rest is the test part.
      vocabulary: that of a run, to number the units by; without one it is that of the file.

    Raises:
      SettingError: if `units` or `splits` are out of range.
      RunError: if the path is that of no regular file, such as a directory or a FIFO (it is not
        opened then), or the file is empty, is not UTF-8, or has units outside the given vocabulary;
        without one, also if it has only one distinct unit.
      OSError: if the file cannot be read.
    """
    check_tokenizer(units)
    check_fractions(val_fraction, test_fraction)
    path = Path(path)
    appeared, ids, ends = _numbered(path, units)
    if not len(ids):
        raise RunError(f"{path} is empty, so there is nothing to learn from")
    found = tuple(from_codes(np.sort(appeared)))
    if vocabulary is None:
        vocabulary = found
        if len(found) == 1:
            only = f"only one distinct {units.removesuffix('s')}, {shown(found[0], units)}"
            raise RunError(f"{path} has {only}, so there is nothing to learn from")
    if missing := sorted(set(found).difference(vocabulary)):
        raise RunError(f"{path} has {units} outside the vocabulary: {_named(missing, units)}")

    codes = to_codes("".join(vocabulary))  # [V]
    place = np.zeros(CODE_POINTS, _smallest(len(codes)))
    place[codes] = np.arange(len(codes), dtype=place.dtype)
    ids = _renumbered(ids, place[appeared])

    train_fraction = 1 - val_fraction - test_fraction
    shares = train_fraction, train_fraction + val_fraction
    units_at, characters_at = zip(
        *(_cut(share, ids, codes, ends, units) for share in shares), strict=True
    )
    train, validation, test = np.split(ids, units_at)
    first, second = characters_at
    characters = first, second - first, int(ends[-1, 1]) - second
    return Corpus(vocabulary, train, validation, test, characters)


def encode(text: str, units: str, vocabulary: tuple[str, ...]) -> np.ndarray:
    r"""The number of each unit of a text, such as what a model is to go on from.

    CR LF and lone CR become LF for characters and jamo, as they do in `read`.

    Args:
      text: any.
      units: characters, bytes or jamo.
      vocabulary: [V] units.

    Returns:
      [T] of the smallest unsigned type that holds V-1.

    Raises:
      SettingError: if units of the text are not in the vocabulary (they are named), if the text is
        not valid UTF-8, or `units` is none there is.

    >>> encode("hello\r\n", "characters", ("\n", "e", "h", "l", "o"))
    array([2, 1, 3, 3, 4, 0], dtype=uint8)
    """
    return number(in_units(text, units), units, vocabulary)


def in_units(text: str, units: str) -> str:
    """A text in units, as `read` would have it of a file; a SettingError as `units.tokenize`."""
    return tokenize(text if units == "bytes" else _line_feeds(text), units)


def number(units_text: str, units: str, vocabulary: tuple[str, ...]) -> np.ndarray:
    """As `encode`, of a text that is in units already, such as bytes that are no text."""
    place = {unit: i for i, unit in enumerate(vocabulary)}
    missing = [unit for unit in dict.fromkeys(units_text) if unit not in place]
    if missing:
        raise SettingError(f"not in the vocabulary: {_named(missing, units)}")
    return np.array([place[unit] for unit in units_text], _smallest(len(vocabulary)))


def check_fractions(val_fraction: float, test_fraction: float) -> None:
    """Refuse fractions that are negative or leave nothing to train on, with a SettingError."""
    for name, fraction in (("val", val_fraction), ("test", test_fraction)):
        if not isinstance(fraction, int | float) or not 0 <= fraction < 1:
            raise SettingError(f"{name} fraction must be from 0 to less than 1, not {fraction!r}")
    if not val_fraction + test_fraction < 1:
        raise SettingError(
            f"val fraction and test fraction, {val_fraction} and {test_fraction}, leave nothing to"
            " train on"
        )


def _named(missing: list[str], units: str) -> str:
    names = [shown(unit, units) for unit in missing[:MOST_NAMED]]
    more = len(missing) - len(names)
    return " ".join(names) + (f" and {more} more" if more else "")


def _smallest(size: int) -> np.dtype:
    """The smallest unsigned type for numbers 0..size-1."""
    return np.min_scalar_type(max(size - 1, 0))


def _numbered(path: Path, units: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number the units of a file in the order in which they turn up.

    Returns:
      [V] uint32, the code points of the units, in that order;
      [T] of an unsigned type, the number of each unit of the text;
      [P+1, 2] int, how many units, and how many characters, there are up to the end of each piece
        that was read; the first row is 0, 0.
    """
    number = np.full(CODE_POINTS, CODE_POINTS, np.uint32)  # of a unit; CODE_POINTS if it is new
    appeared = np.zeros(0, np.uint32)
    ids, dtype = bytearray(), _smallest(0)
    ends = [(0, 0)]
    for codes in _pieces(path, units):
        piece = number[codes]
        new = np.unique(codes[piece == CODE_POINTS])
        if len(new):
            number[new] = np.arange(len(appeared), len(appeared) + len(new))
            appeared = np.append(appeared, new.astype(np.uint32))
            piece = number[codes]
        if dtype != _smallest(len(appeared)):
            ids, dtype = _widened(ids, dtype, _smallest(len(appeared))), _smallest(len(appeared))
        ids += piece.astype(dtype).data
        ends.append((len(codes), int(np.count_nonzero(begins(codes, units)))))
    return appeared, np.frombuffer(ids, dtype), np.cumsum(ends, axis=0)


def _widened(ids: bytearray, dtype: np.dtype, wider: np.dtype) -> bytearray:
    narrow = np.frombuffer(ids, dtype)
    wide = bytearray(narrow.size * wider.itemsize)
    np.frombuffer(wide, wider)[:] = narrow
    return wide


def _renumbered(ids: np.ndarray, number: np.ndarray) -> np.ndarray:
    """`number[ids]`, put in the place of `ids` if it is of the same type."""
    result = ids if ids.dtype == number.dtype else np.empty(ids.shape, number.dtype)
    for start in range(0, len(ids), PIECE):
        result[start : start + PIECE] = number[ids[start : start + PIECE]]
    return result


def _cut(
    share: float, ids: np.ndarray, vocabulary: np.ndarray, ends: np.ndarray, units: str
) -> tuple[int, int]:
    """Where a share of the text ends: so many units, and so many characters, come before it."""
    count = 0 if units == "bytes" else 1  # the column of `ends` that the share is a share of
    wanted = round(float(share) * int(ends[-1, count]))
    piece = min(int(np.searchsorted(ends[:, count], wanted, side="right")), len(ends) - 1) - 1
    start, stop = ends[piece : piece + 2, 0]
    before = wanted - ends[piece, count]  # how many of them are within the piece
    first = begins(vocabulary[ids[start:stop]], units)
    if units == "bytes":
        return wanted, int(ends[piece, 1] + np.count_nonzero(first[:before]))
    places = np.append(np.flatnonzero(first), stop - start)
    return int(start + places[before]), wanted


def _pieces(path: Path, units: str) -> Iterator[np.ndarray]:
    """The code points of a file's units, a piece of the file at a time: [T] uint8 or uint32."""
    if not stat.S_ISREG(path.stat().st_mode):  # to open a FIFO would wait for someone to write
        raise RunError(f"{path} is no regular file")
    with path.open("rb") as file:
        if units == "bytes":
            while piece := file.read(PIECE):
                yield np.frombuffer(piece, np.uint8)
            return
        for text in _texts(file, path):
            codes = to_codes(text)
            yield take_apart(codes) if units == "jamo" else codes


def _texts(file: BinaryIO, path: Path) -> Iterator[str]:
    """A file's text, composed, a piece at a time, each composed as it would be in the whole."""
    place = len(BOM) if file.read(len(BOM)) == BOM else 0
    file.seek(place)
    for piece in _separable(file):
        try:
            text = piece.decode()
        except UnicodeDecodeError as error:
            raise RunError(
                f"{path} is not UTF-8: the byte at offset {place + error.start} is"
                f" 0x{piece[error.start]:02X}; with --units bytes any file can be read"
            ) from None
        place += len(piece)
        text = _line_feeds(text)
        text = text if text.isascii() else unicodedata.normalize("NFC", text)
        for start in range(0, len(text), PIECE):  # more than once if there was no place to cut
            yield text[start : start + PIECE]


SEPARATE = np.zeros(256, bool)
"""[256] of the first byte of a character in UTF-8: whether it never composes with what is before.

True of ASCII, of U+4000..U+9FFF (Han), and of U+B000..U+CFFF (Hangul syllables): text that is
written without spaces can be cut too.
"""
SEPARATE[:0x80] = SEPARATE[0xE4:0xEA] = SEPARATE[0xEB:0xED] = True


def _separable(file: BinaryIO) -> Iterator[bytearray]:
    """The rest of a file, cut so that each piece can be decoded and composed by itself.

    If there is no place to cut, a piece is longer.
    """
    held = bytearray()
    while read := file.read(PIECE):
        codes = np.frombuffer(read, np.uint8)
        may_cut = SEPARATE[codes]
        after_return = np.append(held.endswith(b"\r"), codes[:-1] == ord("\r"))
        may_cut[after_return & (codes == ord("\n"))] = False
        places = np.flatnonzero(may_cut)
        if not len(places):
            held += read
            continue
        held += read[: places[-1]]
        yield held
        held = bytearray(read[places[-1] :])
    yield held


def _line_feeds(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
