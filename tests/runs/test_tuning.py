"""The choice of the vmap size and the mesh: by measurement, within memory, and cached."""

import json
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import jax
import pytest
from example_tasks import Echo

from jaxrnn.cells import ElmanCell, LSTMCell
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.runs import runner, tuning
from jaxrnn.training.calls import compile_loop
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.loop import TrainLoop
from jaxrnn.training.mesh import MeshShape

CONFIG = ExperimentConfig(
    Echo(), SequenceModel(Recurrent(ElmanCell(3)), 4), TrainConfig(5), seeds=100
)


def choose_layout(config):
    return tuning.choose_layout(TrainLoop(config)).config


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def machine(monkeypatch):
    """A fake machine with one device, and a given speed and memory."""
    machine = SimpleNamespace(seconds={}, bytes_a_seed=1, memory=1000, measured=[], devices=1)

    def seconds(loop, compiled):
        machine.measured.append(loop.config.vmap_size)
        return machine.seconds[loop.config.vmap_size]

    monkeypatch.setattr(tuning, "compile_loop", lambda loop: loop)
    monkeypatch.setattr(jax, "device_count", lambda: machine.devices)
    monkeypatch.setattr(tuning, "require_memory", lambda loop: None)
    monkeypatch.setattr(tuning, "_seconds_per_step", seconds)
    monkeypatch.setattr(
        tuning, "_bytes_needed", lambda loop: loop.seeds_at_once * machine.bytes_a_seed
    )
    monkeypatch.setattr(tuning, "_free_memory", lambda: machine.memory / tuning.MEMORY_SHARE)
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
    assert choose_layout(CONFIG) == replace(CONFIG, vmap_size=vmap_size, mesh=MeshShape())
    assert machine.measured == measured
    said = capsys.readouterr().err
    words = {
        100: "all 100 seeds in one vmap",
        10: "100 seeds in groups of 10",
        1: "100 seeds, one at a time",
    }
    assert said.startswith(f"note: {words[vmap_size]} (")
    assert all(f"{words[each]}: {seconds[each] * 1e3:.3g} ms" in said for each in measured)


def test_sizes_that_do_not_fit_memory_are_not_tried(machine):
    machine.seconds = {70: 1.0, 10: 2.0}
    machine.bytes_a_seed, machine.memory = 10, 700
    assert choose_layout(CONFIG).vmap_size == 70
    assert 100 not in machine.measured
    machine.bytes_a_seed, machine.seconds = 600, {1: 1.0}
    assert choose_layout(replace(CONFIG, seeds=99)).vmap_size == 1
    machine.devices, machine.memory = 4, 1300
    assert choose_layout(replace(CONFIG, seeds=97)).mesh == MeshShape(seed=2)
    machine.devices, machine.bytes_a_seed = 1, 1400
    with pytest.raises(MemoryError, match="rows would fit"):
        choose_layout(replace(CONFIG, seeds=98))


def test_the_choice_is_cached_per_experiment(machine, cache, capsys):
    machine.seconds = {100: 1.0, 10: 0.1, 1: 0.1}
    first = choose_layout(CONFIG)
    capsys.readouterr()
    machine.measured.clear()
    machine.seconds = {100: 0.1, 10: 1.0, 1: 1.0}
    assert choose_layout(replace(CONFIG, seed=5)) == replace(first, seed=5)
    assert machine.measured == []
    assert "as measured here before" in capsys.readouterr().err
    assert choose_layout(replace(CONFIG, train=TrainConfig(6))).vmap_size == first.vmap_size
    assert choose_layout(replace(CONFIG, task=Echo(batch_size=4))).vmap_size == 100
    (file, _) = (cache / "jaxrnn/layouts").iterdir()
    assert json.loads(file.read_text()).keys() == {"vmap_size", "mesh"}


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"vmap_size": 0}', '{"vmap_size": 101}', '{"vmap_size": "a"}']
)
def test_a_damaged_cache_file_is_ignored(machine, cache, content):
    machine.seconds = {100: 1.0, 10: 0.1, 1: 0.1}
    choose_layout(CONFIG)
    (file,) = (cache / "jaxrnn/layouts").iterdir()
    file.write_text(content)
    assert choose_layout(CONFIG).vmap_size == 10
    assert json.loads(file.read_text())["vmap_size"] == 10


def test_an_unwritable_cache_is_reported(machine, cache, capsys):
    cache.write_text("a file")
    machine.seconds = {100: 1.0, 10: 2.0}
    assert choose_layout(CONFIG).vmap_size == 100
    assert "cannot cache this choice" in capsys.readouterr().err


def test_one_seed_is_not_measured(machine, capsys):
    assert choose_layout(replace(CONFIG, seeds=1, vmap_size=1)).vmap_size == 1
    assert machine.measured == []
    assert capsys.readouterr().err == ""


def test_a_program_beyond_memory_is_refused_with_what_would_fit(monkeypatch):
    config = replace(CONFIG, seeds=1, vmap_size=1, task=Echo(batch_size=100))
    compiled = compile_loop(TrainLoop(config))
    needed = tuning._bytes_needed(compiled)
    assert needed > 0
    assert tuning.fit_memory(compiled) is compiled
    monkeypatch.setattr(tuning, "_free_memory", lambda: 0.4 * needed)
    with pytest.raises(MemoryError, match="a batch of about 40 rows would fit"):
        tuning.fit_memory(compiled)
    many = compile_loop(TrainLoop(replace(CONFIG, vmap_size=50)))
    monkeypatch.setattr(tuning, "_free_memory", lambda: 0.5 * tuning._bytes_needed(many))
    with pytest.raises(MemoryError, match="use a vmap size of at most 25"):
        tuning.fit_memory(many)


@pytest.mark.slow
def test_the_real_loop_is_measured():
    loop = TrainLoop(replace(CONFIG, seeds=8, mesh=MeshShape(seed=2)))
    seconds = tuning._measure_sizes(loop)
    assert [layout.vmap_size for layout, _ in seconds][:2] == [4, 2]
    assert all(0 < took < 10 and math.isfinite(took) for _, took in seconds)


@pytest.mark.slow
def test_a_loop_with_another_layout_is_that_of_a_new_loop():
    loop = TrainLoop(replace(CONFIG, seeds=4))
    layout = replace(loop.config, vmap_size=2, mesh=MeshShape(seed=2))
    texts = [
        compile_loop(each).executable.as_text()
        for each in (loop.with_layout(layout), TrainLoop(layout))
    ]
    with_lines_of_code = re.compile(r", metadata={[^}]*}|^FileNames$.*?(?=^%|^ENTRY)", re.S | re.M)
    first, second = (with_lines_of_code.sub("", text) for text in texts)
    assert first == second and "ENTRY" in first
    with pytest.raises(SettingError, match="only 2 "):
        loop.with_layout(replace(layout, mesh=MeshShape(seed=3)))
    assert loop.config.mesh is None


def test_seeds_are_spread_over_all_devices(machine):
    machine.devices, machine.seconds = 4, {50: 1.0, 25: 1.0, 10: 2.0}
    chosen = choose_layout(CONFIG)
    assert (chosen.vmap_size, chosen.mesh) == (25, MeshShape(seed=4))
    assert choose_layout(replace(CONFIG, vmap_size=50)).mesh == MeshShape(seed=2)
    wanted = replace(CONFIG, vmap_size=10, mesh=MeshShape(seed=3))
    assert choose_layout(wanted) == wanted
    with_mesh = choose_layout(replace(CONFIG, mesh=MeshShape(seed=2), seed=1))
    assert with_mesh.mesh == MeshShape(seed=2)


@pytest.mark.parametrize(("spread", "data"), [(0.5, 4), (0.95, 1), (2.0, 1)])
def test_rows_are_spread_if_that_is_faster(machine, monkeypatch, capsys, spread, data):
    """By ten percent, in a network that is large enough to measure; and the choice is cached."""
    times = {1: 1.0, 4: spread}
    monkeypatch.setattr(
        tuning, "_seconds_per_step", lambda loop, compiled: times[loop.config.mesh.data]
    )
    machine.devices = 4
    config = replace(CONFIG, seeds=1, vmap_size=1, task=Echo(batch_size=8))
    assert choose_layout(config).mesh == MeshShape()  # small: not measured
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(tuning, "STEP_FLOPS", 1.0)
    monkeypatch.setattr(tuning, "RUN_FLOPS", 1.0)
    assert choose_layout(config).mesh == MeshShape(data=data)
    times.clear()
    assert choose_layout(config).mesh == MeshShape(data=data)
    assert "as measured here before" in capsys.readouterr().err


def test_layouts_of_rows_that_do_not_fit_are_not_measured(machine, monkeypatch):
    """On a CPU a spread program needs more memory, on a GPU each device needs less."""
    needed = {1: 900.0, 4: 1600.0}
    monkeypatch.setattr(tuning, "_free_memory", lambda: 1000.0)
    monkeypatch.setattr(tuning, "_bytes_needed", lambda loop: needed[loop.config.mesh.data])
    monkeypatch.setattr(tuning, "_seconds_per_step", lambda loop, compiled: 1.0)
    machine.devices = 4
    loop = TrainLoop(replace(CONFIG, seeds=1, vmap_size=1, task=Echo(batch_size=8)))

    def measured():
        return [str(layout.config.mesh) for layout, _ in tuning._measure_rows(loop)]

    assert measured() == ["seed=1"]
    needed |= {1: 1600.0, 4: 400.0}
    assert measured() == ["data=4"]
    needed |= {4: 2000.0}
    with pytest.raises(MemoryError, match="a batch of about 4 rows would fit"):
        measured()


def test_a_run_goes_on_with_the_devices_there_are(machine, capsys):
    machine.devices = 2
    config = replace(CONFIG, mesh=MeshShape(seed=2))
    assert tuning.fit_devices(config, None) is config
    assert capsys.readouterr().err == ""
    larger = replace(CONFIG, mesh=MeshShape(seed=4, data=2))
    assert tuning.fit_devices(larger, None).mesh == MeshShape(seed=2)
    assert "so its last bits may differ" in capsys.readouterr().err
    assert tuning.fit_devices(config, MeshShape()).mesh == MeshShape()


@pytest.mark.parametrize(
    ("seeds", "size", "mesh", "expected"),
    [(4, 4, 4, 1), (7, 7, 4, 2), (5, 5, 4, 1), (100, 100, 2, 50), (100, 10, 4, 10)],
)
def test_a_run_goes_on_with_a_group_for_each_device(capsys, seeds, size, mesh, expected):
    config = replace(CONFIG, seeds=seeds, vmap_size=size, mesh=MeshShape())
    chosen = tuning.fit_devices(config, MeshShape(seed=mesh))
    assert (chosen.vmap_size, chosen.mesh) == (expected, MeshShape(seed=mesh))
    TrainLoop(chosen)
    changed = f" and vmap size {size}; it resumes with seed={mesh} and vmap size {expected},"
    assert (changed in capsys.readouterr().err) == (size != expected)


@pytest.mark.parametrize("mesh", [MeshShape(data=3), MeshShape(seed=2), MeshShape(data=8)])
def test_a_mesh_that_does_not_fit_a_run_is_refused_by_one_line(capsys, mesh):
    config = replace(CONFIG, seeds=1, vmap_size=1, mesh=MeshShape(), task=Echo(batch_size=8))
    with pytest.raises(SettingError, match="the mesh"):
        tuning.fit_devices(config, mesh)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seeds", "devices", "size", "mesh"),
    [(5, 4, 1, 4), (7, 4, 2, 4), (100, 4, 25, 4), (3, 4, 1, 3)],
)
def test_several_processes_spread_seeds_over_every_device(monkeypatch, seeds, devices, size, mesh):
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    chosen = tuning.spread_over_all(replace(CONFIG, seeds=seeds))
    assert (chosen.vmap_size, chosen.mesh) == (size, MeshShape(seed=mesh))


@pytest.mark.parametrize(
    ("memory", "message"),
    [(10.5, r"one batch of 32 rows needs .* use at most 10$"), (0.5, "use shorter sequences$")],
)
def test_a_batch_too_large_for_memory_is_refused_with_what_would_fit(monkeypatch, memory, message):
    loop = TrainLoop(replace(CONFIG, seeds=1, vmap_size=1, task=Echo(batch_size=32)))
    row = tuning._bytes_of(loop.config.batch_shape) / 32
    monkeypatch.setattr(tuning, "_free_memory", lambda: memory * row)
    with pytest.raises(MemoryError, match=message):
        tuning.require_memory(loop)


@pytest.mark.slow
def test_seeds_too_many_for_memory_are_refused_with_what_would_fit(monkeypatch):
    """Before anything is allocated. On other devices than a CPU each has a memory of its own."""
    config = replace(CONFIG, seeds=4 * 10**8, vmap_size=10**8, mesh=MeshShape(seed=4))
    loop = TrainLoop(config)
    state, gradient = tuning._bytes_of(loop.shapes), tuning._bytes_of(loop.shapes.params)
    free = 10**6 * state + gradient
    monkeypatch.setattr(tuning, "_free_memory", lambda: free)
    with pytest.raises(MemoryError, match=r"state of 400000000 networks need .* at most 1000000$"):
        tuning.require_memory(loop)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(MemoryError, match=r"use at most 4000000$"):
        tuning.require_memory(loop)
    free *= 100
    tuning.require_memory(loop)


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_network_too_large_for_memory_is_refused_before_compiling(monkeypatch, seeds):
    def compile_loop(*_, **__):
        raise AssertionError("it was compiled")

    monkeypatch.setattr(runner, "compile_loop", compile_loop)
    monkeypatch.setattr(tuning, "compile_loop", compile_loop)
    model = SequenceModel(Recurrent(LSTMCell(10**6)), 4)  # 16 TB of parameters
    with pytest.raises(MemoryError, match=r"the parameters .* use fewer hidden units$"):
        runner.run(ExperimentConfig(Echo(), model, TrainConfig(3), seeds=seeds))
