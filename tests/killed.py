"""A server that runs and kills training processes, for tests/runs/test_killed.py.

Run as a script, it imports what training needs once, then forks a process for each line of JSON
that it reads. That process trains as a user's script does, or runs `python -m jaxrnn`, until it is
killed at the moment in the request. jaxrnn itself has no code for this: moments are found by
Python's audit events for files that are opened, created, renamed or removed, and by wrapped
functions.
"""

import gc
import json
import os
import re
import resource
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from example_tasks import Trap

from jaxrnn.analysis import plots
from jaxrnn.cells import ElmanCell, LSTMCell
from jaxrnn.cli import entry
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.runs import checkpoints, metrics, run_metadata, runner
from jaxrnn.runs.tensorboard import Events
from jaxrnn.training import calls
from jaxrnn.training.config import ExperimentConfig, TrainConfig


@dataclass(frozen=True)
class Rows(Trap):
    """Trap with two rows, sprung only on request, and with a metric that is an array."""

    batch_size: int = 2
    sprung: int = -1

    def metrics(self, outputs, batch):
        """The accuracy, and `right`, [T]: the fraction of rows that are right at each time step."""
        right = (outputs.argmax(-1) == batch.targets).astype(jnp.float32).mean(0)
        return super().metrics(outputs, batch) | {"right": right}


def _model(cell: Any, dropout: float = 0.0) -> SequenceModel:
    return SequenceModel(Recurrent(cell, recurrent_dropout=dropout), 4)


CONFIGS = {
    "dropout": ExperimentConfig(
        Rows(),
        _model(ElmanCell(3), dropout=0.3),
        TrainConfig(
            30, 0.05, schedule="cosine", warmup_steps=4, steps_per_call=8, checkpoint_seconds=0
        ),
        seed=7,
    ),
    "carry": ExperimentConfig(
        Rows(stateful=True),
        _model(LSTMCell(3)),
        TrainConfig(30, 0.05, steps_per_call=8, flatten=True, checkpoint_seconds=0),
    ),
    "seeds": ExperimentConfig(
        Rows(sprung=13),
        _model(ElmanCell(3)),
        TrainConfig(
            30, 0.05, optimizer="rmsprop", log_every=3, steps_per_call=4, checkpoint_seconds=0.02
        ),
        seed=17,  # of these seeds, three diverge: at steps 3, 21 and 30
        seeds=6,
        vmap_size=4,
    ),
    "diverging": ExperimentConfig(
        Rows(sprung=12),
        _model(ElmanCell(3)),
        TrainConfig(30, 0.05, steps_per_call=8, checkpoint_seconds=0),
        seed=4,
    ),
    "long": ExperimentConfig(
        Rows(), _model(ElmanCell(3)), TrainConfig(300, 0.05, steps_per_call=2, checkpoint_seconds=0)
    ),
}

WRAPPED = (
    (runner, "compile_loop"),
    (metrics, "append"),
    (metrics, "truncate"),
    (checkpoints, "save"),
    (run_metadata, "end_session"),
    (Events, "add"),
)
"""Functions that are wrapped to raise the audit events ("call", name) and ("return", name)."""

HIDDEN, SHOWN = r"checkpoints/\.[^/]+\.partial", r"checkpoints/\d+(\.\d+)?"
STATE, SUMS = HIDDEN + r"/state[^/]*", HIDDEN + r"/SHA256SUMS\.partial"
POSITION = HIDDEN + r"/position\.json\.partial"

STARTING = {
    "only the directory exists": [("open", r"metrics\.jsonl")],
    "metrics.jsonl is created": [("open", r"manifest\.json\.partial")],
    "half of manifest.json is written": [("os.rename", r"manifest\.json\.partial")],
    "manifest.json is created": [("open", r"config\.json\.partial")],
    "half of config.json is written": [("os.rename", r"config\.json\.partial")],
    "config.json is created": [("call", "compile_loop")],
    "the loop is compiled": [("return", "compile_loop")],
    "half of a new manifest.json is written": [
        ("return", "compile_loop"),
        ("os.rename", r"manifest\.json\.partial"),
    ],
    "before TensorBoard's directory": [("os.mkdir", "tensorboard")],
    "before TensorBoard's file": [("open", "tensorboard/events.*")],
}
SAVING = {
    "half of the metrics are written": [("return", "append")],
    "half of TensorBoard's events are written": [("return", "add")],
    "before saving": [("call", "save")],
    "before the hidden directory": [("os.mkdir", HIDDEN)],
    "Orbax starts": [("os.mkdir", STATE), ("open", STATE + "/.*")],
    "Orbax writes arrays": [("os.mkdir", STATE)],
    "Orbax writes its metadata": [("os.mkdir", STATE), ("open", STATE + "/_METADATA")],
    "Orbax is about to rename": [("os.rename", STATE)],
    "the arrays are written": [("os.rename", STATE), ("open", POSITION)],
    "the position is written": [("os.rename", POSITION), ("open", SUMS)],
    "half of the checksums are written": [
        ("os.rename", POSITION),
        ("os.rename", SUMS),
    ],
    "before the checkpoint is renamed": [("os.rename", HIDDEN)],
    "the checkpoint is renamed": [("os.rename", HIDDEN), ("open", "checkpoints")],
    "before an old checkpoint is hidden": [("os.rename", SHOWN)],
    "an old checkpoint is hidden": [("os.rename", SHOWN), ("open", HIDDEN)],
    "half of an old checkpoint is removed": [("os.rename", SHOWN), *[("os.remove", ".*")] * 4],
    "an old checkpoint is removed": [("os.rename", SHOWN), ("os.rmdir", HIDDEN)],
}
RESUMING = {
    "before the metrics are truncated": [("call", "truncate")],
    "the metrics are truncated": [("return", "truncate")],
}
ENDING = {
    "before the last manifest.json": [("call", "end_session")],
    "half of the last manifest.json is written": [
        ("call", "end_session"),
        ("os.rename", r"manifest\.json\.partial"),
    ],
}
LIMITING = {
    "before the metrics are written": [("call", "append")],
    "before TensorBoard's events are written": [("call", "add")],
}
MOMENTS = STARTING | SAVING | RESUMING | ENDING | LIMITING
"""By name, a sequence of events and their subjects; the moment is just before the last event."""

TRUNCATED = {
    "half of the metrics are written": "metrics.jsonl",
    "half of TensorBoard's events are written": "tensorboard/*",
    "half of manifest.json is written": "manifest.json.partial",
    "half of config.json is written": "config.json.partial",
    "half of a new manifest.json is written": "manifest.json.partial",
    "half of the checksums are written": "checkpoints/.*.partial/SHA256SUMS.partial",
    "half of the last manifest.json is written": "manifest.json.partial",
}
"""The file that is truncated at a moment, as if the process were killed while writing it."""

AWAITED = {"Orbax writes arrays": "checkpoints/.*.partial/state*/ocdbt*/**/*"}
"""Files that must exist, too; they are created outside Python, without audit events."""

FILE_EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")


def at(run_dir: Path, moment: str, number: int, act: Callable[[], None]) -> None:
    """Act when a moment comes for the n-th time."""
    wanted, came, times = MOMENTS[moment], 0, 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal came, times
        kind, whose = wanted[came]
        if event != kind or times >= number or not re.fullmatch(whose, _name(run_dir, arguments)):
            return
        came = (came + 1) % len(wanted)
        times += came == 0
        if times < number:
            return
        for file in sorted(run_dir.glob(TRUNCATED.get(moment, "nothing")))[-1:]:
            os.truncate(file, max(file.stat().st_size - 20, 0))
        if moment in AWAITED:
            threading.Thread(target=when_exists, args=(run_dir, AWAITED[moment], act)).start()
        else:
            act()

    sys.addaudithook(watch)


def when_exists(run_dir: Path, pattern: str, act: Callable[[], None]) -> None:
    """Act as soon as a file exists."""
    while not any(file.is_file() for file in run_dir.glob(pattern)):
        time.sleep(0.0005)
    act()


def after_events(run_dir: Path, number: int, seconds: float, act: Callable[[], None]) -> None:
    """Act a little after the n-th time that a file of the run is opened or changed."""
    count = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in FILE_EVENTS and not _name(run_dir, arguments).startswith(".."):
            count += 1
            if count == number:
                threading.Timer(seconds, act).start()

    sys.addaudithook(watch)


def audited(fsync: Callable[[int], None]) -> Callable[[int], None]:
    """Wrap `os.fsync`: it raises the audit event ("fsync", file) afterwards."""

    def audited_fsync(descriptor: Any) -> None:
        fsync(descriptor)
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        sys.audit("fsync", str(Path(f"/proc/self/fd/{number}").readlink()))

    return audited_fsync


def log_events(run_dir: Path, kinds: list[str], file: str) -> None:
    """Log the events of some kinds, one per line."""
    os.fsync = audited(os.fsync)
    # Opened before the hook, because opening is an event, too; unbuffered, because of kills.
    notes = os.open(file, os.O_CREAT | os.O_WRONLY)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in kinds:
            os.write(notes, f"{event} {_name(run_dir, arguments)}\n".encode())

    sys.addaudithook(watch)


def _name(run_dir: Path, arguments: tuple[Any, ...]) -> str:
    """Return the subject of an event: a function, or a file relative to the run's directory."""
    first = arguments[0] if arguments else ""
    name = os.fsdecode(first) if isinstance(first, str | bytes | os.PathLike) else ""
    return os.path.relpath(name, run_dir) if name.startswith("/") else name


def send(number: int) -> None:
    """Send this process a signal."""
    os.kill(os.getpid(), number)


def limit(run_dir: Path, pattern: str, more: int) -> None:
    """Limit the size of all files to that of the largest of some files, plus some bytes."""
    size = max((file.stat().st_size for file in run_dir.glob(pattern)), default=0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + more, resource.RLIM_INFINITY))


def plan(run_dir: Path, request: dict[str, Any]) -> None:
    """Arrange what happens to this process, and when."""
    act: Callable[[], None] = partial(send, signal.SIGKILL)
    if "signals" in request:
        numbers = request["signals"]

        def act() -> None:
            for number in numbers:
                send(number)

    if "limit" in request:
        act = partial(limit, run_dir, *request["limit"])
    if "log" in request:
        log_events(run_dir, *request["log"])
    elif "moment" in request:
        at(run_dir, request["moment"], request.get("number", 1), act)
    elif "events" in request:
        after_events(run_dir, request["events"], request["seconds"], act)
    elif "seconds" in request:
        timer = threading.Timer(request["seconds"], act)
        timer.daemon = True
        timer.start()


def work(command: str, run_dir: Path, request: dict[str, Any]) -> None:
    """Train, or do what `python -m jaxrnn COMMAND RUN_DIR` does."""
    calls.SECONDS_PER_CALL = 1e6  # calls have the same length on a slow machine
    plots.plot_run = lambda run_dir: Path(run_dir)
    if command == "start":
        config = CONFIGS[request["config"]]
        if request.get("often"):  # save at each step, and keep all checkpoints
            config = replace(config, train=replace(config.train, checkpoint_seconds=0))
            calls.SECONDS_PER_CALL = 0.0
            checkpoints.save = partial(checkpoints.save, keep=10**6)
        elif request.get("rarely"):
            config = replace(config, train=replace(config.train, checkpoint_seconds=1e6))
        sys.argv = [__file__]
        with entry.exit_cleanly():
            runner.run(config, run_dir=run_dir)
    else:
        sys.argv = ["jaxrnn", command, str(run_dir)]
        runpy.run_module("jaxrnn", run_name="__main__", alter_sys=True)


def child(request: dict[str, Any], outputs: list[int]) -> None:
    """Work in this process, then exit."""
    signal.alarm(300)  # no test waits forever
    for descriptor, output in zip((1, 2), outputs, strict=True):
        os.dup2(output, descriptor)
    run_dir, code = Path(request["run_dir"]), 0
    try:
        plan(run_dir, request)
        work(request["command"], run_dir, request)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else bool(stop.code)
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    os._exit(code)


class Child:
    """A forked process. Its outputs are pipes, which work even when the disk is full."""

    def __init__(self, request: dict[str, Any]):
        pipes = [os.pipe(), os.pipe()]
        self.pid = os.fork()
        if not self.pid:
            child(request, [end for _, end in pipes])
        for reading, writing in pipes:
            os.close(writing)
            os.set_blocking(reading, False)
        self.outputs = [reading for reading, _ in pipes]

    def wait(self) -> tuple[int, str, str]:
        """Wait until the process ends or is stopped; return its exit code, stdout and stderr."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return -signal.SIGSTOP, "", ""
        stdout, stderr = map(read_pipe, self.outputs)
        return os.waitstatus_to_exitcode(status), stdout, stderr


def read_pipe(reading: int) -> str:
    """Read a pipe, which may still be open in a child of the killed process."""
    try:
        return os.read(reading, 10**6).decode()
    except BlockingIOError:  # there is such a child, and the pipe is empty
        return ""
    finally:
        os.close(reading)


def wrap(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Wrap a function: it raises an audit event before and after."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        sys.audit("call", name)
        result = function(*args, **kwargs)
        sys.audit("return", name)
        return result

    return wrapped


def serve() -> None:
    """Serve requests, line by line; reply with the fields of test_killed's `Ended`."""
    import orbax.checkpoint  # noqa: F401
    from tensorboardX import record_writer  # noqa: F401
    from tensorboardX.proto import event_pb2  # noqa: F401

    for owner, name in WRAPPED:
        setattr(owner, name, wrap(getattr(owner, name), name))
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.freeze()
    stopped: dict[int, Child] = {}
    for line in sys.stdin:
        request, start = json.loads(line), time.perf_counter()
        pid, code, stdout, stderr = 0, 0, "", ""
        if "shell" in request:
            code = subprocess.run(["/bin/sh", "-ec", request["shell"]], check=False).returncode
        else:
            if "continue" in request:
                started = stopped.pop(request["continue"])
                os.kill(started.pid, signal.SIGCONT)
            else:
                started = Child(request)
            pid = started.pid
            code, stdout, stderr = started.wait()
            if code == -signal.SIGSTOP:
                stopped[pid] = started
        seconds = time.perf_counter() - start
        reply = {"code": code, "stdout": stdout, "stderr": stderr, "seconds": seconds, "pid": pid}
        print(json.dumps(reply), flush=True)
    for pid in stopped:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    serve()
