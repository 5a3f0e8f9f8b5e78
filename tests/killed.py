"""Runs that are killed at a chosen moment, for tests/test_killed.py.

As a script it imports once what training needs, and then forks a process for each line of JSON that
it reads. That process trains as a user's script does, or runs `python -m jaxrnn`, until its moment
comes. Nothing in jaxrnn knows of this: moments are found by Python's audit events, for files that
are opened, made, renamed or removed, and by functions that are wrapped here.
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
from jaxrnn.training import loop
from jaxrnn.training.config import ExperimentConfig, TrainConfig


@dataclass(frozen=True)
class Rows(Trap):
    """Echo in two rows, a trap that is sprung only on demand, and a metric of several numbers."""

    batch_size: int = 2
    sprung: int = -1

    def metrics(self, outputs, batch):
        """The accuracy, and `right`, [T]: the share of rows that were right at a time step."""
        right = (outputs.argmax(-1) == batch.targets).astype(jnp.float32).mean(0)
        return super().metrics(outputs, batch) | {"right": right}


def _model(cell: Any, dropout: float = 0.0) -> SequenceModel:
    return SequenceModel(Recurrent(cell, recurrent_dropout=dropout), 4)


STUDIES = {
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
        seed=17,  # of these three break off: at steps 3 and 21, and at the last look
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
"""Functions that are made audit events: ("call", name) and ("return", name)."""

HIDDEN, SHOWN = r"checkpoints/\.[^/]+\.partial", r"checkpoints/\d+(\.\d+)?"
STATE, SUMS = HIDDEN + r"/state[^/]*", HIDDEN + r"/SHA256SUMS\.partial"
POSITION = HIDDEN + r"/position\.json\.partial"

STARTING = {
    "nothing is there but the directory": [("open", r"metrics\.jsonl")],
    "metrics.jsonl is made": [("open", r"manifest\.json\.partial")],
    "half of manifest.json is written": [("os.rename", r"manifest\.json\.partial")],
    "manifest.json is made": [("open", r"config\.json\.partial")],
    "half of config.json is written": [("os.rename", r"config\.json\.partial")],
    "config.json is made": [("call", "compile_loop")],
    "it is compiled": [("return", "compile_loop")],
    "half of a new manifest.json is written": [
        ("return", "compile_loop"),
        ("os.rename", r"manifest\.json\.partial"),
    ],
    "TensorBoard's directory is to be made": [("os.mkdir", "tensorboard")],
    "TensorBoard's file is to be made": [("open", "tensorboard/events.*")],
}
SAVING = {
    "half of the metrics are written": [("return", "append")],
    "half of TensorBoard's events are written": [("return", "add")],
    "all is measured and nothing saved": [("call", "save")],
    "the hidden directory is to be made": [("os.mkdir", HIDDEN)],
    "Orbax begins": [("os.mkdir", STATE), ("open", STATE + "/.*")],
    "Orbax writes arrays": [("os.mkdir", STATE)],
    "Orbax writes what the arrays are": [("os.mkdir", STATE), ("open", STATE + "/_METADATA")],
    "Orbax is about to rename": [("os.rename", STATE)],
    "the arrays are written": [("os.rename", STATE), ("open", POSITION)],
    "the position is written": [("os.rename", POSITION), ("open", SUMS)],
    "half of the checksums are written": [
        ("os.rename", POSITION),
        ("os.rename", SUMS),
    ],
    "all is written and nothing renamed": [("os.rename", HIDDEN)],
    "it is renamed": [("os.rename", HIDDEN), ("open", "checkpoints")],
    "an old one is to be hidden": [("os.rename", SHOWN)],
    "an old one is hidden": [("os.rename", SHOWN), ("open", HIDDEN)],
    "some of an old one is removed": [("os.rename", SHOWN), *[("os.remove", ".*")] * 4],
    "all of an old one is removed": [("os.rename", SHOWN), ("os.rmdir", HIDDEN)],
}
RESUMING = {
    "the metrics are to be cut": [("call", "truncate")],
    "the metrics are cut": [("return", "truncate")],
}
ENDING = {
    "the manifest is to say how it ended": [("call", "end_session")],
    "half of the last manifest.json is written": [
        ("call", "end_session"),
        ("os.rename", r"manifest\.json\.partial"),
    ],
}
LIMITING = {
    "the metrics are to be written": [("call", "append")],
    "TensorBoard's events are to be written": [("call", "add")],
}
MOMENTS = STARTING | SAVING | RESUMING | ENDING | LIMITING
"""By name, events and whose they are, one after the other; the moment is just before the last."""

HALVED = {
    "half of the metrics are written": "metrics.jsonl",
    "half of TensorBoard's events are written": "tensorboard/*",
    "half of manifest.json is written": "manifest.json.partial",
    "half of config.json is written": "config.json.partial",
    "half of a new manifest.json is written": "manifest.json.partial",
    "half of the checksums are written": "checkpoints/.*.partial/SHA256SUMS.partial",
    "half of the last manifest.json is written": "manifest.json.partial",
}
"""What loses its end at a moment, as if that had been within the writing."""

AWAITED = {"Orbax writes arrays": "checkpoints/.*.partial/state*/ocdbt*/**/*"}
"""What must be there, too: it is made outside of Python, where there are no audit events."""

FILE_EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")


def at(run_dir: Path, moment: str, number: int, act: Callable[[], None]) -> None:
    """Act when a moment comes for the number-th time."""
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
        for file in sorted(run_dir.glob(HALVED.get(moment, "nothing")))[-1:]:
            os.truncate(file, max(file.stat().st_size - 20, 0))
        if moment in AWAITED:
            threading.Thread(target=when_there, args=(run_dir, AWAITED[moment], act)).start()
        else:
            act()

    sys.addaudithook(watch)


def when_there(run_dir: Path, pattern: str, act: Callable[[], None]) -> None:
    """Act as soon as there is a file."""
    while not any(file.is_file() for file in run_dir.glob(pattern)):
        time.sleep(0.0005)
    act()


def after_events(run_dir: Path, number: int, seconds: float, act: Callable[[], None]) -> None:
    """Act a little after the number-th file of the run is opened, made, renamed or removed."""
    count = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in FILE_EVENTS and not _name(run_dir, arguments).startswith(".."):
            count += 1
            if count == number:
                threading.Timer(seconds, act).start()

    sys.addaudithook(watch)


def audited(fsync: Callable[[int], None]) -> Callable[[int], None]:
    """As `os.fsync`, but with an audit event ("fsync", file) after it."""

    def audited_fsync(descriptor: Any) -> None:
        fsync(descriptor)
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        sys.audit("fsync", str(Path(f"/proc/self/fd/{number}").readlink()))

    return audited_fsync


def note_events(run_dir: Path, kinds: list[str], file: str) -> None:
    """Write down what happens, a line an event of these kinds."""
    os.fsync = audited(os.fsync)
    # Opened here: opening is an event, too. A line is there when it is written: no buffer.
    notes = os.open(file, os.O_CREAT | os.O_WRONLY)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in kinds:
            os.write(notes, f"{event} {_name(run_dir, arguments)}\n".encode())

    sys.addaudithook(watch)


def _name(run_dir: Path, arguments: tuple[Any, ...]) -> str:
    """What an event is about: a file, as seen from the run's directory, or a function."""
    first = arguments[0] if arguments else ""
    name = os.fsdecode(first) if isinstance(first, str | bytes | os.PathLike) else ""
    return os.path.relpath(name, run_dir) if name.startswith("/") else name


def send(number: int) -> None:
    """Send this process a signal."""
    os.kill(os.getpid(), number)


def limit(run_dir: Path, pattern: str, more: int) -> None:
    """From now on no file may become larger than this one is, but for some more bytes."""
    size = max((file.stat().st_size for file in run_dir.glob(pattern)), default=0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + more, resource.RLIM_INFINITY))


def plan(run_dir: Path, request: dict[str, Any]) -> None:
    """Arrange what is to happen to this process, and when."""
    act: Callable[[], None] = partial(send, signal.SIGKILL)
    if "signals" in request:
        numbers = request["signals"]

        def act() -> None:
            for number in numbers:
                send(number)

    if "limit" in request:
        act = partial(limit, run_dir, *request["limit"])
    if "note" in request:
        note_events(run_dir, *request["note"])
    elif "moment" in request:
        at(run_dir, request["moment"], request.get("number", 1), act)
    elif "events" in request:
        after_events(run_dir, request["events"], request["seconds"], act)
    elif "seconds" in request:
        timer = threading.Timer(request["seconds"], act)
        timer.daemon = True
        timer.start()


def work(verb: str, run_dir: Path, request: dict[str, Any]) -> None:
    """Train, or do what `python -m jaxrnn VERB RUN_DIR` does."""
    loop.SECONDS_PER_CALL = 1e6  # a call's length is the chunk, however slow this machine is
    plots.plot_run = lambda run_dir: Path(run_dir)
    if verb == "start":
        study = STUDIES[request["study"]]
        if request.get("often"):  # a checkpoint at each step, and all of them are kept
            study = replace(study, train=replace(study.train, checkpoint_seconds=0))
            loop.SECONDS_PER_CALL = 0.0
            checkpoints.save = partial(checkpoints.save, keep=10**6)
        elif request.get("rarely"):
            study = replace(study, train=replace(study.train, checkpoint_seconds=1e6))
        sys.argv = [__file__]
        with entry.exit_cleanly():
            runner.run(study, run_dir=run_dir)
    else:
        sys.argv = ["jaxrnn", verb, str(run_dir)]
        runpy.run_module("jaxrnn", run_name="__main__", alter_sys=True)


def child(request: dict[str, Any], outputs: list[int]) -> None:
    """Work in this process, and end it."""
    signal.alarm(300)  # so that no test waits forever
    for descriptor, output in zip((1, 2), outputs, strict=True):
        os.dup2(output, descriptor)
    run_dir, code = Path(request["run_dir"]), 0
    try:
        plan(run_dir, request)
        work(request["verb"], run_dir, request)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else bool(stop.code)
    except BaseException:
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    os._exit(code)


class Child:
    """A forked process; its outputs are pipes, as a file could not grow when the disk is full."""

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
        """How it ended, or that it is stopped; and what it said."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return -signal.SIGSTOP, "", ""
        stdout, stderr = map(said, self.outputs)
        return os.waitstatus_to_exitcode(status), stdout, stderr


def said(reading: int) -> str:
    """All that a pipe holds; it may still be open in a process that the killed one had started."""
    try:
        return os.read(reading, 10**6).decode()
    except BlockingIOError:  # such a process is left, and nothing was said
        return ""
    finally:
        os.close(reading)


def wrap(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A function that is two audit events, too."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        sys.audit("call", name)
        result = function(*args, **kwargs)
        sys.audit("return", name)
        return result

    return wrapped


def serve() -> None:
    """Do what is asked for, line by line; answer how it ended, as test_killed's `Ended`."""
    import orbax.checkpoint  # noqa: F401
    from tensorboardX import record_writer  # noqa: F401
    from tensorboardX.proto import event_pb2  # noqa: F401

    for owner, name in WRAPPED:
        setattr(owner, name, wrap(getattr(owner, name), name))
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest's parent may have ignored it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.freeze()
    stopped: dict[int, Child] = {}
    for line in sys.stdin:
        request, began = json.loads(line), time.perf_counter()
        pid, code, stdout, stderr = 0, 0, "", ""
        if "shell" in request:
            code = subprocess.run(["/bin/sh", "-ec", request["shell"]], check=False).returncode
        else:
            if "go_on" in request:
                started = stopped.pop(request["go_on"])
                os.kill(started.pid, signal.SIGCONT)
            else:
                started = Child(request)
            pid = started.pid
            code, stdout, stderr = started.wait()
            if code == -signal.SIGSTOP:
                stopped[pid] = started
        seconds = time.perf_counter() - began
        reply = {"code": code, "stdout": stdout, "stderr": stderr, "seconds": seconds, "pid": pid}
        print(json.dumps(reply), flush=True)
    for pid in stopped:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    serve()
