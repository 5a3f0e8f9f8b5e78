"""Checkpoints: the same bits back, whatever breaks off, fills up or rots in between."""

import itertools
import logging
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from jaxrnn.errors import RunError
from jaxrnn.runs import checkpoints, checksums, pytree_io
from jaxrnn.runs.checkpoints import CheckpointError
from jaxrnn.training.step import TrainState

POSITION = {"next_step": 50, "text": "안녕", "parts": [0.1, None]}


class Memory(NamedTuple):
    cell: Any
    hidden: Any


def bits(array):
    array = np.asarray(array)
    return array.dtype, array.shape, array.tobytes()


def assert_same_bits(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    for (path, a), b in zip(jax.tree.leaves_with_path(tree), jax.tree.leaves(other), strict=True):
        assert bits(a) == bits(b), jax.tree_util.keystr(path)


def state_of(step):
    """A small state that is another at each step."""
    return {"weights": np.arange(300, dtype=np.float32) + step, "step": np.int32(step)}


def contents(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with the checkpoints of steps 40 and 50; to be copied."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    for step in (40, 50):
        checkpoints.save(folder, step, state_of(step), {"at": step})
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A folder with the checkpoints of steps 40 and 50; to be broken."""
    return Path(shutil.copytree(saved, tmp_path / "checkpoints"))


def rich_state():
    payloads = np.array([0x7FC12345, 0xFFC00001, 0x7F800001, 0x80000000, 1], np.uint32)
    params = {
        "a.b": jnp.arange(6.0).reshape(2, 3),
        "a": {"b": jnp.arange(3), "/": jnp.array([True, False])},
        "not numbers": jnp.asarray(payloads.view(np.float32)),
        "minus zero": jnp.full((3, 2), -0.0),
        "half": jnp.array([-0.0, 1.5, jnp.inf], jnp.bfloat16),
        "empty": jnp.zeros((0, 3), jnp.int32),
    }
    optimizer = optax.chain(optax.clip(1.0), optax.adam(optax.cosine_decay_schedule(0.1, 9)))
    carry = (Memory(jnp.ones((2, 2)), None), [jnp.uint32(2**32 - 1), np.int64(2**40)], None)
    others = np.array([2.0**-1074, -1e308]), np.ones((2, 3, 4), np.float16).T
    return params, optimizer.init(params), carry, jnp.int32(7), jnp.array(True), others


def test_a_restored_state_has_the_same_bits(tmp_path):
    state = rich_state()
    path = checkpoints.save(tmp_path / "new" / "checkpoints", 50, state, POSITION)
    assert path == tmp_path / "new/checkpoints/00000050"
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
    for tree in (like, state):
        restored = checkpoints.restore(path.parent, tree)
        assert restored is not None
        assert_same_bits(restored.state, state)
        assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(restored.state))
        assert restored[2:] == (POSITION, path, [])
        assert restored.step == 50


def test_arrays_are_restored_to_the_requested_devices(tmp_path):
    checkpoints.save(tmp_path, 1, state_of(1), {})
    device = jax.sharding.SingleDeviceSharding(jax.devices()[-1])
    like = {
        "weights": jax.ShapeDtypeStruct((300,), jnp.float32, sharding=device),
        "step": jax.device_put(jnp.int32(0), device),
    }
    restored = checkpoints.restore(tmp_path, like)
    assert restored is not None
    assert_same_bits(restored.state, state_of(1))
    for leaf in jax.tree.leaves(restored.state):
        assert leaf.sharding == device and leaf.committed


def test_orbax_alone_restores_the_nested_tree(tmp_path):
    """Fields by name and items of tuples by number, as an Orbax user expects."""
    optimizer = optax.adam(0.1)
    params = {"cell": {"kernel": jnp.arange(6.0).reshape(2, 3)}, "readout": {"bias": jnp.ones(3)}}
    state = TrainState(jnp.int32(7), params, optimizer.init(params))
    path = checkpoints.save(tmp_path / "checkpoints", 7, state, {})
    found = ocp.StandardCheckpointer().restore((path / "state").absolute())
    assert sorted(found) == ["opt_state", "params", "step"]
    chex.assert_trees_all_equal(found["params"], params)
    assert int(found["step"]) == 7
    chex.assert_trees_all_equal(found["opt_state"]["0"]["mu"], jax.tree.map(jnp.zeros_like, params))


def test_a_restored_state_needs_no_new_compilation(tmp_path, caplog):
    state = jax.tree.map(jnp.asarray, state_of(1))
    double = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 2, tree), donate_argnums=0)
    checkpoints.save(tmp_path, 1, state, {})
    restored = checkpoints.restore(tmp_path, state)
    assert restored is not None
    twice = double(state)
    with jax.log_compiles():
        assert_same_bits(double(restored.state), twice)
        assert not any("Compiling" in message for message in caplog.messages)
        double(jax.device_put(state_of(1), jax.devices()[0]))  # tied to a device
        assert any("Compiling" in message for message in caplog.messages)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum")
def test_sha256sum_agrees(folder):
    checkpoint = folder / "00000050"
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(command, cwd=checkpoint, check=False).returncode == 0
    lines = (checkpoint / "SHA256SUMS").read_text().splitlines()[1:]
    names = [line[66:] for line in lines]
    assert names == sorted(names)
    files = {str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file()}
    assert {*names, "SHA256SUMS"} == files
    (checkpoint / "position.json").write_text("{}")
    result = subprocess.run(command, cwd=checkpoint, capture_output=True, check=False)
    assert result.returncode == 1


def test_the_newest_are_kept(tmp_path):
    for step in (9, 10, 100, 123456789):
        checkpoints.save(tmp_path, step, state_of(step), {})
    assert contents(tmp_path) == ["00000100", "123456789"]
    assert checkpoints.steps(tmp_path) == [100, 123456789]
    checkpoints.save(tmp_path, 50, state_of(50), {}, keep=1)
    assert checkpoints.steps(tmp_path) == [50, 100, 123456789], "a later one was removed"
    checkpoints.save(tmp_path, 123456790, state_of(1), {}, keep=3)
    assert checkpoints.steps(tmp_path) == [100, 123456789, 123456790]
    with pytest.raises(ValueError, match="keep must be at least 1, not 0"):
        checkpoints.save(tmp_path, 1, state_of(1), {}, keep=0)


def test_damaged_checkpoints_do_not_count_as_kept(folder):
    (folder / "00000045").mkdir()
    cut(folder / "00000050/position.json")
    checkpoints.save(folder, 60, state_of(60), {})
    assert contents(folder) == ["00000040", "00000060"]


def test_a_step_saved_again_is_replaced(folder):
    for number, value in enumerate((51, 52), 2):
        path = checkpoints.save(folder, 50, state_of(value), {"at": value})
        assert contents(folder) == ["00000040", f"00000050.{number}"]
        restored = checkpoints.restore(folder, state_of(0))
        assert restored is not None
        assert (restored.step, restored.path, restored.position) == (50, path, {"at": value})
        assert_same_bits(restored.state, state_of(value))
    assert checkpoints.steps(folder) == [40, 50]


def test_no_checkpoint_at_all(tmp_path):
    assert checkpoints.restore(tmp_path, state_of(0)) is None
    assert checkpoints.restore(tmp_path / "missing", state_of(0)) is None
    assert checkpoints.steps(tmp_path / "missing") == []
    (tmp_path / ".00000050.0123abcd.partial").mkdir()
    assert checkpoints.restore(tmp_path, state_of(0)) is None
    assert checkpoints.steps(tmp_path) == []


def test_other_files_are_left_alone(folder, tmp_path):
    (folder / "00000060").symlink_to(folder / "00000040")
    (folder / "00000070").touch()
    (folder / ".00000050.0123abcd.partial").symlink_to(tmp_path)
    for name in ("notes", "50", "000000050", ".00000050.mine", ".mine.partial"):
        (folder / name).mkdir()
    before = contents(folder)
    restored = checkpoints.restore(folder, state_of(0))
    assert restored is not None and restored.step == 50
    assert checkpoints.steps(folder) == [40, 50]
    assert checkpoints.save(folder, 60, state_of(60), {}) == folder / "00000060.2"
    assert checkpoints.save(folder, 70, state_of(70), {}) == folder / "00000070.2"
    gone, new = {"00000040", "00000050"}, {"00000060.2", "00000070.2"}
    assert contents(folder) == sorted({*before, *new} - gone)


def flip(path):
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    path.write_bytes(damaged)


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def cut_last(path):
    os.truncate(path, path.stat().st_size - 1)


CHANGED = "contents have changed since it was saved (SHA-256 differs)"
DAMAGES = {
    flip: f"{{}}: {CHANGED}",
    cut: f"{{}}: {CHANGED}",
    cut_last: f"{{}}: {CHANGED}",
    Path.unlink: "{} is missing",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_restore_falls_back_to_the_checkpoint_before_a_damaged_one(folder, damage):
    newest = folder / "00000050"
    files = [path for path in newest.rglob("*") if path.is_file()]
    assert len(files) > 5
    for file in files:
        whole = file.read_bytes()
        damage(file)
        restored = checkpoints.restore(folder, state_of(0))
        assert restored is not None
        assert restored.step == 40 and restored.position == {"at": 40}
        assert_same_bits(restored.state, state_of(40))
        reason = DAMAGES[damage].format(file)
        if damage is Path.unlink and file.name == "SHA256SUMS":
            reason = f"{newest} has no SHA256SUMS"
        assert restored.damaged == [(newest, reason)]
        file.write_bytes(whole)
    assert checksums.damage(newest) is None


def test_every_change_to_the_checksum_file_is_noticed(folder):
    sums = folder / "00000050/SHA256SUMS"
    whole = sums.read_bytes()
    lines = whole.splitlines(keepends=True)
    shorter = [b"".join(lines[:-n]) for n in range(1, len(lines))]
    flipped = [whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :] for n in range(0, len(whole), 7)]
    for damaged in shorter + flipped:
        sums.write_bytes(damaged)
        assert checksums.damage(sums.parent)


def test_files_without_a_checksum_are_ignored(folder):
    (folder / "00000050/.DS_Store").touch()
    restored = checkpoints.restore(folder, state_of(0))
    assert restored is not None and restored.step == 50


def test_all_checkpoints_damaged_is_a_one_line_error(folder):
    (folder / "00000040/SHA256SUMS").unlink()
    cut(folder / "00000050/position.json")
    with pytest.raises(CheckpointError) as error:
        checkpoints.restore(folder, state_of(0))
    assert str(error.value) == (
        f"all checkpoints are damaged: {folder}/00000050/position.json: {CHANGED};"
        f" {folder}/00000040 has no SHA256SUMS; start again in a new directory"
    )


def test_a_damaged_checkpoint_is_replaced_when_its_step_is_saved_again(folder):
    cut(folder / "00000050/position.json")
    checkpoints.save(folder, 45, state_of(45), {})
    assert contents(folder) == ["00000040", "00000045", "00000050"]
    checkpoints.save(folder, 50, state_of(50), {})
    assert contents(folder) == ["00000045", "00000050.2"]


WEIGHTS, STEP = jax.ShapeDtypeStruct((300,), np.float32), jax.ShapeDtypeStruct((), np.int32)
MISFITS = {
    "weights is float32[300] in the checkpoint and float32[299] in this run": {
        "weights": jax.ShapeDtypeStruct((299,), np.float32),
        "step": STEP,
    },
    "step is int32[] in the checkpoint and int16[] in this run": {
        "weights": WEIGHTS,
        "step": np.int16(0),
    },
    "step is int32[] in the checkpoint and missing in this run": {"weights": WEIGHTS},
    "more is missing in the checkpoint and int32[] in this run": {
        "weights": WEIGHTS,
        "step": STEP,
        "more": STEP,
        "empty": np.zeros(0),
    },
    "step is int32[] in the checkpoint and int32[0] in this run": {
        "weights": WEIGHTS,
        "step": np.zeros(0, np.int32),
    },
}


@pytest.mark.parametrize("message", MISFITS)
def test_another_model_is_refused(folder, message):
    with pytest.raises(RunError) as error:
        checkpoints.restore(folder, MISFITS[message])
    where = f"{folder}/00000050/state belongs to another model, optimizer or batch"
    assert str(error.value) == f"{where}: {message}"


BAD = [
    ({"a": "text"}, {}, TypeError, r"a must be an array of numbers, not 'text'"),
    ({"a": 1.0}, {}, TypeError, r"a must be an array of numbers, not 1.0"),
    (jax.random.key(0), {}, TypeError, "state must be an array of numbers"),
    (state_of(1), {"at": {1}}, TypeError, "set is not JSON serializable"),
    (state_of(1), {"at": np.nan}, ValueError, "not JSON compliant"),
]


@pytest.mark.parametrize("state, position, kind, message", BAD)
def test_invalid_arguments_are_not_reported_as_disk_errors(folder, state, position, kind, message):
    before = contents(folder)
    with pytest.raises(kind, match=message):
        checkpoints.save(folder, 60, state, position)
    assert contents(folder) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), ValueError("a defect")])
def test_other_errors_pass_through(folder, monkeypatch, error):
    def fail(_):
        raise error

    before = contents(folder)
    monkeypatch.setattr(checksums, "seal", fail)
    with pytest.raises(type(error)) as raised:
        checkpoints.save(folder, 60, state_of(60), {})
    assert raised.value is error
    assert contents(folder) == before


def test_all_files_are_synced_before_the_final_rename(folder, monkeypatch):
    synced, at_rename = set(), []
    fsync, rename = os.fsync, os.rename

    def record_fsync(descriptor):
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def record_rename(source, target):
        at_rename.append((synced.copy(), Path(target)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "rename", record_rename)
    path = checkpoints.save(folder, 60, state_of(60), {})
    before = next(inodes for inodes, target in at_rename if target == path)
    for inside in (path, *path.rglob("*")):
        assert inside.stat().st_ino in before, inside
    assert folder.stat().st_ino in synced - before


# What a child process does, and how it ends. The server imports once; each child is a fork of it.

CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(["jaxrnn.runs.checkpoints", "orbax.checkpoint", "optax", "pytest"])
FILE_EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")


def save_until_killed(folder, events, number):
    """Save step 50 anew, but be killed just before the number-th of these events."""
    happened = itertools.count(1)

    def watch(event, arguments):
        ours = event in events and (event != "open" or str(folder) in str(arguments[0]))
        if ours and next(happened) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    checkpoints.save(folder, 50, state_of(51), {"at": 51}, keep=1)


def child(target, *arguments):
    """Run a function in a child process; returns its exit code."""
    process = CHILDREN.Process(target=target, args=arguments)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.sampled(2)
@pytest.mark.parametrize("events, first, stride", [(["os.rename"], 2, 1), (FILE_EVENTS, 1, 17)])
def test_a_kill_leaves_the_old_or_the_new_checkpoint(saved, tmp_path, events, first, stride):
    found = []
    for number in itertools.count(first, stride):
        folder = Path(shutil.copytree(saved, tmp_path / str(number)))
        ended = child(save_until_killed, folder, events, number)
        restored = checkpoints.restore(folder, state_of(0))
        assert restored is not None and restored.step == 50 and restored.damaged == []
        assert not any(map(checksums.damage, folder.glob("[0-9]*")))
        found.append(restored.position["at"])
        assert_same_bits(restored.state, state_of(found[-1]))
        checkpoints.save(folder, 60, state_of(60), {})
        assert checkpoints.steps(folder) == [50, 60]
        assert len(contents(folder)) == 2, "leftovers were not cleared"
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
    assert found == sorted(found) and found.count(50) > 1 and found.count(51) > 1


def save_limited(folder, limit, position, said):
    """Save step 60 where no file may be larger than the limit; what is said goes to a file."""
    with said.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    state = jax.tree.map(jnp.asarray, {**state_of(60), **{str(n): state_of(n) for n in range(9)}})
    unlimited = resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited))
    try:
        checkpoints.save(folder, 60, state, position)
    except CheckpointError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
        said.with_suffix(".error").write_text(str(error))
        assert error.__cause__ is not None


@pytest.mark.parametrize(
    "limit, position", [(0, {}), (150, {}), (1000, {}), (60_000, {"long": "x" * 60_000})]
)
def test_a_file_that_cannot_grow_is_one_clear_line(folder, tmp_path, limit, position):
    said = tmp_path / "said"
    assert child(save_limited, folder, limit, position, said) == 0
    assert said.with_suffix(".error").read_text() == (
        f"cannot save a checkpoint in {folder}: File too large;"
        " the checkpoint of step 50 is still good"
    )
    assert said.read_text() == ""
    assert contents(folder) == ["00000040", "00000050"]
    assert all(checksums.damage(path) is None for path in folder.iterdir())


def test_a_folder_that_cannot_be_created(tmp_path):
    (tmp_path / "file").touch()
    for name, why in {"file": "File exists", "file/sub": "Not a directory"}.items():
        with pytest.raises(CheckpointError) as error:
            checkpoints.save(tmp_path / name, 60, state_of(60), {})
        assert str(error.value) == (
            f"cannot save a checkpoint in {tmp_path / name}: {why}; there is no earlier checkpoint"
        )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(folder):
    folder.chmod(0o500)
    with pytest.raises(CheckpointError, match="Permission denied; the checkpoint of step 50 is"):
        checkpoints.save(folder, 60, state_of(60), {})
    folder.chmod(0o700)


FULL_DISK = """
import subprocess, sys
from pathlib import Path
import numpy as np
from jaxrnn.runs import checkpoints

folder, tree = Path(sys.argv[1]), lambda size: {str(n): np.random.rand(size) for n in range(9)}
checkpoints.save(folder, 40, tree(10), {})
for size in (20_000, 3000, 1000):
    try:
        checkpoints.save(folder, 50, tree(size), {})
    except checkpoints.CheckpointError as error:
        print(error)
subprocess.run(["mount", "-o", "remount,ro", folder.parent], check=True)
try:
    checkpoints.save(folder, 50, tree(10), {})
except checkpoints.CheckpointError as error:
    print(error)
print(*(path.name for path in folder.iterdir()))
"""


def test_a_full_disk_is_one_clear_line(tmp_path):
    """On a small file system of its own, which Linux lets some users make."""
    script = 'mount -t tmpfs -o size=96k none "$1" && exec "$2" -W error -c "$3" "$1/checkpoints"'
    mine = ["unshare", "--mount", "--map-root-user"]
    if shutil.which("unshare") is None or subprocess.run([*mine, "true"], check=False).returncode:
        pytest.skip("no file system can be made here")
    command = [*mine, "sh", "-c", script, "sh", tmp_path, sys.executable, FULL_DISK]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert result.stderr == ""
    where = f"cannot save a checkpoint in {tmp_path}/checkpoints: "
    still_good = "; the checkpoint of step 40 is still good"
    full = f"{where}No space left on device{still_good}"
    assert result.stdout.splitlines() == [
        *[full] * 3,
        f"{where}Read-only file system{still_good}",
        "00000040",
    ]


PLAIN = """
import sys, threading, time
from pathlib import Path
import jax, numpy as np
from jaxrnn.runs import checkpoints

folder, mesh = Path(sys.argv[1]), jax.make_mesh((2,), ("seeds",))
spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("seeds"))
tree = {"a": jax.device_put(np.arange(6.0, dtype=np.float32), spread)}
checkpoints.save(folder, 1, tree, {})
state = checkpoints.restore(folder, tree).state
assert state["a"].sharding == spread
assert state["a"].tolist() == [0, 1, 2, 3, 4, 5]
end = time.monotonic() + 5
while threading.enumerate() != [threading.main_thread()]:
    assert time.monotonic() < end, threading.enumerate()
"""


@pytest.mark.slow
def test_orbax_prints_nothing_and_leaves_no_thread_with_two_devices(tmp_path, environment):
    command = [sys.executable, "-W", "always", "-c", PLAIN, tmp_path]
    settings = environment | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    result = subprocess.run(
        command, capture_output=True, text=True, env=settings, timeout=100, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_only_orbax_is_silenced(caplog):
    pytree_io._orbax()
    logging.getLogger("asyncio").error("never retrieved: <Task at /orbax/serialization.py>")
    logging.getLogger("absl").warning("of another library")
    logging.getLogger("asyncio").error("of another loop")
    assert caplog.messages == ["of another library", "of another loop"]
