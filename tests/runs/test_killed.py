"""A run that is broken off anywhere and gone on with ends as one that never was: bit for bit.

tests/killed.py has the studies, and the moments at which a process is killed.
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

KILLED = -signal.SIGKILL
NAMES = ("dropout", "carry", "seeds")
CLOCK = re.compile(rb', "clock": \{"utc": "[^"]+", "seconds": ([0-9.e-]+)\}\}\n')
ON_THE_WAY = re.compile(
    r"^step \d+ of .*\n"  # on a machine that is slow just now
    r"|^note: seed \d+ is not finite at step \d+, and is frozen\n",
    re.MULTILINE,
)
RENAMED = "os.rename " + killed.HIDDEN
FILE_EVENTS = 430  # of an unbroken run, about


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    pid: int


class Worker:
    """One process that imported everything, and forks another one for each request."""

    def __init__(self, process: subprocess.Popen[str]):
        assert process.stdout and process.stdin
        self.replies, self.requests = process.stdout, process.stdin

    def __call__(self, verb: str = "", run_dir: Path = Path(), **request: Any) -> Ended:
        request |= {"verb": verb, "run_dir": str(run_dir)}
        print(json.dumps(request), file=self.requests, flush=True)
        reply = Ended(**json.loads(self.replies.readline()))
        return reply._replace(stderr=ON_THE_WAY.sub("", reply.stderr))


@contextlib.contextmanager
def begun(environment: dict[str, str], *before: str) -> Iterator[Worker]:
    """A worker; before it in its command line may stand what confines it."""
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
    """Some workers, a request each at a time."""

    def __init__(self, *workers: Worker):
        self.all = workers
        self.free: queue.Queue[Worker] = queue.Queue()
        for worker in workers:
            self.free.put(worker)

    def __call__(self, verb: str, run_dir: Path, **request: Any) -> Ended:
        worker = self.free.get()
        try:
            return worker(verb, run_dir, **request)
        finally:
            self.free.put(worker)


@pytest.fixture(scope="module")
def surroundings(environment: dict[str, str], tmp_path_factory) -> dict[str, str]:
    """Where every program is cached, and git is not found: others may be at work in this folder."""
    return environment | {
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("killed")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PATH": "/nonexistent",
    }


@pytest.fixture(scope="module")
def workers(surroundings: dict[str, str]) -> Iterator[Workers]:
    with begun(surroundings) as first, begun(surroundings) as second:
        yield Workers(first, second)


def go_on(workers: Callable[..., Ended], name: str, run_dir: Path, **request: Any) -> Ended:
    """Resume a run, or start it, if it was broken off before it began."""
    if (run_dir / run_directory.CONFIG).exists():
        return workers("resume", run_dir, **request)
    return workers("start", run_dir, study=name, **request)


def in_parallel(function: Callable[..., Any], things: Iterable[Any]) -> None:
    """Call a function with each thing, two at a time."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(function, things))


# What an unbroken run leaves, and whether another one is the same.

READING = threading.Lock()


class Unbroken:
    """A run that was never broken off, with a checkpoint at each step."""

    def __init__(self, name: str, run_dir: Path):
        self.run_dir = run_dir
        self.rows, _ = rows_of(run_dir)
        self.curves = curves_of(run_dir)
        self.like = TrainLoop(killed.STUDIES[name]).blank

    @functools.cache  # noqa: B019
    def state(self, step: int) -> Any:
        return pytree_io.read(self.run_dir / f"checkpoints/{step:08d}/state", self.like)


class UnbrokenRuns(dict[str, Unbroken]):
    """Unbroken runs, by the name of their study, each trained when it is first asked for.

    What they compile is cached for all others.
    """

    def __init__(self, workers: Workers, folder: Path):
        self.workers, self.folder, self.lock = workers, folder, threading.Lock()

    def __getitem__(self, name: str) -> Unbroken:
        with self.lock:
            return super().__getitem__(name)

    def __missing__(self, name: str) -> Unbroken:
        ended = self.workers("start", self.folder / name, study=name, often=True)
        assert (ended.code, ended.stderr) == (0, "")
        run = self[name] = Unbroken(name, self.folder / name)
        return run


@pytest.fixture(scope="module")
def unbroken(workers, tmp_path_factory) -> UnbrokenRuns:
    return UnbrokenRuns(workers, tmp_path_factory.mktemp("unbroken"))


def rows_of(run_dir: Path) -> tuple[list[bytes], list[float]]:
    """The whole lines of metrics.jsonl without the clock, and the seconds that it says."""
    lines = (run_dir / run_directory.METRICS).read_bytes().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    seconds = [float(clock[1]) for line in whole if (clock := CLOCK.search(line))]
    assert len(seconds) == len(whole)
    return [CLOCK.sub(b"", line) for line in whole], seconds


def curves_of(run_dir: Path) -> dict[str, list[tuple[int, bytes]]]:
    """What TensorBoard shows: tag -> [(step, value)]; of a later start, only what came before."""
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


def assert_on_its_way(run_dir: Path, unbroken: Unbroken, passed_over: int = 0) -> None:
    """What a broken-off run holds is what the unbroken one had, and is enough to go on."""
    if not (run_dir / run_directory.CONFIG).exists():
        assert not (run_dir / run_directory.CHECKPOINTS).exists()
        return
    rows, _ = rows_of(run_dir)
    assert rows == unbroken.rows[: len(rows)]
    json.loads((run_dir / run_directory.MANIFEST).read_text())
    with READING:
        restored = checkpoints.restore(run_dir / run_directory.CHECKPOINTS, unbroken.like)
        if restored is None:
            return
        assert len(restored.damaged) == passed_over
        next_step = restored.position["next_step"]
        assert restored.step == min(next_step, 30)
        assert_same_bits(restored.state, unbroken.state(restored.step))
    steps = [json.loads(row + b"}")["step"] for row in rows]
    wanted = [json.loads(row + b"}")["step"] for row in unbroken.rows]
    assert steps[: sum(step < next_step for step in wanted)] == [n for n in wanted if n < next_step]


def assert_ended_equal(run_dir: Path, unbroken: Unbroken) -> None:
    """A run that was broken off is at its end, and what it holds is what the unbroken one does."""
    rows, seconds = rows_of(run_dir)
    assert rows == unbroken.rows
    assert seconds == sorted(seconds)
    assert (run_dir / run_directory.METRICS).read_bytes().endswith(b"\n")
    with READING:
        restored = checkpoints.restore(run_dir / run_directory.CHECKPOINTS, unbroken.like)
        assert restored is not None and restored.damaged == []
        assert (restored.step, restored.position["next_step"]) == (30, 31)
        assert_same_bits(restored.state, unbroken.state(30))
    assert curves_of(run_dir) == unbroken.curves
    manifest, model = (
        json.loads((folder / run_directory.MANIFEST).read_text())
        for folder in (run_dir, unbroken.run_dir)
    )
    assert manifest["status"] == "finished"
    assert manifest["not_finite"] == model["not_finite"]
    assert manifest["sessions"][-1]["to"] == 30
    leftovers = {path.name for path in run_dir.rglob(".*.partial")}
    assert not leftovers or manifest["sessions"][-1]["from"] == 31, "nothing was saved any more"
    assert not list(run_dir.glob("*.partial"))


class Chain:
    """One run after another, broken off again and again."""

    def __init__(self, workers: Workers, unbroken: Unbroken, name: str, folder: Path):
        self.workers, self.unbroken, self.name, self.folder = workers, unbroken, name, folder
        self.numbers = itertools.count()
        self.run_dir = folder / f"{name}{next(self.numbers)}"
        self.seconds = 1.0  # that a process takes from its beginning to the run's end

    def go_on(self, **request: Any) -> Ended:
        return go_on(self.workers, self.name, self.run_dir, **request)

    def is_killed(self, **request: Any) -> bool:
        """Go on, if it is to the end, which then is to be as it should, and the next run is new."""
        ended = self.go_on(**request)
        if ended.code == KILLED:
            assert_on_its_way(self.run_dir, self.unbroken)
            return True
        assert ended.stderr in ("", f"note: the run in {self.run_dir} has already ended\n")
        assert ended.code == 0
        assert_ended_equal(self.run_dir, self.unbroken)
        self.seconds = ended.seconds
        self.run_dir = self.folder / f"{self.name}{next(self.numbers)}"
        return False

    def kill(self, **request: Any) -> None:
        """Go on until the process is killed, in this run or, if it ends before, in a new one."""
        assert self.is_killed(**request) or self.is_killed(**request), request

    def end(self) -> None:
        assert not self.is_killed()


@pytest.fixture
def chain(workers, unbroken, tmp_path) -> Callable[..., Chain]:
    return lambda name, folder="": Chain(workers, unbroken[name], name, tmp_path / folder)


# Kills.


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", NAMES)
def test_the_unbroken_run_is_the_same_in_longer_calls(chain, name):
    """So what others are compared with is no matter of how often it was saved."""
    links = chain(name)
    links.end()


@pytest.mark.slow
def test_killed_before_it_trains(chain):
    links = chain("carry")
    for moment in killed.STARTING:
        links.kill(moment=moment)
    links.end()


@pytest.mark.slow
def test_killed_at_each_stage_of_saving(chain):
    """At a new run's first time, and later on in a resumed one; pruning begins at the third."""
    moments = list(killed.SAVING)

    def kill(number: int) -> None:
        links = chain(NAMES[number % 2], str(number))
        links.kill(moment=moments[number])
        links.kill(moment=moments[number - 6], number=2)
        links.end()

    in_parallel(kill, range(len(moments)))


@pytest.mark.slow
def test_killed_while_it_resumes_and_while_it_ends(chain):
    links = chain("seeds")
    links.kill(moment="all is measured and nothing saved", number=2)
    for moment in killed.RESUMING | killed.ENDING:
        links.kill(moment=moment)
    links.end()


def kill_at_random(chain: Callable[..., Chain], seed: int, kills: int) -> None:
    """By the time since the process was made, and by what happened since then, in turn."""
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
    in_parallel(lambda seed: kill_at_random(chain, seed, kills=4), (0, 3))  # of one study


@pytest.mark.slow
def test_two_hundred_random_kills(chain):
    in_parallel(lambda seed: kill_at_random(chain, seed, kills=20), range(100, 110))


def test_metrics_are_on_the_disk_before_the_checkpoint_after_them(workers, tmp_path):
    """A kill shows nothing of it, only a machine that loses its power would."""
    run_dir, file = tmp_path / "run", tmp_path / "events"
    kinds = ["return", "fsync", "os.rename"]
    ended = workers("start", run_dir, study="dropout", note=[kinds, str(file)])
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


HEARD = {  # whether checkpoints are rare: moments, the how-manieth time, and the step then saved
    True: [
        ("config.json is made", 1, 0),
        ("the metrics are to be written", 1, 1),
        ("the metrics are cut", 1, 1),
        ("the metrics are to be written", 3, 18),
    ],
    False: [("Orbax writes arrays", 1, 1), ("all is measured and nothing saved", 2, 10)],
}


@pytest.mark.slow
@pytest.mark.parametrize("rarely", HEARD)
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_heard_when_all_is_saved(chain, number, rarely):
    """While it compiles, too, and while a checkpoint is being saved."""
    links, (code, last_words) = chain("carry"), SIGNALS[number]
    for moment, times, step in HEARD[rarely]:
        ended = links.go_on(moment=moment, number=times, signals=[number], rarely=rarely)
        how = f"resume with: python -m jaxrnn resume {links.run_dir}"
        assert ended.stderr == f"note: stopped at step {step}; {how}\n{last_words}"
        assert ended.code == code
        assert status_of(links.run_dir) == "interrupted"
        assert steps_saved(links.run_dir)[-1:] == ([step] if step else [])
        assert_on_its_way(links.run_dir, links.unbroken)
    links.end()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("first", SIGNALS)
def test_a_second_signal_acts_at_once(chain, first):
    links = chain("dropout")
    for number, second in enumerate(SIGNALS, 1):
        request = {"moment": "all is written and nothing renamed", "number": number}
        ended = links.go_on(**request, signals=[first, second])
        code, last_words = SIGNALS[second]
        assert (ended.code, ended.stderr) == (
            (code, last_words) if second is signal.SIGINT else (-second, "")
        )
        assert len(steps_saved(links.run_dir)) == number - 1, "it waited"
        assert_on_its_way(links.run_dir, links.unbroken)
    links.end()


# What is broken.


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("damage", [flip, cut])
def test_a_broken_checkpoint_is_named_and_passed_over(chain, damage):
    links = chain("carry")
    links.kill(moment="all is measured and nothing saved", number=4)
    for steps in ([9, 17], [26, 30]):  # of a killed run, and of one at its end
        assert steps_saved(links.run_dir) == steps
        newest = links.run_dir / f"checkpoints/{steps[-1]:08d}"
        file = max(newest.rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
        damage(file)
        assert_on_its_way(links.run_dir, links.unbroken, passed_over=1)
        ended = links.go_on()
        reason = f"{file}: contents have changed since it was saved (SHA-256 differs)"
        assert ended.stderr == f"note: skipping {newest}: {reason}\n"
        assert ended.code == 0
        assert_ended_equal(links.run_dir, links.unbroken)
    for folder in (links.run_dir / "checkpoints").iterdir():
        damage(folder / "position.json")
    before = contents(links.run_dir)
    ended = links.go_on()
    assert ended.code == 2
    assert re.fullmatch(r"error: all checkpoints are damaged: .*\n", ended.stderr)
    assert contents(links.run_dir) == before


def test_a_run_is_never_overwritten(chain, workers, tmp_path):
    links = chain("dropout")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    finished = Path(shutil.copytree(links.unbroken.run_dir, tmp_path / "finished"))
    links.kill(moment="half of the metrics are written")
    for folder, why in {
        mine: "is not empty; choose another run directory",
        finished: f"already holds a run; go on with it by `python -m jaxrnn resume {finished}`,"
        " or choose another run directory",
        links.run_dir: "already holds a run; go on with it by `python -m jaxrnn resume"
        f" {links.run_dir}`, or choose another run directory",
    }.items():
        before = contents(folder)
        ended = workers("start", folder, study="dropout")
        assert (ended.code, ended.stderr) == (2, f"error: {folder} {why}\n")
        assert contents(folder) == before


@pytest.mark.slow
def test_leftovers_of_kills_are_cleared(chain):
    links = chain("dropout")
    for number in (1, 2, 1):
        links.kill(moment="all is written and nothing renamed", number=number)
        assert len(list(links.run_dir.rglob(".*.partial"))) == 1
    run_dir = links.run_dir
    links.end()
    assert len(list((run_dir / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize("moment", ["metrics.jsonl is made", "an old one is hidden"])
def test_one_process_at_a_time(workers, unbroken, tmp_path, moment):
    first, second = workers.all
    run_dir = tmp_path / "run"
    stopped = first("start", run_dir, study="dropout", moment=moment, signals=[signal.SIGSTOP])
    assert stopped.code == -signal.SIGSTOP
    before = contents(run_dir)
    refusals = {"start": "already holds a run"}
    if moment == "an old one is hidden":
        refusals |= dict.fromkeys(("resume", "verify"), "another process works on the run in")
    for verb, why in refusals.items():
        ended = second(verb, run_dir, study="dropout")
        assert ended.code == 2
        assert re.fullmatch(rf"error: .*{why}.*\n", ended.stderr)
    assert contents(run_dir) == before
    ended = first(go_on=stopped.pid)
    assert (ended.code, ended.stderr) == (0, "")
    assert_ended_equal(run_dir, unbroken["dropout"])


# Disks that are full, or cannot be written.

FULL = (
    [
        ("it is compiled", 1, "manifest.json"),
        ("TensorBoard's file is to be made", 1, "tensorboard"),
        ("the metrics are to be written", 1, "metrics.jsonl"),
        ("TensorBoard's events are to be written", 1, "tensorboard"),
        ("all is measured and nothing saved", 1, "checkpoints"),
    ],
    [
        ("all is measured and nothing saved", 2, "checkpoints"),
        ("the arrays are written", 2, "checkpoints"),
        ("the position is written", 2, "checkpoints"),
        ("the metrics are to be written", 2, "metrics.jsonl"),
        ("the manifest is to say how it ended", 1, "manifest.json"),
    ],
)


def assert_refused(ended: Ended, why: str, where: Path) -> None:
    """One clear line says what is wrong with which file."""
    assert re.fullmatch(rf"error: .*{why}.*\n", ended.stderr), ended.stderr
    assert str(where) in ended.stderr
    assert ended.code == 2


@pytest.mark.slow
def test_a_file_that_cannot_grow(chain):
    """From the moment on, files are limited; the one named is what is written next."""

    def go_on_and_on(number: int) -> None:
        links = chain("carry", str(number))
        for moment, times, name in FULL[number]:
            limit = ["metrics.jsonl", 30] if name == "metrics.jsonl" else ["nothing", 5]
            ended = links.go_on(moment=moment, number=times, limit=limit)
            assert_refused(ended, "File too large", links.run_dir / name)
            if (links.run_dir / run_directory.METRICS).exists():
                assert_on_its_way(links.run_dir, links.unbroken)
            else:
                assert not links.run_dir.exists(), "of a run that measured nothing, nothing is left"
        links.end()

    in_parallel(go_on_and_on, range(2))


FULL_DISK = "No space left on device"
UTILITIES = "export PATH=/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture
def small_disk(surroundings, tmp_path) -> Iterator[tuple[Worker, Path]]:
    """A worker, and a file system that only it can see, which Linux lets some users make."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mine = [shutil.which("unshare") or "", "--mount", "--map-root-user"]
    if not mine[0] or subprocess.run([*mine, "true"], check=False).returncode:
        pytest.skip("no file system can be made here")
    script = f'({UTILITIES}; mount -t tmpfs -o size=64m none "$0") && exec "$@"'
    with begun(surroundings, *mine, "/bin/sh", "-c", script, str(folder)) as worker:
        yield worker, folder


@pytest.mark.slow
def test_a_full_disk_and_one_that_is_read_only(small_disk, unbroken, tmp_path):
    worker, folder = small_disk

    def shell(script: str) -> None:
        assert worker(shell=f"{UTILITIES}; cd {folder}; {script}").code == 0

    def leave(kibibytes: int) -> None:
        used = "$(df -k --output=used . | tail -n 1)"
        shell(f"mount -o remount,size=$(({used} + {kibibytes}))k .")

    run_dir = folder / "run"
    moment = {"moment": "it is renamed", "number": 2}
    assert worker("start", run_dir, study="carry", **moment).code == KILLED
    leave(0)
    assert_refused(worker("resume", run_dir), FULL_DISK, run_dir / "manifest.json")
    for kibibytes in (4, 8, 20, 40):  # less than a checkpoint takes
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
    assert_ended_equal(tmp_path / "run", unbroken["carry"])


# The commands.


@pytest.mark.slow
def test_verify_after_kills(chain, workers):
    """It says equal; and after one number was changed by hand, which it is."""
    links = chain("seeds")
    run_dir = links.run_dir
    links.kill(moment="it is renamed", number=2)
    links.kill(moment="half of the metrics are written", number=2)
    links.end()
    ended = workers("verify", run_dir)
    said = "Bitwise equal: 11 logged steps of 6 seeds, the parameters and the optimiser's state.\n"
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


@pytest.mark.slow
def test_every_exit_code_as_a_command(chain, workers, surroundings, tmp_path):
    """0 at the end, 2 where it cannot go on, 3 not finite, 130 after Ctrl-C, 143 after SIGTERM."""
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
        assert workers("start", folders[code], study=name, **request).code == KILLED
    for folder in (folders[2] / "checkpoints").iterdir():
        cut(folder / "SHA256SUMS")
    sizes = {
        code: (folder / run_directory.METRICS).stat().st_size for code, folder in folders.items()
    }
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been ignored
    commands = {
        code: subprocess.Popen(
            [sys.executable, "-m", "jaxrnn", "resume", str(folder)],
            env=surroundings,
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
        said[code] = [ON_THE_WAY.sub("", text) for text in command.communicate(timeout=100)]
        assert command.returncode == code, said[code]
    assert_ended_equal(folders[0], chain("dropout").unbroken)
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


@pytest.mark.slow
def test_a_run_that_diverges_is_killed_and_diverges_again(workers, tmp_path):
    whole, killed_one = tmp_path / "whole", tmp_path / "killed"
    words = "error: the loss or gradient of seed 4 is not finite, at step 21; "
    for run_dir in (whole, killed_one):
        if run_dir == killed_one:
            request = {"moment": "it is renamed", "number": 3}
            assert workers("start", run_dir, study="diverging", **request).code == KILLED
        ended = go_on(workers, "diverging", run_dir)
        assert ended.code == 3 and ended.stderr.startswith(words)
        assert (status_of(run_dir), steps_saved(run_dir)[-1]) == ("diverged", 21)
        assert rows_of(run_dir)[0] == rows_of(whole)[0]
