"""The choice of the vmap size: by measurement, within memory, and cached."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from example_tasks import Echo

from jaxrnn.cells import ElmanCell, LSTMCell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.runs import runner, vmap_tuning
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.loop import TrainLoop, compile_loop

CONFIG = ExperimentConfig(
    Echo(), SequenceModel(Recurrent(ElmanCell(3)), 4), TrainConfig(5), seeds=100
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def machine(monkeypatch):
    """A fake machine with a given speed and memory."""
    machine = SimpleNamespace(seconds={}, bytes_a_seed=1, memory=1000, measured=[])

    def seconds(loop, compiled):
        machine.measured.append(loop.config.vmap_size)
        return machine.seconds[loop.config.vmap_size]

    monkeypatch.setattr(vmap_tuning, "compile_loop", lambda loop: loop.config.vmap_size)
    monkeypatch.setattr(vmap_tuning, "require_memory", lambda loop: None)
    monkeypatch.setattr(vmap_tuning, "_seconds_per_step", seconds)
    monkeypatch.setattr(vmap_tuning, "_limit_lanes", lambda vmap_size, room: vmap_size)
    monkeypatch.setattr(
        vmap_tuning, "_bytes_per_lane", lambda vmap_size: vmap_size * machine.bytes_a_seed
    )
    monkeypatch.setattr(
        vmap_tuning, "_free_memory", lambda: machine.memory / vmap_tuning.MEMORY_SHARE
    )
    return machine


@pytest.mark.parametrize(
    ("seconds", "vmap_size", "measured"),
    [
        ({100: 1.0, 10: 2.0}, 100, [100, 10]),
        ({100: 1.0, 10: 0.9}, 100, [100, 10]),  # not enough faster
        ({100: 1.0, 10: 0.5, 1: 0.45}, 10, [100, 10, 1]),
        ({100: 1.0, 10: 0.5, 1: 0.2}, 1, [100, 10, 1]),
    ],
)
def test_the_fastest_size_is_chosen_and_the_largest_of_equals(
    machine, capsys, seconds, vmap_size, measured
):
    machine.seconds = seconds
    assert vmap_tuning.choose_vmap_size(CONFIG) == replace(CONFIG, vmap_size=vmap_size)
    assert machine.measured == measured
    said = capsys.readouterr().err
    words = {
        100: "all 100 seeds in one vmap",
        10: "100 seeds in groups of 10",
        1: "100 seeds, one at a time",
    }
    assert said.startswith(f"note: {words[vmap_size]} (")
    assert all(f"{each}: {seconds[each] * 1e3:.3g} ms" in said for each in measured)


def test_sizes_that_do_not_fit_memory_are_not_tried(machine):
    machine.seconds = {70: 1.0, 10: 2.0}
    machine.bytes_a_seed, machine.memory = 10, 700
    assert vmap_tuning.choose_vmap_size(CONFIG).vmap_size == 70
    assert 100 not in machine.measured
    machine.bytes_a_seed, machine.seconds = 600, {1: 1.0}
    assert vmap_tuning.choose_vmap_size(replace(CONFIG, seeds=99)).vmap_size == 1
    machine.bytes_a_seed = 800
    with pytest.raises(MemoryError):
        vmap_tuning.choose_vmap_size(replace(CONFIG, seeds=98))


def test_the_choice_is_cached_per_experiment(machine, cache, capsys):
    machine.seconds = {100: 1.0, 10: 0.1, 1: 0.1}
    first = vmap_tuning.choose_vmap_size(CONFIG)
    capsys.readouterr()
    machine.measured.clear()
    machine.seconds = {100: 0.1, 10: 1.0, 1: 1.0}
    assert vmap_tuning.choose_vmap_size(replace(CONFIG, seed=5)) == replace(first, seed=5)
    assert machine.measured == []
    assert "as measured here before" in capsys.readouterr().err
    assert (
        vmap_tuning.choose_vmap_size(replace(CONFIG, train=TrainConfig(6))).vmap_size
        == first.vmap_size
    )
    assert vmap_tuning.choose_vmap_size(replace(CONFIG, task=Echo(batch_size=4))).vmap_size == 100
    (file, _) = (cache / "jaxrnn/vmap_sizes").iterdir()
    assert json.loads(file.read_text()).keys() == {"vmap_size", "seconds_per_step"}


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"vmap_size": 0}', '{"vmap_size": 101}', '{"vmap_size": "a"}']
)
def test_a_damaged_cache_file_is_ignored(machine, cache, content):
    machine.seconds = {100: 1.0, 10: 0.1, 1: 0.1}
    vmap_tuning.choose_vmap_size(CONFIG)
    (file,) = (cache / "jaxrnn/vmap_sizes").iterdir()
    file.write_text(content)
    assert vmap_tuning.choose_vmap_size(CONFIG).vmap_size == 10
    assert json.loads(file.read_text())["vmap_size"] == 10


def test_an_unwritable_cache_is_reported(machine, cache, capsys):
    cache.write_text("a file")
    machine.seconds = {100: 1.0, 10: 2.0}
    assert vmap_tuning.choose_vmap_size(CONFIG).vmap_size == 100
    assert "cannot cache this choice" in capsys.readouterr().err


def test_one_seed_is_not_measured(machine, capsys):
    assert vmap_tuning.choose_vmap_size(replace(CONFIG, seeds=1, vmap_size=1)).vmap_size == 1
    assert machine.measured == []
    assert capsys.readouterr().err == ""


def test_lanes_at_once_fit_memory(monkeypatch):
    config = replace(CONFIG, seeds=1, vmap_size=1)
    compiled = compile_loop(TrainLoop(config))
    one = vmap_tuning._bytes_per_lane(compiled)
    assert one > 0
    compiled = compiled._replace(lanes=3, lanes_at_once=3)
    for room, lanes in ((9.5, 3), (2.5, 2), (1.0, 1)):
        monkeypatch.setattr(vmap_tuning, "_free_memory", lambda room=room: room * one)
        assert vmap_tuning.fit_memory(compiled).lanes_at_once == lanes
    monkeypatch.setattr(vmap_tuning, "_free_memory", lambda: 0.9 * one)
    with pytest.raises(MemoryError):
        vmap_tuning.fit_memory(compiled)


def test_the_real_loop_is_measured():
    config = replace(CONFIG, seeds=2)
    seconds = vmap_tuning._measure(config)
    assert list(seconds) == [2, 1]
    assert all(0 < took < 10 and math.isfinite(took) for took in seconds.values())


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_network_too_large_for_memory_is_refused_before_compiling(monkeypatch, seeds):
    def compile_loop(*_, **__):
        raise AssertionError("it was compiled")

    monkeypatch.setattr(runner, "compile_loop", compile_loop)
    monkeypatch.setattr(vmap_tuning, "compile_loop", compile_loop)
    model = SequenceModel(Recurrent(LSTMCell(10**6)), 4)  # 16 TB of parameters
    with pytest.raises(MemoryError):
        runner.run(ExperimentConfig(Echo(), model, TrainConfig(3), seeds=seeds))
