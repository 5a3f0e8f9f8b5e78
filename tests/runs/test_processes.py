"""Several processes train one run: the same results, and a clear end if one of them dies."""

import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from jaxrnn.cells import LSTMCell
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import LanguageModel
from jaxrnn.runs import agreement, checkpoints, metrics
from jaxrnn.runs.agreement import PARTS
from jaxrnn.tasks.language import Language
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.mesh import MeshShape
from jaxrnn.training.processes import EXIT_CODE, Processes, share

HERE = Path(__file__).parent
SCRIPT = HERE.parent / "train_together.py"
TEXT = "".join(chr(97 + (n * n + n // 7) % 11) for n in range(900))
TRAIN, RESUME = (str(SCRIPT),), ("-m", "jaxrnn", "resume")
LOST = "error: another process of this run has ended or is out of reach: resume the run"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def starter(folder, cache_home, environment):
    """A function that starts the processes of a command in a folder; they are ended afterwards."""
    (folder / "text.txt").write_text(TEXT)
    started: list[subprocess.Popen[str]] = []

    def start(*command, processes=2, devices=2, heartbeat=10, join_timeout=60, each=()):
        settings = {"XDG_CACHE_HOME": str(cache_home), "JAX_NUM_CPU_DEVICES": str(devices)}
        settings |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # less to compile
        where = f"127.0.0.1:{free_port()}"
        group = []
        for number in range(processes):
            options = ["--coordinator", where, "--process-id", str(number)]
            options += ["--processes", str(processes), "--heartbeat", str(heartbeat)]
            options += ["--join-timeout", str(join_timeout)]
            options = options if processes > 1 else []
            own = each[number] if each else ()
            process = subprocess.Popen(
                [sys.executable, *map(str, [*command, *own, *options])],
                cwd=folder,
                env=environment | settings,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            group.append(process)
        started.extend(group)
        return group

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def start(tmp_path, cache_home, environment):
    with starter(tmp_path, cache_home, environment) as start:
        yield start


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache_home, environment):
    """Train in one process with 4 devices, once for the same options; return the run."""
    folder = tmp_path_factory.mktemp("whole")
    with starter(folder, cache_home, environment) as start:

        @cache
        def whole(*options):
            run_dir = folder / "-".join(map(str, options)).replace("=", "").strip("-")
            train(start, run_dir, *options, processes=1, devices=4)
            return run_dir

        yield whole


def ended(process):
    """Wait for a process; return its exit code, output and errors."""
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def train(start, run_dir, *options, **layout):
    group = start(*TRAIN, "--text", "text.txt", "--run-dir", run_dir, *options, **layout)
    results = [ended(process) for process in group]
    assert [code for code, _, _ in results] == [0] * len(group), results
    return results


def losses(run_dir):
    return metrics.read(run_dir / "metrics.jsonl").values


def assert_same(run_dir, expected, tolerance):
    """The metrics are the same, and there is a checkpoint of the last step."""
    for name, values in losses(expected).items():
        np.testing.assert_allclose(losses(run_dir)[name], values, atol=tolerance, err_msg=name)
    newest = checkpoints.steps(expected / "checkpoints")[-1]
    assert checkpoints.steps(run_dir / "checkpoints")[-1] == newest


SEEDS = "--seeds", 4, "--mesh", "seed=4"
ROWS = "--mesh", "data=4"
BOTH = "--seeds", 2, "--mesh", "seed=2,data=2"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "processes", "tolerance"),
    [(SEEDS, 2, 0), (ROWS, 2, 1e-5), (BOTH, 4, 1e-5)],
)
def test_processes_train_what_one_trains(start, whole, tmp_path, options, processes, tolerance):
    """One process with 4 devices, 2 with 2, and 4 with 1; process 0 alone writes and prints."""
    results = train(start, tmp_path / "run", *options, processes=processes, devices=4 // processes)
    assert_same(tmp_path / "run", whole(*options), tolerance)
    (_, out, err), *others = results
    assert str(tmp_path / "run") in out
    assert "error" not in err
    assert others == [(0, "", "")] * (processes - 1)
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["sessions"][0]["processes"] == processes


@pytest.mark.slow
def test_all_devices_are_used_by_default(start, tmp_path):
    train(start, tmp_path / "rows", "--steps", 3)
    assert json.loads((tmp_path / "rows/manifest.json").read_text())["mesh"] == "data=4"
    train(start, tmp_path / "seeds", "--seeds", 3, "--steps", 3)
    assert json.loads((tmp_path / "seeds/manifest.json").read_text())["mesh"] == "seed=3"


def has_saved(run_dir, step):
    return (found := checkpoints.steps(run_dir / "checkpoints")) and found[-1] >= step


def wait_until(condition, group, seconds=400):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        assert all(process.poll() is None for process in group), [ended(each) for each in group]
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_process_ends_the_others(start, whole, tmp_path, number):
    """By one line, within the heartbeat and a few seconds. Then fewer processes go on."""
    run_dir = tmp_path / "run"
    options = "--text", "text.txt", "--run-dir", run_dir, *SEEDS, "--steps", 240
    group = start(*TRAIN, *options, heartbeat=5)
    wait_until(lambda: has_saved(run_dir, 20), group)
    group[1].send_signal(number)
    died = time.monotonic()
    code, _, err = ended(group[0])
    assert time.monotonic() - died < 30
    assert code == EXIT_CODE
    assert err.splitlines()[-1].startswith(LOST)
    assert err.count("error") == 1
    group[1].kill()
    group[1].communicate()
    (alone,) = start(*RESUME, run_dir, processes=1, devices=4)
    assert ended(alone)[0] == 0
    assert_same(run_dir, whole(*SEEDS, "--steps", 240), 0)


@pytest.mark.slow
def test_process_0_is_killed_while_it_saves(start, whole, tmp_path):
    """The half checkpoint is never read; one process goes on from the one before."""
    run_dir = tmp_path / "run"
    options = "--text", "text.txt", "--run-dir", run_dir, *SEEDS, "--steps", 240
    group = start(*TRAIN, *options, heartbeat=5)
    wait_until(lambda: has_saved(run_dir, 20), group)
    for _ in range(10):
        wait_until(lambda: list((run_dir / "checkpoints").glob(".*.partial")), group)
        group[0].send_signal(signal.SIGSTOP)
        if list((run_dir / "checkpoints").glob(".*.partial")):  # it did not finish just before
            break
        group[0].send_signal(signal.SIGCONT)
    group[0].kill()
    died = time.monotonic()
    (code, _, _), (other_code, _, err) = map(ended, group)
    assert time.monotonic() - died < 30
    assert (code, other_code) == (-signal.SIGKILL, EXIT_CODE)
    assert err.startswith(LOST)
    assert err.count("\n") == 1
    assert list((run_dir / "checkpoints").glob(".*.partial"))
    (alone,) = start(*RESUME, run_dir, processes=1, devices=4)
    assert ended(alone)[0] == 0
    assert_same(run_dir, whole(*SEEDS, "--steps", 240), 0)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all(start, whole, tmp_path):
    """With a checkpoint; two processes go on, then one, then two again."""
    run_dir = tmp_path / "run"
    options = "--text", "text.txt", "--run-dir", run_dir, *ROWS, "--steps", 240
    group = start(*TRAIN, *options)
    for step, processes in ((20, 1), (90, 2)):
        wait_until(lambda step=step: has_saved(run_dir, step), group)
        group[-1].send_signal(signal.SIGTERM)
        results = [ended(process) for process in group]
        assert [code for code, _, _ in results] == [128 + signal.SIGTERM] * len(group)
        assert "resume with: " in results[0][2]
        group = start(*RESUME, run_dir, processes=processes, devices=4 // processes)
    assert [ended(process)[0] for process in group] == [0, 0]
    assert_same(run_dir, whole(*ROWS, "--steps", 240), 1e-4)


@pytest.mark.slow
def test_an_error_of_one_process_ends_the_others(start, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/mine.txt").write_text("mine")
    group = start(*TRAIN, "--text", "text.txt", "--run-dir", tmp_path / "run", heartbeat=5)
    (code, _, err), (other_code, _, other_err) = [ended(process) for process in group]
    assert code == 2
    assert err == f"error: {tmp_path / 'run'} is not empty; choose another run directory\n"
    assert other_code == EXIT_CODE
    assert other_err.startswith(LOST)
    assert other_err.count("\n") == 1


@pytest.mark.slow
def test_other_settings_in_one_process_are_refused_by_all(start, tmp_path):
    """Each by the same line, before there is a run."""
    options = "--text", "text.txt", "--run-dir", tmp_path / "run"
    group = start(*TRAIN, *options, each=[("--steps", 60), ("--steps", 61, "--seeds", 2)])
    for code, out, err in map(ended, group):
        assert (code, out) == (2, "")
        assert err == (
            "error: process 1 was started with other settings or data than process 0 (train,"
            " seeds): start the same command in each process\n"
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_random_kills(start, whole, tmp_path):
    """Six kills of any process, while it starts, trains or saves; each time other layouts go on."""
    draw, run_dir = random.Random(0), tmp_path / "run"
    options = "--text", "text.txt", "--run-dir", run_dir, *SEEDS, "--steps", 540
    group = start(*TRAIN, *options)
    wait_until(lambda: has_saved(run_dir, 1), group)
    for kill in range(6):
        if kill % 4:
            newest = checkpoints.steps(run_dir / "checkpoints")[-1]
            wait_until(lambda step=newest + 1: has_saved(run_dir, step), group)
        time.sleep(draw.uniform(0, 2))
        victim = draw.choice(group)
        victim.kill()
        for process in group:
            code, _, err = ended(process)
            assert (code == -signal.SIGKILL) == (process is victim)
            assert process is victim or code == EXIT_CODE or "no process 0 answers" in err, err
            assert "Traceback" not in err
        layout = {"processes": (n := draw.choice([1, 2, 2, 4])), "devices": 4 // n}
        group = start(*RESUME, run_dir, **layout, join_timeout=30)
    assert [ended(process)[0] for process in group] == [0] * len(group)
    assert_same(run_dir, whole(*SEEDS, "--steps", 540), 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coordinator": "here"}, "HOST:PORT or auto"),
        ({"coordinator": "here:1"}, "needs --process-id and --processes"),
        ({"coordinator": "auto", "processes": 2}, "need --coordinator HOST:PORT"),
        ({"process_id": 0, "processes": 2}, "need --coordinator HOST:PORT"),
        ({"coordinator": "h:1", "process_id": 2, "processes": 2}, "from 0 to --processes - 1"),
        ({"coordinator": "h:1", "process_id": -1, "processes": 2}, "from 0 to --processes - 1"),
        ({"coordinator": "h:65536", "process_id": 0, "processes": 2}, "at most 65535"),
        ({"heartbeat": 0}, "heartbeat must be at least 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(SettingError, match=message):
        Processes(**options)


def test_a_coordinator_out_of_reach_is_an_error(run):
    options = "--process-id", "1", "--processes", "2", "--join-timeout", "1"
    ended = run("memory.py", "--coordinator", f"127.0.0.1:{free_port()}", *options)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: no process 0 answers at 127.0.0.1:")
    assert ended.stderr.count("\n") == 1


@pytest.mark.slow
def test_missing_processes_are_an_error(start, tmp_path):
    first, second = start(
        *TRAIN, "--text", "text.txt", "--run-dir", tmp_path / "run", join_timeout=3
    )
    second.kill()
    code, _, err = ended(first)
    assert code in (EXIT_CODE, 2)
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


LANGUAGE = Language.from_file(HERE / "test_processes.py", batch_size=2, sequence_length=5)
CONFIG = ExperimentConfig(
    LANGUAGE,
    LanguageModel(Recurrent(LSTMCell(3)), 90),
    TrainConfig(4),
)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"train": TrainConfig(5)}, "train"),
        ({"seed": 1, "mesh": MeshShape(data=2)}, "seed, mesh"),
        ({"task": replace(LANGUAGE, file=HERE / "test_tuning.py")}, "task"),
    ],
)
def test_processes_must_train_the_same(change, parts, monkeypatch):
    """Process 1 here has other settings, or another text."""
    other = replace(CONFIG, **change)
    digests = [[agreement._digest(each, part) for part in PARTS] for each in (CONFIG, other)]
    monkeypatch.setattr(agreement.processes, "are_several", lambda: True)
    monkeypatch.setattr(agreement.processes, "share", lambda mine: np.array([mine, digests[1]]))
    with pytest.raises(SettingError, match=rf"process 1 was .* process 0 \({parts}\)"):
        agreement.require_same_experiment(CONFIG)
    agreement.require_same_experiment(other)


def test_the_text_may_be_at_another_place(tmp_path):
    copy = tmp_path / "copy.txt"
    copy.write_bytes(LANGUAGE.file.read_bytes())
    moved = replace(CONFIG, task=replace(LANGUAGE, file=copy))
    assert agreement._digest(moved, "task") == agreement._digest(CONFIG, "task")


def test_alone_nothing_is_shared():
    np.testing.assert_array_equal(share([3, 1]), [[3, 1]])
