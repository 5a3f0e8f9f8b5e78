"""A run that is killed anywhere and resumed ends with the same bits as one that never was.

tests/killed.py has the experiments, and the moments at which a process is killed.
"""

import concurrent.futures
import contextlib
import functools
import itertools
import json
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import killed
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from jaxrnn.runs import checkpoints, pytree_io, run_directory
from jaxrnn.training.loop import TrainLoop

pytestmark = pytest.mark.slow

KILLED = -signal.SIGKILL
NAMES = ("dropout", "carry", "seeds")
CLOCK = re.compile(rb', "clock": \{"utc": "[^"]+", "seconds": ([0-9.e-]+)\}\}\n')
PROGRESS = re.compile(
    r"^step \d+ of .*\n"  # on a slow machine
    r"|^note: seed \d+ diverged at step \d+ and is frozen\n",
    re.MULTILINE,
)
RENAMED = "os.rename " + killed.HIDDEN
FILE_EVENTS = 430  # of an uninterrupted run, about


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    pid: int


class Worker:
    """A process that has imported everything, and forks another process for each request."""

    def __init__(self, process: subprocess.Popen[str]):
        assert process.stdout and process.stdin
        self.replies, self.requests = process.stdout, process.stdin

    def __call__(self, command: str = "", run_dir: Path = Path(), **request: Any) -> Ended:
        request |= {"command": command, "run_dir": str(run_dir)}
        print(json.dumps(request), file=self.requests, flush=True)
        reply = Ended(**json.loads(self.replies.readline()))
        return reply._replace(stderr=PROGRESS.sub("", reply.stderr))


@contextlib.contextmanager
def start_worker(environment: dict[str, str], *before: str) -> Iterator[Worker]:
    """Start a worker, perhaps below another command that confines it."""
    with subprocess.Popen(
        [*before, sys.executable, killed.__file__],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Worker(process)
    assert process.returncode == 0


class Workers:
    """Several workers, each with one request at a time."""

    def __init__(self, *workers: Worker):
        self.all = workers
        self.free: queue.Queue[Worker] = queue.Queue()
        for worker in workers:
            self.free.put(worker)

    def __call__(self, command: str, run_dir: Path, **request: Any) -> Ended:
        worker = self.free.get()
        try:
            return worker(command, run_dir, **request)
        finally:
            self.free.put(worker)


@pytest.fixture(scope="module")
def cached(environment: dict[str, str], tmp_path_factory) -> dict[str, str]:
    """Environment variables that cache all programs and hide git, which may see changes here."""
    return environment | {
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("killed")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PATH": "/nonexistent",
    }


@pytest.fixture(scope="module")
def workers(cached: dict[str, str]) -> Iterator[Workers]:
    with start_worker(cached) as first, start_worker(cached) as second:
        yield Workers(first, second)


def resume(workers: Callable[..., Ended], name: str, run_dir: Path, **request: Any) -> Ended:
    """Resume a run, or start it, if it was killed before it had a config.json."""
    if (run_dir / run_directory.CONFIG).exists():
        return workers("resume", run_dir, **request)
    return workers("start", run_dir, config=name, **request)


def in_parallel(function: Callable[..., Any], arguments: Iterable[Any]) -> None:
    """Call a function with each argument, two at a time."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(function, arguments))


# Comparing with an uninterrupted run.

RESTORING = threading.Lock()


class Uninterrupted:
    """A run that was not interrupted, with a checkpoint at each step."""

    def __init__(self, name: str, run_dir: Path):
        self.run_dir = run_dir
        self.rows, _ = rows_of(run_dir)
        self.curves = curves_of(run_dir)
        self.like = TrainLoop(killed.CONFIGS[name]).blank

    @functools.cache  # noqa: B019
    def state(self, step: int) -> Any:
        return pytree_io.read(self.run_dir / f"checkpoints/{step:08d}/state", self.like)


class UninterruptedRuns(dict[str, Uninterrupted]):
    """Uninterrupted runs, by the name of their experiment, trained when first used."""

    def __init__(self, workers: Workers, folder: Path):
        self.workers, self.folder, self.lock = workers, folder, threading.Lock()

    def __getitem__(self, name: str) -> Uninterrupted:
        with self.lock:
            return super().__getitem__(name)

    def __missing__(self, name: str) -> Uninterrupted:
        ended = self.workers("start", self.folder / name, config=name, often=True)
        assert (ended.code, ended.stderr) == (0, "")
        run = self[name] = Uninterrupted(name, self.folder / name)
        return run


@pytest.fixture(scope="module")
def uninterrupted(workers, tmp_path_factory) -> UninterruptedRuns:
    return UninterruptedRuns(workers, tmp_path_factory.mktemp("uninterrupted"))


def rows_of(run_dir: Path) -> tuple[list[bytes], list[float]]:
    """Return the complete lines of metrics.jsonl without the clock, and the clock's seconds."""
    lines = (run_dir / run_directory.METRICS).read_bytes().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    seconds = [float(clock[1]) for line in whole if (clock := CLOCK.search(line))]
    assert len(seconds) == len(whole)
    return [CLOCK.sub(b"", line) for line in whole], seconds


def curves_of(run_dir: Path) -> dict[str, list[tuple[int, bytes]]]:
    """Return what TensorBoard shows, tag -> [(step, value)]; a later session replaces its steps."""
    shown: list[Any] = []
    for file in sorted((run_dir / run_directory.TENSORBOARD).iterdir()):
        data = file.read_bytes()
        while len(data) >= 12 and len(data) >= (size := int.from_bytes(data[:8], "little")) + 16:
            event = event_pb2.Event.FromString(data[12 : 12 + size])  # pyright: ignore
            if event.HasField("session_log"):
                shown = [before for before in shown if before.step < event.step]
            shown.append(event)
            data = data[size + 16 :]
    curves: dict[str, list[tuple[int, bytes]]] = {}
    for event in shown:
        for value in event.summary.value:
            point = event.step, np.float32(value.simple_value).tobytes()
            curves.setdefault(value.tag, []).append(point)
    return curves


def assert_same_bits(tree: Any, other: Any) -> None:
    for (path, a), b in zip(jax.tree.leaves_with_path(tree), jax.tree.leaves(other), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        same = (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        assert same, jax.tree_util.keystr(path)


def assert_resumable(run_dir: Path, uninterrupted: Uninterrupted, skipped: int = 0) -> None:
    """Assert that a killed run has the files of the uninterrupted one so far, and can resume."""
    if not (run_dir / run_directory.CONFIG).exists():
        assert not (run_dir / run_directory.CHECKPOINTS).exists()
        return
    rows, _ = rows_of(run_dir)
    assert rows == uninterrupted.rows[: len(rows)]
    json.loads((run_dir / run_directory.MANIFEST).read_text())
    with RESTORING:
        restored = checkpoints.restore(run_dir / run_directory.CHECKPOINTS, uninterrupted.like)
        if restored is None:
            return
        assert len(restored.damaged) == skipped
        next_step = restored.position["next_step"]
        assert restored.step == min(next_step, 30)
        assert_same_bits(restored.state, uninterrupted.state(restored.step))
    steps = [json.loads(row + b"}")["step"] for row in rows]
    wanted = [json.loads(row + b"}")["step"] for row in uninterrupted.rows]
    assert steps[: sum(step < next_step for step in wanted)] == [n for n in wanted if n < next_step]


def assert_ended_equal(run_dir: Path, uninterrupted: Uninterrupted) -> None:
    """Assert that a resumed run has finished with the same files as the uninterrupted one."""
    rows, seconds = rows_of(run_dir)
    assert rows == uninterrupted.rows
    assert seconds == sorted(seconds)
    assert (run_dir / run_directory.METRICS).read_bytes().endswith(b"\n")
    with RESTORING:
        restored = checkpoints.restore(run_dir / run_directory.CHECKPOINTS, uninterrupted.like)
        assert restored is not None and restored.damaged == []
        assert (restored.step, restored.position["next_step"]) == (30, 31)
        assert_same_bits(restored.state, uninterrupted.state(30))
    assert curves_of(run_dir) == uninterrupted.curves
    manifest, model = (
        json.loads((folder / run_directory.MANIFEST).read_text())
        for folder in (run_dir, uninterrupted.run_dir)
    )
    assert manifest["status"] == "finished"
    assert manifest["diverged"] == model["diverged"]
    assert manifest["sessions"][-1]["to_step"] == 30
    leftovers = {path.name for path in run_dir.rglob(".*.partial")}
    assert not leftovers or manifest["sessions"][-1]["from_step"] == 31, "it saved nothing"
    assert not list(run_dir.glob("*.partial"))


class Chain:
    """A run that is killed and resumed again and again; after its end, a new one."""

    def __init__(self, workers: Workers, uninterrupted: Uninterrupted, name: str, folder: Path):
        self.workers, self.uninterrupted, self.name, self.folder = (
            workers,
            uninterrupted,
            name,
            folder,
        )
        self.numbers = itertools.count()
        self.run_dir = folder / f"{name}{next(self.numbers)}"
        self.seconds = 1.0  # from the start of a process to the end of the run

    def resume(self, **request: Any) -> Ended:
        return resume(self.workers, self.name, self.run_dir, **request)

    def is_killed(self, **request: Any) -> bool:
        """Resume; tell whether the process was killed. If not, the next one starts a new run."""
        ended = self.resume(**request)
        if ended.code == KILLED:
            assert_resumable(self.run_dir, self.uninterrupted)
            return True
        assert ended.stderr in ("", f"note: the run in {self.run_dir} has already ended\n")
        assert ended.code == 0
        assert_ended_equal(self.run_dir, self.uninterrupted)
        self.seconds = ended.seconds
        self.run_dir = self.folder / f"{self.name}{next(self.numbers)}"
        return False

    def kill(self, **request: Any) -> None:
        """Resume until the process is killed, in this run or, if this one ends, in a new one."""
        assert self.is_killed(**request) or self.is_killed(**request), request

    def end(self) -> None:
        assert not self.is_killed()


@pytest.fixture
def chain(workers, uninterrupted, tmp_path) -> Callable[..., Chain]:
    return lambda name, folder="": Chain(workers, uninterrupted[name], name, tmp_path / folder)


# Kills.


@pytest.mark.parametrize("name", NAMES)
def test_an_uninterrupted_run_is_the_same_in_longer_calls(chain, name):
    """So the runs to compare with do not depend on how often they were saved."""
    links = chain(name)
    links.end()


def test_killed_before_it_trains(chain):
    links = chain("carry")
    for moment in killed.STARTING:
        links.kill(moment=moment)
    links.end()


def test_killed_at_each_stage_of_saving(chain):
    """At the first save of a new run, and at a later one of a resumed run; the third one prunes."""
    moments = list(killed.SAVING)

    def kill(number: int) -> None:
        links = chain(NAMES[number % 2], str(number))
        links.kill(moment=moments[number])
        links.kill(moment=moments[number - 6], number=2)
        links.end()

    in_parallel(kill, range(len(moments)))


def test_killed_while_it_resumes_and_while_it_ends(chain):
    links = chain("seeds")
    links.kill(moment="before saving", number=2)
    for moment in killed.RESUMING | killed.ENDING:
        links.kill(moment=moment)
    links.end()


def kill_at_random(chain: Callable[..., Chain], seed: int, kills: int) -> None:
    """Kill alternately after a random time and after a random number of file events."""
    draw = random.Random(seed)
    links = chain(NAMES[seed % 3], str(seed))
    while kills:
        if kills % 2:
            moment = {"seconds": draw.uniform(0.0, links.seconds)}
        else:
            moment = {"events": draw.randint(1, FILE_EVENTS), "seconds": draw.uniform(0.0, 0.004)}
        kills -= links.is_killed(**moment)
    links.end()


def test_random_kills(chain):
    """102 kills, of two runs of each experiment."""
    in_parallel(lambda seed: kill_at_random(chain, seed, kills=17), range(100, 106))


def test_metrics_are_synced_before_the_checkpoint_is_published(workers, tmp_path):
    """No kill can show this; it matters when the machine loses power."""
    run_dir, file = tmp_path / "run", tmp_path / "events"
    kinds = ["return", "fsync", "os.rename"]
    ended = workers("start", run_dir, config="dropout", log=[kinds, str(file)])
    assert ended.code == 0
    events = file.read_text().splitlines()
    published = [n for n, event in enumerate(events) if re.fullmatch(RENAMED, event)]
    assert len(published) == 5
    for number in published:
        measured = max(n for n, event in enumerate(events[:number]) if event == "return append")
        assert "fsync metrics.jsonl" in events[measured:number]


# Signals.

SIGNALS = {signal.SIGTERM: (143, ""), signal.SIGINT: (130, "\ninterrupted\n")}


def steps_saved(run_dir: Path) -> list[int]:
    return checkpoints.steps(run_dir / run_directory.CHECKPOINTS)


def status_of(run_dir: Path) -> str:
    return json.loads((run_dir / run_directory.MANIFEST).read_text())["status"]


SAVED = {  # whether checkpoints are rare: (moment, its n-th time, the step that is saved)
    True: [
        ("config.json is created", 1, 0),
        ("before the metrics are written", 1, 1),
        ("the metrics are truncated", 1, 1),
        ("before the metrics are written", 3, 18),
    ],
    False: [("Orbax writes arrays", 1, 1), ("before saving", 2, 10)],
}


@pytest.mark.parametrize("rarely", SAVED)
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_the_run_once_everything_is_saved(chain, number, rarely):
    """Also while it compiles, and while a checkpoint is being saved."""
    links, (code, last_words) = chain("carry"), SIGNALS[number]
    for moment, times, step in SAVED[rarely]:
        ended = links.resume(moment=moment, number=times, signals=[number], rarely=rarely)
        how = f"resume with: python -m jaxrnn resume {links.run_dir}"
        assert ended.stderr == f"note: stopped at step {step}; {how}\n{last_words}"
        assert ended.code == code
        assert status_of(links.run_dir) == "interrupted"
        assert steps_saved(links.run_dir)[-1:] == ([step] if step else [])
        assert_resumable(links.run_dir, links.uninterrupted)
    links.end()


@pytest.mark.parametrize("first", SIGNALS)
def test_a_second_signal_acts_at_once(chain, first):
    links = chain("dropout")
    for number, second in enumerate(SIGNALS, 1):
        request = {"moment": "before the checkpoint is renamed", "number": number}
        ended = links.resume(**request, signals=[first, second])
        code, last_words = SIGNALS[second]
        assert (ended.code, ended.stderr) == (
            (code, last_words) if second is signal.SIGINT else (-second, "")
        )
        assert len(steps_saved(links.run_dir)) == number - 1, "it waited"
        assert_resumable(links.run_dir, links.uninterrupted)
    links.end()


# Damage.


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("damage", [flip, cut])
def test_a_damaged_checkpoint_is_named_and_skipped(chain, damage):
    links = chain("carry")
    links.kill(moment="before saving", number=4)
    for steps in ([9, 17], [26, 30]):  # of a killed run, and of a finished one
        assert steps_saved(links.run_dir) == steps
        newest = links.run_dir / f"checkpoints/{steps[-1]:08d}"
        file = max(newest.rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
        damage(file)
        assert_resumable(links.run_dir, links.uninterrupted, skipped=1)
        ended = links.resume()
        reason = f"{file}: contents have changed since it was saved (SHA-256 differs)"
        assert ended.stderr == f"note: skipping {newest}: {reason}\n"
        assert ended.code == 0
        assert_ended_equal(links.run_dir, links.uninterrupted)
    for folder in (links.run_dir / "checkpoints").iterdir():
        damage(folder / "position.json")
    before = contents(links.run_dir)
    ended = links.resume()
    assert ended.code == 2
    assert re.fullmatch(r"error: all checkpoints are damaged: .*\n", ended.stderr)
    assert contents(links.run_dir) == before


def test_a_run_is_never_overwritten(chain, workers, tmp_path):
    links = chain("dropout")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    finished = Path(shutil.copytree(links.uninterrupted.run_dir, tmp_path / "finished"))
    links.kill(moment="half of the metrics are written")
    for folder, why in {
        mine: "is not empty; choose another run directory",
        finished: f"already contains a run; resume it with `python -m jaxrnn resume {finished}`,"
        " or choose another run directory",
        links.run_dir: "already contains a run; resume it with `python -m jaxrnn resume"
        f" {links.run_dir}`, or choose another run directory",
    }.items():
        before = contents(folder)
        ended = workers("start", folder, config="dropout")
        assert (ended.code, ended.stderr) == (2, f"error: {folder} {why}\n")
        assert contents(folder) == before


def test_leftovers_of_kills_are_cleared(chain):
    links = chain("dropout")
    for number in (1, 2, 1):
        links.kill(moment="before the checkpoint is renamed", number=number)
        assert len(list(links.run_dir.rglob(".*.partial"))) == 1
    run_dir = links.run_dir
    links.end()
    assert len(list((run_dir / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize("moment", ["metrics.jsonl is created", "an old checkpoint is hidden"])
def test_one_process_at_a_time(workers, uninterrupted, tmp_path, moment):
    first, second = workers.all
    run_dir = tmp_path / "run"
    stopped = first("start", run_dir, config="dropout", moment=moment, signals=[signal.SIGSTOP])
    assert stopped.code == -signal.SIGSTOP
    before = contents(run_dir)
    refusals = {"start": "already contains a run"}
    if moment == "an old checkpoint is hidden":
        refusals |= dict.fromkeys(("resume", "verify"), "another process works on the run in")
    for command, why in refusals.items():
        ended = second(command, run_dir, config="dropout")
        assert ended.code == 2
        assert re.fullmatch(rf"error: .*{why}.*\n", ended.stderr)
    assert contents(run_dir) == before
    ended = first(**{"continue": stopped.pid})
    assert (ended.code, ended.stderr) == (0, "")
    assert_ended_equal(run_dir, uninterrupted["dropout"])


# Disks that are full or read-only.

FULL = (
    [
        ("the loop is compiled", 1, "manifest.json"),
        ("before TensorBoard's file", 1, "tensorboard"),
        ("before the metrics are written", 1, "metrics.jsonl"),
        ("before TensorBoard's events are written", 1, "tensorboard"),
        ("before saving", 1, "checkpoints"),
    ],
    [
        ("before saving", 2, "checkpoints"),
        ("the arrays are written", 2, "checkpoints"),
        ("the position is written", 2, "checkpoints"),
        ("before the metrics are written", 2, "metrics.jsonl"),
        ("before the last manifest.json", 1, "manifest.json"),
    ],
)


def assert_refused(ended: Ended, why: str, where: Path) -> None:
    """Assert that one line names the problem and the file."""
    assert re.fullmatch(rf"error: .*{why}.*\n", ended.stderr), ended.stderr
    assert str(where) in ended.stderr
    assert ended.code == 2


def test_a_file_that_cannot_grow(chain):
    """From the moment on, the size of files is limited; the next one to be written is named."""

    def resume_to_the_end(number: int) -> None:
        links = chain("carry", str(number))
        for moment, times, name in FULL[number]:
            limit = ["metrics.jsonl", 30] if name == "metrics.jsonl" else ["nothing", 5]
            ended = links.resume(moment=moment, number=times, limit=limit)
            assert_refused(ended, "File too large", links.run_dir / name)
            if (links.run_dir / run_directory.METRICS).exists():
                assert_resumable(links.run_dir, links.uninterrupted)
            else:
                assert not links.run_dir.exists(), "a run without metrics leaves no files"
        links.end()

    in_parallel(resume_to_the_end, range(2))


FULL_DISK = "No space left on device"
UTILITIES = "export PATH=/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture
def small_disk(cached, tmp_path) -> Iterator[tuple[Worker, Path]]:
    """A worker, and a file system that only it can see; Linux lets some users create one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mine = [shutil.which("unshare") or "", "--mount", "--map-root-user"]
    if not mine[0] or subprocess.run([*mine, "true"], check=False).returncode:
        pytest.skip("no file system can be made here")
    script = f'({UTILITIES}; mount -t tmpfs -o size=64m none "$0") && exec "$@"'
    with start_worker(cached, *mine, "/bin/sh", "-c", script, str(folder)) as worker:
        yield worker, folder


def test_a_full_disk_and_a_read_only_disk(small_disk, uninterrupted, tmp_path):
    worker, folder = small_disk

    def shell(script: str) -> None:
        assert worker(shell=f"{UTILITIES}; cd {folder}; {script}").code == 0

    def leave(kibibytes: int) -> None:
        used = "$(df -k --output=used . | tail -n 1)"
        shell(f"mount -o remount,size=$(({used} + {kibibytes}))k .")

    run_dir = folder / "run"
    moment = {"moment": "the checkpoint is renamed", "number": 2}
    assert worker("start", run_dir, config="carry", **moment).code == KILLED
    leave(0)
    assert_refused(worker("resume", run_dir), FULL_DISK, run_dir / "manifest.json")
    for kibibytes in (4, 8, 20, 40):  # too little for a checkpoint
        leave(kibibytes)
        assert_refused(worker("resume", run_dir), FULL_DISK, run_dir)
    leave(10_000)
    shell("mount -o remount,ro .")
    ended = worker("resume", run_dir)
    why = "Read-only file system"
    assert ended.stderr == f"error: cannot write in the run directory {run_dir}: {why}\n"
    assert ended.code == 2
    shell("mount -o remount,rw .")
    ended = worker("resume", run_dir)
    assert (ended.code, ended.stderr) == (0, "")
    shell(f"cp -a run {tmp_path}")
    assert_ended_equal(tmp_path / "run", uninterrupted["carry"])


# The commands.


def test_verify_after_kills(chain, workers):
    """It reports equality, and after one number is changed by hand, that number."""
    links = chain("seeds")
    run_dir = links.run_dir
    links.kill(moment="the checkpoint is renamed", number=2)
    links.kill(moment="half of the metrics are written", number=2)
    links.end()
    ended = workers("verify", run_dir)
    said = "Bitwise equal: 11 logged steps of 6 seeds, the parameters and the optimizer's state.\n"
    assert ended[:3] == (0, said, "")
    file = run_dir / run_directory.METRICS
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for step, name in ((27, "loss"), (12, "right")):
        (row,) = (row for row in rows if (row["step"], row["seed"]) == (step, 18))
        if name == "loss":
            row[name] = float(np.nextafter(np.float32(row[name]), np.float32(9)))
        else:
            row[name][3] = 0.125
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        ended = workers("verify", run_dir)
        assert ended.stdout.startswith(f"Differs, first at step {step}, seed 18: {name} was ")
        assert (ended.code, ended.stderr) == (1, "")


def test_every_exit_code_as_a_command(chain, workers, cached, tmp_path):
    """0 at the end, 2 if it cannot resume, 3 if it diverged, 130 for Ctrl-C, 143 for SIGTERM."""
    half, folders = {"moment": "half of the metrics are written"}, {}
    for code, name in {
        0: "dropout",
        2: "dropout",
        3: "diverging",
        130: "long",
        143: "long",
    }.items():
        folders[code] = tmp_path / str(code)
        request = {**half, "number": 1 if name == "long" else 3}
        assert workers("start", folders[code], config=name, **request).code == KILLED
    for folder in (folders[2] / "checkpoints").iterdir():
        cut(folder / "SHA256SUMS")
    sizes = {
        code: (folder / run_directory.METRICS).stat().st_size for code, folder in folders.items()
    }
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored
    commands = {
        code: subprocess.Popen(
            [sys.executable, "-m", "jaxrnn", "resume", str(folder)],
            env=cached,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for code, folder in folders.items()
    }
    signal.signal(signal.SIGINT, before)
    for code, number in {130: signal.SIGINT, 143: signal.SIGTERM}.items():
        while (folders[code] / run_directory.METRICS).stat().st_size <= sizes[code]:
            assert commands[code].poll() is None
            time.sleep(0.005)
        commands[code].send_signal(number)
    said = {}
    for code, command in commands.items():
        said[code] = [PROGRESS.sub("", text) for text in command.communicate(timeout=100)]
        assert command.returncode == code, said[code]
    assert_ended_equal(folders[0], chain("dropout").uninterrupted)
    assert (folders[0] / run_directory.PICTURE).stat().st_size > 1000
    assert said[0][1] == "" and said[0][0].endswith(f"the run is in {folders[0]}.\n")
    assert re.fullmatch(r"error: all checkpoints are damaged: .*\n", said[2][1])
    assert re.fullmatch(r"error: .* seed 4 is not finite, at step 21; .*\n", said[3][1])
    assert said[130][1].endswith("\ninterrupted\n")
    for code in (130, 143):
        (step,) = re.findall(r"^note: stopped at step (\d+); resume with: ", said[code][1])
        assert steps_saved(folders[code])[-1] == int(step)
        ended = workers("verify", folders[code])
        assert ended.stdout.startswith(f"Bitwise equal: {step} logged steps of 1 seed, ")


def test_a_run_that_diverges_after_a_kill_diverges_the_same(workers, tmp_path):
    whole, killed_one = tmp_path / "whole", tmp_path / "killed"
    words = "error: the loss or gradient of seed 4 is not finite, at step 21; "
    for run_dir in (whole, killed_one):
        if run_dir == killed_one:
            request = {"moment": "the checkpoint is renamed", "number": 3}
            assert workers("start", run_dir, config="diverging", **request).code == KILLED
        ended = resume(workers, "diverging", run_dir)
        assert ended.code == 3 and ended.stderr.startswith(words)
        assert (status_of(run_dir), steps_saved(run_dir)[-1]) == ("diverged", 21)
        assert rows_of(run_dir)[0] == rows_of(whole)[0]
