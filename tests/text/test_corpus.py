"""Text files as token ids, against a simple implementation with whole strings and a dict."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import unicodedata
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_tokenizer import any_case, texts, tokenize_slowly

from jaxrnn.cli import entry
from jaxrnn.errors import RunError, SettingError
from jaxrnn.text import corpus
from jaxrnn.text.corpus import Corpus, encode, read
from jaxrnn.text.tokenizer import TOKENIZERS, display_token

FRACTIONS = [(0.1, 0), (0.25, 0.25), (0, 0), (0.0, 0.7), (2 / 3, 0), (0.2, 0.1), (0.1, 0.8)]
"""Of the validation and the test part."""


def by_hand(raw: bytes, tokenizer: str, fractions: tuple[float, float]) -> Corpus:
    """What `read` should return for a file with these bytes."""
    text = raw.decode("latin-1")
    if tokenizer != "bytes":
        text = raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        text = unicodedata.normalize("NFC", text)
    train = 1 - fractions[0] - fractions[1]
    first, second = round(len(text) * train), round(len(text) * (train + fractions[0]))
    parts = [text[:first], text[first:second], text[second:]]
    counts = [len(part) for part in parts]
    if tokenizer == "bytes":
        counts = [sum(not 0x80 <= ord(byte) < 0xC0 for byte in part) for part in parts]
    if tokenizer == "jamo":
        parts = [tokenize_slowly(part, "jamo") for part in parts]
    vocabulary = tuple(sorted(set("".join(parts))))
    ids = {unit: i for i, unit in enumerate(vocabulary)}
    dtype = np.uint8 if len(ids) <= 2**8 else np.uint16 if len(ids) <= 2**16 else np.uint32
    first, second, third = (np.array([ids[unit] for unit in part], dtype) for part in parts)
    return Corpus(vocabulary, first, second, third, (counts[0], counts[1], counts[2]))


def assert_same(found: Corpus, wanted: Corpus) -> None:
    assert (found.vocabulary, found.characters) == (wanted.vocabulary, wanted.characters)
    for name in ("train", "validation", "test"):
        one, other = getattr(found, name), getattr(wanted, name)
        assert (name, one.dtype) == (name, other.dtype)
        np.testing.assert_array_equal(one, other, name)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("corpus") / "text.txt"


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(corpus, "PIECE", 5)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@any_case
@given(
    text=st.lists(texts | st.sampled_from(["\r\n", "\r", "\ufeff", "한글"])).map("".join),
    fractions=st.sampled_from(FRACTIONS),
    piece=st.integers(1, 9),
)
@example("\ufeffa\r\nb", (0.1, 0.0), 1)
@example("\r\n\rab\r", (0.1, 0.0), 1)
@example("ab\u1112\u1161\u11ab\u1112\u1161", (0.25, 0.25), 3)
def test_reading_in_pieces_equals_reading_at_once(file, tokenizer, text, fractions, piece):
    file.write_bytes(text.encode())
    wanted = by_hand(text.encode(), tokenizer, fractions)
    with mock.patch.object(corpus, "PIECE", piece):
        if len(wanted.vocabulary) > 1:
            assert_same(read(file, tokenizer, *fractions), wanted)
        else:
            with pytest.raises(RunError, match=r"is empty|only one distinct"):
                read(file, tokenizer, *fractions)


@any_case
@given(raw=st.binary(min_size=1), fractions=st.sampled_from(FRACTIONS), piece=st.integers(1, 9))
def test_any_bytes_are_read_and_the_first_invalid_utf8_byte_is_named(file, raw, fractions, piece):
    raw = b"ab" + raw
    file.write_bytes(raw)
    with mock.patch.object(corpus, "PIECE", piece):
        assert_same(read(file, "bytes", *fractions), by_hand(raw, "bytes", fractions))
        try:
            raw.decode()
        except UnicodeDecodeError as error:
            with pytest.raises(
                RunError, match=rf"offset {error.start} is 0x..; .*--tokenizer bytes"
            ):
                read(file, "characters", *fractions)
        else:
            assert_same(read(file, "characters", *fractions), by_hand(raw, "characters", fractions))


def test_the_offset_includes_a_byte_order_mark(file, small_pieces):
    file.write_bytes(b"\xef\xbb\xbfhello wor\xffld")
    with pytest.raises(RunError) as caught:
        read(file)
    assert str(caught.value) == (
        f"{file} is not UTF-8: the byte at offset 12 is 0xFF; --tokenizer bytes reads any file"
    )


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("size", [256, 257, 65536, 65537])
def test_ids_use_the_smallest_type(file, tokenizer, size):
    codes = [code for code in range(0x3400, 0x20000) if not 0xAC00 <= code < 0x10000][:size]
    file.write_bytes("".join(map(chr, codes[::-1])).encode())
    found = read(file, tokenizer)
    if tokenizer != "bytes":
        assert len(found.vocabulary) == size
    assert_same(found, by_hand(file.read_bytes(), tokenizer, (0.1, 0.0)))


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_ids_survive_widening(file, tokenizer, monkeypatch):
    monkeypatch.setattr(corpus, "PIECE", 100)
    text = "한글 abc\n" * 99 + "".join(map(chr, range(0x4E00, 0x4E00 + 400))) + "한글 " * 99
    file.write_bytes(text.encode())
    assert_same(read(file, tokenizer, 0.3, 0.2), by_hand(text.encode(), tokenizer, (0.3, 0.2)))


def test_decomposed_and_composed_files_are_equal(tmp_path, small_pieces):
    text = "한국어 텍스트é\n각하ᅟ" * 9
    one, other = tmp_path / "nfc", tmp_path / "nfd"
    one.write_text(unicodedata.normalize("NFC", text), "utf-8")
    other.write_text(unicodedata.normalize("NFD", text), "utf-8")
    assert one.stat().st_size < other.stat().st_size
    for tokenizer in ("characters", "jamo"):
        assert_same(read(one, tokenizer), read(other, tokenizer))


def test_characters_and_jamo_are_split_at_the_same_place(file):
    text = "밖에 한국어 each 값 " * 7
    file.write_bytes(text.encode())
    whole, apart = (read(file, tokenizer, 0.41, 0.22) for tokenizer in ("characters", "jamo"))
    assert whole.characters == apart.characters
    for name in ("train", "validation", "test"):
        texts = [
            "".join(found.vocabulary[i] for i in getattr(found, name)) for found in (whole, apart)
        ]
        assert texts[0] == unicodedata.normalize("NFC", texts[1]) != texts[1]


def test_split_characters_never_compose_with_the_previous_one():
    """By all compositions that `unicodedata` knows of."""
    every = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    seconds = {chr(code) for code in [*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]}
    for character in every:
        pair = unicodedata.decomposition(character).split()
        canonical = len(pair) == 2 and not pair[0].startswith("<")
        if canonical and unicodedata.is_normalized("NFC", character):
            seconds.add(chr(int(pair[1], 16)))
    for character in every:
        if corpus.SEPARATE[character.encode()[0]]:
            first = unicodedata.normalize("NFD", character)[0]
            if unicodedata.combining(first) or first in seconds:
                pytest.fail(f"{character!r} may compose with what is before it")


def test_a_given_vocabulary_sets_the_ids(file, small_pieces):
    file.write_text("abba\ncab", "utf-8")
    vocabulary = ("z", "\n", "c", "b", "a", *map(chr, range(0x4E00, 0x4E00 + 300)))
    found = read(file, val_fraction=0.25, test_fraction=0.25, vocabulary=vocabulary)
    assert found.vocabulary == vocabulary
    assert found.train.dtype == np.uint16
    assert [part.tolist() for part in found[1:4]] == [[4, 3, 3, 4], [1, 2], [4, 3]]
    file.write_text("aaa", "utf-8")
    assert read(file, vocabulary=vocabulary).train.tolist() == [4, 4, 4]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_unknown_tokens_are_named(file, tokenizer, small_pieces):
    file.write_text("ab\x00 xyz", "utf-8")
    with pytest.raises(
        RunError, match=re.escape(f"{tokenizer} outside the vocabulary: ")
    ) as caught:
        read(file, tokenizer, vocabulary=("a", "b"))
    assert str(caught.value).endswith(f": {display_token(chr(0), tokenizer)} ␣ x y z")
    with pytest.raises(SettingError, match=r"not in the vocabulary: z y x$"):
        encode("abzyxz", tokenizer, ("a", "b"))
    with pytest.raises(SettingError, match=r": c d e f g h i j k l and 4 more$"):
        encode("abcdefghijklmnopo", tokenizer, ("a", "b"))


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_encode_gives_the_ids_of_read(file, tokenizer):
    text = "한국 e\u0301\r\n abc\rd"
    file.write_bytes(text.encode())
    found = read(file, tokenizer, 0)
    ids = encode(text, tokenizer, found.vocabulary)
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, found.train)


@contextlib.contextmanager
def at_once():
    """Fail if the body takes longer than 5 s."""

    def stop(number, frame):
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", ["directory", "fifo", "link to a fifo", "socket", "device"])
def test_special_files_raise_without_waiting(tmp_path, kind):
    path = tmp_path / "it"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as endpoint, at_once():
        if kind == "directory":
            path.mkdir()
        elif kind == "socket":
            endpoint.bind(os.path.relpath(path))
        elif kind == "device":
            path.symlink_to("/dev/zero")
        else:
            os.mkfifo(tmp_path / "fifo")
            path.symlink_to("fifo")
            path = path if kind.startswith("link") else tmp_path / "fifo"
        with pytest.raises(RunError, match=f"^{re.escape(str(path))} is not a regular file$"):
            read(path)


def test_a_link_to_a_file_is_followed(file, tmp_path):
    file.write_text("ab")
    (tmp_path / "link").symlink_to(file)
    assert_same(read(tmp_path / "link"), read(file))


@pytest.mark.parametrize(
    ("raw", "tokenizer", "message"),
    [
        (b"", "characters", "is empty"),
        (b"", "bytes", "is empty"),
        (b"\xef\xbb\xbf", "jamo", "is empty"),
        (b"\xef\xbb\xbfaaa", "characters", "has only one distinct character, a, so"),
        (b"\r\n\r\n", "characters", r"has only one distinct character, ↵, so"),
        (b"\n", "bytes", "has only one distinct byte, 0x0A, so"),
    ],
)
def test_a_file_with_nothing_to_learn_raises(file, raw, tokenizer, message):
    file.write_bytes(raw)
    with pytest.raises(RunError, match=message):
        read(file, tokenizer)


def test_missing_and_unreadable_files_give_one_line(file, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop, entry.exit_cleanly():
        read(tmp_path / "none.txt")
    assert stop.value.code == 2
    expected = f"error: No such file or directory: {tmp_path / 'none.txt'}\n"
    assert capsys.readouterr().err == expected
    file.write_text("ab")
    denied = PermissionError(13, "Permission denied", str(file))  # the tests may run as root
    with (
        mock.patch.object(type(file), "open", side_effect=denied),
        pytest.raises(SystemExit),
        entry.exit_cleanly(),
    ):
        read(file)
    assert capsys.readouterr().err == f"error: Permission denied: {file}\n"


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ((1.0, 0.0), "val fraction must be from 0 to less than 1, not 1.0"),
        ((-0.1, 0.0), "val fraction must be from 0 to less than 1, not -0.1"),
        ((float("nan"), 0.0), "val fraction must be from 0 to less than 1, not nan"),
        ((0.1, 1.5), "test fraction must be from 0 to less than 1, not 1.5"),
        ((0.1, float("nan")), "test fraction must be from 0 to less than 1, not nan"),
        ((0.5, 0.5), "0.5 and 0.5, leave nothing to train on"),
    ],
)
def test_invalid_fractions_raise(file, fractions, message):
    file.write_text("ab")
    with pytest.raises(SettingError, match=message):
        read(file, "characters", *fractions)


def test_unknown_tokenizers_raise(file):
    with pytest.raises(SettingError, match="not 'words'"):
        read(file, "words")


PEAK = """
import sys
from pathlib import Path
from jaxrnn.text import corpus

def peak():  # not ru_maxrss, which starts at that of the parent process
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

before = peak()
corpus.read(Path(sys.argv[1]), sys.argv[2])
print(peak() - before)
"""

LINES = "The quick brown fox\n" * 400000
LARGE = {
    "an emoji among ASCII": f"{LINES}😀{LINES}",
    "Korean without spaces": "한국어글" * 1300000,
    "no place to cut": "ひらがな" * 1300000,
}


@pytest.mark.sampled(4)
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("kind", LARGE)
def test_reading_takes_at_most_six_times_the_file_size(tmp_path, kind, tokenizer):
    """Less for larger files: about 30 MB of it is for the pieces of any file."""
    path = tmp_path / "large.txt"
    path.write_text(LARGE[kind], "utf-8")
    command = [sys.executable, "-c", PEAK, str(path), tokenizer]
    taken = int(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    assert path.stat().st_size > 15e6
    assert taken < 6 * path.stat().st_size
