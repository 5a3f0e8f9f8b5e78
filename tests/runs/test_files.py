"""JSON files whole or not there, whatever comes between; and fingerprints."""

import errno
import hashlib
import json
import os
import threading
from pathlib import Path

import pytest

from jaxrnn.errors import RunError
from jaxrnn.runs.files import read_json, require_decodable, sha256_of, write_json

VALUE = {"text": "안녕\n", "numbers": [1, 0.1, None, True], "name": "no text: \udcff", "nested": {}}


def test_written_values_are_read_back(tmp_path):
    write_json(tmp_path / "a.json", VALUE)
    assert read_json(tmp_path / "a.json") == VALUE
    assert "안녕" in (tmp_path / "a.json").read_text("utf-8"), "a person should be able to read it"
    write_json(tmp_path / "a.json", [2])
    assert read_json(tmp_path / "a.json") == [2]
    assert list(tmp_path.iterdir()) == [tmp_path / "a.json"]


def fail(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("place", ["os.fsync", "pathlib.Path.replace"])
def test_a_failing_disk_leaves_the_old_file(monkeypatch, tmp_path, place):
    write_json(tmp_path / "a.json", VALUE)
    monkeypatch.setattr(place, fail)
    with pytest.raises(OSError, match="No space left"):
        write_json(tmp_path / "a.json", [2])
    assert read_json(tmp_path / "a.json") == VALUE
    assert list(tmp_path.iterdir()) == [tmp_path / "a.json"]


def test_a_missing_folder_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_json(tmp_path / "none" / "a.json", VALUE)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, {"a": b""}], ids=str)
def test_values_that_json_lacks_leave_the_old_file(tmp_path, value):
    write_json(tmp_path / "a.json", VALUE)
    with pytest.raises((TypeError, ValueError)):
        write_json(tmp_path / "a.json", {"value": value})
    assert read_json(tmp_path / "a.json") == VALUE
    assert list(tmp_path.iterdir()) == [tmp_path / "a.json"]


def test_readers_see_the_old_or_the_new_file(tmp_path):
    path = tmp_path / "a.json"
    large = [[n] * 20_000 for n in range(10)]
    write_json(path, large[0])

    def write():
        for value in large:
            write_json(path, value)

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while writer.is_alive():
        assert read_json(path) in large
        reads += 1
    writer.join()
    assert reads > 1
    assert read_json(path) == large[-1]


@pytest.mark.parametrize(
    "contents",
    [b"", b'{"a": 1', b'{"a": 1}}', b"{'a': 1}", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000],
    ids=lambda contents: contents[:8],
)
def test_damaged_json_is_one_line_that_names_the_file(tmp_path, contents):
    path = tmp_path / "two\nlines.json"
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=r"two\\nlines\.json is damaged") as caught:
        read_json(path)
    assert type(caught.value) is ValueError
    assert str(caught.value).isprintable()


def test_a_missing_file_is_an_os_error(tmp_path):
    for read in (read_json, sha256_of):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none")


@pytest.mark.parametrize("contents", [b"", b"abc", os.urandom(3_000_001)], ids=len)
def test_sha256(tmp_path, contents):
    (tmp_path / "file").write_bytes(contents)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(contents).hexdigest()


def test_sha256_of_the_published_example(tmp_path):
    (tmp_path / "abc").write_text("abc")
    digest = sha256_of(tmp_path / "abc")
    assert digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert json.loads(json.dumps(digest)) == digest


def test_paths_that_python_could_not_decode_are_refused():
    require_decodable(Path("안녕"))
    undecoded = "안녕".encode().decode("ascii", "surrogateescape")  # as an ASCII locale has it
    with pytest.raises(RunError, match="cannot be used in this locale: set PYTHONUTF8=1"):
        require_decodable(Path(undecoded) / "run")
    with pytest.raises(RunError, match="is not valid UTF-8"):
        require_decodable(Path(os.fsdecode(b"bad\xff")))
