"""Text files as token ids, split into a training, a validation and a test part.

The file is read once, in pieces, and is never in memory as one `str`: 100 MB of text would take up
to 400 MB. Tokens get ids in order of appearance, which are replaced at the end, in place, by their
indices in the sorted vocabulary.
"""

import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from jaxrnn.errors import RunError, SettingError
from jaxrnn.text.tokenizer import (
    check_tokenizer,
    decompose_syllables,
    display_token,
    from_codes,
    normalize_newlines,
    starts_character,
    to_codes,
    tokenize,
)

PIECE = 2**20  # bytes read at a time; the result does not depend on it
BOM = b"\xef\xbb\xbf"
CODE_POINTS = 0x110000
MAX_NAMED = 10  # list at most this many unknown tokens in an error


class Corpus(NamedTuple):
    """Token ids of a text, in three consecutive parts; the last two may be empty."""

    vocabulary: tuple[str, ...]  # [V] tokens, sorted by code point
    train: np.ndarray  # [N] uint8, uint16 or uint32: the smallest that holds V-1
    validation: np.ndarray  # [M] of the same type
    test: np.ndarray  # [L] of the same type
    characters: tuple[int, int, int]  # how many composed characters start in each part


def read(
    path: Path,
    tokenizer: str = "characters",
    val_fraction: float = 0.1,
    test_fraction: float = 0.0,
    vocabulary: tuple[str, ...] | None = None,
) -> Corpus:
    """Read a text file as token ids.

    Characters and jamo need UTF-8. The text is composed (NFC), CR LF and lone CR become LF, and a
    leading byte order mark is dropped; NUL and other control characters are kept. With the
    tokenizer "bytes", the file is used unchanged.

    Characters and jamo are split at the same character, so that both have the same validation text;
    bytes are split at a byte, which may be inside a character. To compare losses of different
    tokenizers, divide by `Corpus.characters`. Parts of a short file may be empty.

    Args:
      path: the file.
      tokenizer: "characters", "bytes" or "jamo".
      val_fraction: the fraction of the text in the validation part, which follows the training
        part.
      test_fraction: the fraction in the test part, at the end.
      vocabulary: use these ids instead of building a vocabulary from the file.

    Raises:
      SettingError: if the tokenizer or a fraction is invalid.
      RunError: if the path is not a regular file (a directory, FIFO, ...; it is not opened then),
        or the file is empty, not UTF-8, or has tokens outside a given vocabulary; without one, if
        all its tokens are the same.
      OSError: if the file cannot be read.
    """
    check_tokenizer(tokenizer)
    check_fractions(val_fraction, test_fraction)
    path = Path(path)
    appeared, ids, ends = _read_ids(path, tokenizer)
    if not len(ids):
        raise RunError(f"{path} is empty, so there is nothing to learn")
    found = tuple(from_codes(np.sort(appeared)))
    if vocabulary is None:
        vocabulary = found
        if len(found) == 1:
            token, name = tokenizer.removesuffix("s"), display_token(found[0], tokenizer)
            raise RunError(
                f"{path} has only one distinct {token}, {name}, so there is nothing to learn"
            )
    if missing := sorted(set(found).difference(vocabulary)):
        raise RunError(
            f"{path} has {tokenizer} outside the vocabulary: {_name_tokens(missing, tokenizer)}"
        )

    codes = to_codes("".join(vocabulary))  # [V]
    new_ids = np.zeros(CODE_POINTS, _smallest_type(len(codes)))
    new_ids[codes] = np.arange(len(codes), dtype=new_ids.dtype)
    ids = _replace_ids(ids, new_ids[appeared])

    train_fraction = 1 - val_fraction - test_fraction
    shares = train_fraction, train_fraction + val_fraction
    splits, characters_at = zip(
        *(_split_at(share, ids, codes, ends, tokenizer) for share in shares), strict=True
    )
    train, validation, test = np.split(ids, splits)
    first, second = characters_at
    characters = first, second - first, int(ends[-1, 1]) - second
    return Corpus(vocabulary, train, validation, test, characters)


def encode(text: str, tokenizer: str, vocabulary: tuple[str, ...]) -> np.ndarray:
    r"""The token ids of a text, such as a prompt.

    Args:
      text: any text; newlines are normalized as in `read`.
      tokenizer: "characters", "bytes" or "jamo".
      vocabulary: [V] tokens.

    Returns:
      [T] int32.

    Raises:
      SettingError: naming the tokens that are not in the vocabulary; or if the text is not valid
        UTF-8, or there is no such tokenizer.

    >>> encode("hello\r\n", "characters", ("\n", "e", "h", "l", "o"))
    array([2, 1, 3, 3, 4, 0], dtype=int32)
    """
    return encode_tokens(tokenize(text, tokenizer), tokenizer, vocabulary)


def encode_tokens(tokens: str, tokenizer: str, vocabulary: tuple[str, ...]) -> np.ndarray:
    """`encode` for text that is already tokenized, such as bytes that are not UTF-8."""
    index = {token: i for i, token in enumerate(vocabulary)}
    missing = [token for token in dict.fromkeys(tokens) if token not in index]
    if missing:
        raise SettingError(f"not in the vocabulary: {_name_tokens(missing, tokenizer)}")
    return np.array([index[token] for token in tokens], np.int32)


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


def _name_tokens(missing: list[str], tokenizer: str) -> str:
    names = [display_token(token, tokenizer) for token in missing[:MAX_NAMED]]
    more = len(missing) - len(names)
    return " ".join(names) + (f" and {more} more" if more else "")


def _smallest_type(size: int) -> np.dtype:
    """The smallest unsigned type for 0..size-1."""
    return np.min_scalar_type(max(size - 1, 0))


def _read_ids(path: Path, tokenizer: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read a file, giving tokens ids in order of appearance.

    Returns:
      [V] uint32, the code point of each id;
      [T] of an unsigned type, the ids of the text;
      [P+1, 2] int, how many tokens and how many characters come before each of P pieces of the
        file, and in the last row the totals.
    """
    id_of = np.full(CODE_POINTS, CODE_POINTS, np.uint32)  # CODE_POINTS: not seen yet
    appeared = np.zeros(0, np.uint32)
    ids, dtype = bytearray(), _smallest_type(0)
    ends = [(0, 0)]
    for codes in _pieces(path, tokenizer):
        piece = id_of[codes]
        new = np.unique(codes[piece == CODE_POINTS])
        if len(new):
            id_of[new] = np.arange(len(appeared), len(appeared) + len(new))
            appeared = np.append(appeared, new.astype(np.uint32))
            piece = id_of[codes]
        if dtype != _smallest_type(len(appeared)):
            ids, dtype = (
                _widen(ids, dtype, _smallest_type(len(appeared))),
                _smallest_type(len(appeared)),
            )
        ids += piece.astype(dtype).data
        ends.append((len(codes), int(np.count_nonzero(starts_character(codes, tokenizer)))))
    return appeared, np.frombuffer(ids, dtype), np.cumsum(ends, axis=0)


def _widen(ids: bytearray, dtype: np.dtype, wider: np.dtype) -> bytearray:
    narrow = np.frombuffer(ids, dtype)
    wide = bytearray(narrow.size * wider.itemsize)
    np.frombuffer(wide, wider)[:] = narrow
    return wide


def _replace_ids(ids: np.ndarray, new: np.ndarray) -> np.ndarray:
    """`new[ids]`, in place if the type is the same."""
    result = ids if ids.dtype == new.dtype else np.empty(ids.shape, new.dtype)
    for start in range(0, len(ids), PIECE):
        result[start : start + PIECE] = new[ids[start : start + PIECE]]
    return result


def _split_at(
    share: float, ids: np.ndarray, vocabulary: np.ndarray, ends: np.ndarray, tokenizer: str
) -> tuple[int, int]:
    """Where a fraction of the text ends, as a number of tokens and of characters."""
    count = 0 if tokenizer == "bytes" else 1  # split bytes by bytes, others by characters
    wanted = round(float(share) * int(ends[-1, count]))
    piece = min(int(np.searchsorted(ends[:, count], wanted, side="right")), len(ends) - 1) - 1
    start, stop = ends[piece : piece + 2, 0]
    before = wanted - ends[piece, count]  # of those, how many are in this piece
    first = starts_character(vocabulary[ids[start:stop]], tokenizer)
    if tokenizer == "bytes":
        return wanted, int(ends[piece, 1] + np.count_nonzero(first[:before]))
    places = np.append(np.flatnonzero(first), stop - start)
    return int(start + places[before]), wanted


def _pieces(path: Path, tokenizer: str) -> Iterator[np.ndarray]:
    """The code points of a file's tokens, piece by piece: [T] uint8 or uint32."""
    if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would wait for a writer
        raise RunError(f"{path} is not a regular file")
    with path.open("rb") as file:
        if tokenizer == "bytes":
            while piece := file.read(PIECE):
                yield np.frombuffer(piece, np.uint8)
            return
        for text in _texts(file, path):
            codes = to_codes(text)
            yield decompose_syllables(codes) if tokenizer == "jamo" else codes


def _texts(file: BinaryIO, path: Path) -> Iterator[str]:
    """A file's text, piece by piece, composed just as the whole text would be."""
    place = len(BOM) if file.read(len(BOM)) == BOM else 0
    file.seek(place)
    for piece in _independent_pieces(file):
        try:
            text = piece.decode()
        except UnicodeDecodeError as error:
            raise RunError(
                f"{path} is not UTF-8: the byte at offset {place + error.start} is"
                f" 0x{piece[error.start]:02X}; --tokenizer bytes reads any file"
            ) from None
        place += len(piece)
        text = normalize_newlines(text)
        text = text if text.isascii() else unicodedata.normalize("NFC", text)
        for start in range(0, len(text), PIECE):  # several if there was no place to split
            yield text[start : start + PIECE]


SEPARATE = np.zeros(256, bool)
"""[256] bool by first byte of a UTF-8 character: whether it never composes with the one before it.

True for ASCII, U+4000..U+9FFF (Han) and U+B000..U+CFFF (Hangul syllables), so that text written
without spaces can be split too.
"""
SEPARATE[:0x80] = SEPARATE[0xE4:0xEA] = SEPARATE[0xEB:0xED] = True


def _independent_pieces(file: BinaryIO) -> Iterator[bytearray]:
    """The rest of a file, in pieces that can be decoded and composed independently.

    A piece is longer where the text has no place to split.
    """
    held = bytearray()
    while read := file.read(PIECE):
        codes = np.frombuffer(read, np.uint8)
        may_split = SEPARATE[codes]
        after_return = np.append(held.endswith(b"\r"), codes[:-1] == ord("\r"))
        may_split[after_return & (codes == ord("\n"))] = False
        places = np.flatnonzero(may_split)
        if not len(places):
            held += read
            continue
        held += read[: places[-1]]
        yield held
        held = bytearray(read[places[-1] :])
    yield held
