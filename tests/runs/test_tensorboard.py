"""Event files, read back byte by byte: TFRecords with their checksums, and protocol buffers."""

import contextlib
import resource
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from jaxrnn.runs import tensorboard
from jaxrnn.runs.tensorboard import Events


def masked_crc(data):
    """CRC-32C bit by bit, and TensorFlow's mask (tsl/lib/hash/crc32c.h)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def read(path):
    """The events of a file whose every byte is in a whole record."""
    data, events = path.read_bytes(), []
    while data:
        (length,), (crc,) = struct.unpack("<Q", data[:8]), struct.unpack("<I", data[8:12])
        assert crc == masked_crc(data[:8])
        body, end = data[12 : 12 + length], 16 + length
        assert len(body) == length
        assert struct.unpack("<I", data[12 + length : end]) == (masked_crc(body),)
        events.append(event_pb2.Event.FromString(body))  # pyright: ignore[reportAttributeAccessIssue]
        data = data[end:]
    return events


def curves(events):
    """What was written: tag -> [(step, wall time, value)]."""
    found = {}
    for event in events:
        for value in event.summary.value:
            found.setdefault(value.tag, []).append(
                (event.step, event.wall_time, value.simple_value)
            )
    return found


def only_file(folder) -> Path:
    (path,) = folder.iterdir()
    return path


def test_checksum_of_the_standard():
    # RFC 3720, B.4: 32 bytes of zeros have CRC-32C 8A9136AA.
    rotated = (masked_crc(bytes(32)) - 0xA282EAD8) & 0xFFFFFFFF
    assert ((rotated << 15) | (rotated >> 17)) & 0xFFFFFFFF == 0x8A9136AA


def test_one_seed_is_written_as_it_is(tmp_path):
    steps, times = np.array([0, 10, 25]), np.array([1e9, 1e9 + 0.5, 1e9 + 7])
    metrics = {
        "loss": np.array([[0.5, np.nan, 0.25]], np.float32),
        "accuracy": np.array([[1, 2, np.inf]]),
        "by_position": np.zeros((1, 3, 4)),
    }
    with Events(tmp_path / "new" / "tensorboard", 0) as events:
        events.add(steps, metrics, times)
    path = only_file(tmp_path / "new" / "tensorboard")
    assert path.name.startswith("events.out.tfevents.1")
    assert path.name.endswith("." + socket.gethostname())
    written = curves(read(path))
    assert written.keys() == {"loss", "accuracy"}
    for name, rows in written.items():
        expected = np.stack([steps, times, metrics[name][0]], axis=1)
        np.testing.assert_array_equal(np.array(rows), expected)


def test_several_seeds_are_written_as_quartiles_of_the_finite_ones(tmp_path):
    loss = np.random.default_rng(0).gamma(2.0, size=(7, 4))
    loss[2, 1:] = np.nan
    loss[:, 3] = np.inf
    with Events(tmp_path, 5) as events:
        events.add([5, 6, 7, 8], {"loss": loss}, [1.0, 2.0, 3.0, 4.0])
    written = curves(read(only_file(tmp_path)))
    assert written.keys() == {"loss/first quartile", "loss/median", "loss/third quartile"}
    for part, percent in (("first quartile", 25), ("median", 50), ("third quartile", 75)):
        steps, times, values = np.array(written[f"loss/{part}"]).T
        expected = np.nanpercentile(loss[:, :3], percent, axis=0)
        np.testing.assert_allclose(values, [*expected, np.nan], rtol=1e-6)
        np.testing.assert_array_equal(steps, [5, 6, 7, 8])
        np.testing.assert_array_equal(times, [1, 2, 3, 4])


def test_events_can_be_read_before_the_file_is_closed(tmp_path):
    threads = threading.active_count()
    with Events(tmp_path, 0) as events:
        for step in range(3):
            events.add([step], {"loss": np.array([[1.0]])}, [0.0])
            assert len(curves(read(only_file(tmp_path)))["loss"]) == step + 1
            assert threading.active_count() == threads


def test_each_file_starts_a_session_and_sorts_last(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard.time, "time", lambda: 1_700_000_000.0)
    (tmp_path / "events.out.tfevents.profile-empty").touch()  # others put such files there, too
    for first_step in (0, 40, 20):
        with Events(tmp_path, first_step) as events:
            events.add([first_step], {"loss": np.array([[1.0]])}, [0.0])
    paths = sorted(tmp_path.glob("*tfevents.1*"))  # TensorBoard's order
    for path, first_step in zip(paths, (0, 40, 20), strict=True):
        version, start, *_ = read(path)
        assert version.file_version == "brain.Event:2"
        assert start.session_log.status == start.session_log.START
        assert start.step == first_step
        assert start.wall_time == 1.7e9


@contextlib.contextmanager
def full_disk(room):
    """No file may become longer than `room` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_clear_error(tmp_path):
    rows = [1.0] * 100
    with Events(tmp_path, 0) as events:
        events.add([0], {"loss": np.array([[1.0]])}, [0.0])
        before = read(only_file(tmp_path))
        with full_disk(300), pytest.raises(OSError, match="cannot write TensorBoard's events") as e:
            events.add(range(100), {"loss": np.array([rows])}, rows)
        assert e.value.filename == str(only_file(tmp_path))
        assert e.value.errno
    data = only_file(tmp_path).read_bytes()
    assert len(data) == 300
    assert data.startswith(b"".join(record(event) for event in before))


def record(event):
    body = event.SerializeToString()
    head = struct.pack("<Q", len(body))
    return head + struct.pack("<I", masked_crc(head)) + body + struct.pack("<I", masked_crc(body))


def test_a_file_that_cannot_be_created_is_one_clear_error(tmp_path):
    (tmp_path / "tensorboard").touch()
    with pytest.raises(OSError, match=r"cannot write TensorBoard's events: .*exists"):
        Events(tmp_path / "tensorboard", 0)
    with full_disk(10), pytest.raises(OSError, match="cannot write TensorBoard's events"):
        Events(tmp_path / "other", 0)


def test_other_threads_can_import_pytorch_meanwhile():
    """The finder hides it from one thread only, and `sys.modules` is never touched."""
    finder, found = tensorboard._NoTorch(), []
    with pytest.raises(ModuleNotFoundError):
        finder.find_spec("torch", None)
    assert finder.find_spec("numpy", None) is None
    other = threading.Thread(target=lambda: found.append(finder.find_spec("torch", None)))
    other.start()
    other.join()
    assert found == [None]


def test_pytorch_is_not_imported_with_it(tmp_path, environment):
    """A fake PyTorch prints when it is imported."""
    (tmp_path / "torch.py").write_text("print('imported')\nTensor = object\n")
    code = (
        "import sys\n"
        "from jaxrnn.runs.tensorboard import import_tensorboardx\n"
        "import_tensorboardx()\n"
        "print('torch' in sys.modules, 'tensorboardX' in sys.modules)\n"
        "import torch\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (result.stdout, result.stderr) == ("False True\nimported\n", "")
