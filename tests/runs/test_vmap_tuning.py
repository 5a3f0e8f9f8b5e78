"""How many seeds side by side: what is chosen by what was measured, and kept."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from example_tasks import Echo

from jaxrnn.cells import ElmanCell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.runs import vmap_tuning
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.loop import compile_program, make_program

pytestmark = pytest.mark.optimized(False)

STUDY = ExperimentConfig(
    Echo(), SequenceModel(Recurrent(ElmanCell(3)), 4), TrainConfig(5), seeds=100
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def machine(monkeypatch):
    """A machine of which the tests say how fast and how large it is."""
    machine = SimpleNamespace(seconds={}, bytes_a_seed=1, memory=1000, measured=[])

    def seconds(program, compiled, study):
        machine.measured.append(study.vmap_size)
        return machine.seconds[study.vmap_size]

    monkeypatch.setattr(vmap_tuning, "compile_program", lambda study, program: study.vmap_size)
    monkeypatch.setattr(vmap_tuning, "_seconds", seconds)
    monkeypatch.setattr(vmap_tuning, "_fitted", lambda vmap_size, room: vmap_size)
    monkeypatch.setattr(vmap_tuning, "_needed", lambda vmap_size: vmap_size * machine.bytes_a_seed)
    monkeypatch.setattr(vmap_tuning, "_free_memory", lambda: machine.memory / vmap_tuning.SHARE)
    return machine


@pytest.mark.parametrize(
    ("seconds", "vmap_size", "measured"),
    [
        ({100: 1.0, 10: 2.0}, 100, [100, 10]),
        ({100: 1.0, 10: 0.9}, 100, [100, 10]),  # not worth it
        ({100: 1.0, 10: 0.5, 1: 0.45}, 10, [100, 10, 1]),
        ({100: 1.0, 10: 0.5, 1: 0.2}, 1, [100, 10, 1]),
    ],
)
def test_the_fastest_is_chosen_and_of_equals_the_largest(
    machine, capsys, seconds, vmap_size, measured
):
    machine.seconds = seconds
    assert vmap_tuning.choose(STUDY) == replace(STUDY, vmap_size=vmap_size)
    assert machine.measured == measured
    said = capsys.readouterr().err
    words = {100: "100 seeds side by side", 10: "100 seeds in groups of 10", 1: "100 seeds in turn"}
    assert said.startswith(f"note: {words[vmap_size]} (")
    assert all(f"{each}: {seconds[each] * 1e3:.3g} ms" in said for each in measured)


def test_what_does_not_fit_memory_is_not_tried(machine):
    machine.seconds = {70: 1.0, 10: 2.0}
    machine.bytes_a_seed, machine.memory = 10, 700
    assert vmap_tuning.choose(STUDY).vmap_size == 70
    assert 100 not in machine.measured
    machine.bytes_a_seed, machine.seconds = 600, {1: 1.0}
    assert vmap_tuning.choose(replace(STUDY, seeds=99)).vmap_size == 1
    machine.bytes_a_seed = 800
    with pytest.raises(MemoryError):
        vmap_tuning.choose(replace(STUDY, seeds=98))


def test_the_choice_is_kept_for_such_a_study_alone(machine, cache, capsys):
    machine.seconds = {100: 1.0, 10: 0.1, 1: 0.1}
    first = vmap_tuning.choose(STUDY)
    capsys.readouterr()
    machine.measured.clear()
    machine.seconds = {100: 0.1, 10: 1.0, 1: 1.0}
    assert vmap_tuning.choose(replace(STUDY, seed=5)) == replace(first, seed=5)
    assert machine.measured == []
    assert "as measured here before" in capsys.readouterr().err
    assert vmap_tuning.choose(replace(STUDY, train=TrainConfig(6))).vmap_size == first.vmap_size
    assert vmap_tuning.choose(replace(STUDY, task=Echo(batch_size=4))).vmap_size == 100
    (kept, _) = (cache / "jaxrnn/groups").iterdir()
    assert json.loads(kept.read_text()).keys() == {"group", "seconds_a_step"}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"group": 0}', '{"group": 101}', '{"group": "a"}']
)
def test_a_damaged_choice_is_made_again(machine, cache, content):
    machine.seconds = {100: 1.0, 10: 0.1, 1: 0.1}
    vmap_tuning.choose(STUDY)
    (kept,) = (cache / "jaxrnn/groups").iterdir()
    kept.write_text(content)
    assert vmap_tuning.choose(STUDY).vmap_size == 10
    assert json.loads(kept.read_text())["group"] == 10


def test_a_choice_that_cannot_be_kept_is_said(machine, cache, capsys):
    cache.write_text("a file")
    machine.seconds = {100: 1.0, 10: 2.0}
    assert vmap_tuning.choose(STUDY).vmap_size == 100
    assert "cannot be kept" in capsys.readouterr().err


def test_one_seed_needs_no_choice(machine, capsys):
    assert vmap_tuning.choose(replace(STUDY, seeds=1, vmap_size=1)).vmap_size == 1
    assert machine.measured == []
    assert capsys.readouterr().err == ""


def test_as_many_lanes_are_at_work_as_memory_holds(monkeypatch):
    study = replace(STUDY, seeds=1, vmap_size=1)
    compiled = compile_program(study, make_program(study))
    one = vmap_tuning._needed(compiled)
    assert one > 0
    compiled = compiled._replace(lanes=3, at_once=3)
    for room, lanes in ((9.5, 3), (2.5, 2), (1.0, 1)):
        monkeypatch.setattr(vmap_tuning, "_free_memory", lambda room=room: room * one)
        assert vmap_tuning.fit_memory(compiled).at_once == lanes
    monkeypatch.setattr(vmap_tuning, "_free_memory", lambda: 0.9 * one)
    with pytest.raises(MemoryError):
        vmap_tuning.fit_memory(compiled)


def test_what_is_measured_is_the_real_program():
    study = replace(STUDY, seeds=2)
    seconds = vmap_tuning._measure(study)
    assert list(seconds) == [2, 1]
    assert all(0 < took < 10 and math.isfinite(took) for took in seconds.values())
