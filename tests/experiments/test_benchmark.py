"""The timing functions, and the suites of experiments/benchmark.py at small sizes."""

import dataclasses
import itertools
import json
import re
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import benchmark
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from suites import (
    command_buffers,
    gpu,
    harness,
    lab,
    language,
    layer,
    mesh,
    peers,
    picture,
    products,
    ragged,
    scaling,
    seeds,
)
from suites.timing import Row, interleave, memory_rows, product, rows, run_python, table, timed

from jaxrnn import cli
from jaxrnn.cells import CELLS
from jaxrnn.errors import SettingError
from jaxrnn.interop import to_torch
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.runs import compilation_cache, tuning
from jaxrnn.training.config import ExperimentConfig


class Later:
    """A result that is ready after a while, like JAX's."""

    def block_until_ready(self):
        time.sleep(0.05)
        return self


@pytest.fixture
def no_cache(monkeypatch):
    """Leave the user's compilation cache alone."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)  # one layout for each vmap size
    monkeypatch.setattr(compilation_cache, "enable", lambda: None)


def test_without_jit_there_is_nothing_to_time():
    with (
        jax.disable_jit(),
        pytest.raises(SettingError, match="JAX_DISABLE_JIT is set"),
    ):
        benchmark.main(benchmark.Config("startup"))


def test_timed_waits_until_the_last_result_is_ready():
    results, seconds = timed(lambda *parts: {"a": parts[0], "b": Later()}, 7)
    assert results["a"] == 7
    assert 0.05 <= seconds < 1


def test_systems_take_turns_after_an_uncounted_call():
    called, ticks = [], itertools.count(1.0)

    def system(name):
        def call():
            called.append(name)
            return next(ticks)

        return call

    seconds = interleave({name: system(name) for name in "ab"}, repeats=2, burst=3, own_clock=True)
    assert "".join(called) == "ab" + "aaabbb" * 2
    assert seconds["a"].tolist() == [[3, 4, 5], [9, 10, 11]]
    assert seconds["b"].tolist() == [[6, 7, 8], [12, 13, 14]]


def test_calls_are_timed_unless_they_return_seconds():
    pauses = {"long": 0.03, "none": 0.0}
    seconds = interleave({name: lambda p=p: time.sleep(p) for name, p in pauses.items()}, 2)
    assert [each.shape for each in seconds.values()] == [(2, 1), (2, 1)]
    assert seconds["long"].min() >= 0.03 > seconds["none"].min() > 0


def test_ratios_compare_calls_of_the_same_turn():
    # The machine is ten times slower in the last turn, which does not change the ratios.
    first = np.array([[1.0, 3.0, 2.0], [2.0, 2.0, 2.0], [20.0, 20.0, 20.0]])
    other = np.array([[8.0, 8.0, 1.0], [4.0, 4.0, 4.0], [60.0, 60.0, 60.0]])
    own, row = rows("s", "c", "m", {"a": first, "b": other}, flops=6.0, rate=4.0)
    assert (own.ratio, own.ratio_low, own.ratio_high) == (1, 1, 1)
    assert (row.suite, row.case, row.measure, row.system) == ("s", "c", "m", "b")
    assert (row.min_s, row.median_s) == (1.0, 8.0)
    assert (row.ratio, row.ratio_low, row.ratio_high) == (3.0, 2.5, 3.5)
    assert row.of_product == 1.5
    assert rows("s", "c", "m", {"a": first})[0].of_product is None


def test_a_table_has_seconds_ratios_and_rates():
    seconds = {"a": np.array([[4.0], [1.0], [3.0]]), "b": np.array([[2e-3], [5e-4], [1.5e-3]])}
    head, *lines = table(rows("suite", "case", "measure", seconds, 1e9, 4e12)).splitlines()
    assert head.startswith("suite: case, measure ")
    assert head.endswith("of matmul rate")
    assert [line.split() for line in lines] == [
        ["a", "1.00", "s", "3.00", "s", "1.00", "0%"],
        ["b", "500.00", "µs", "1.50", "ms", "0.00", "(0.00", "to", "0.00)", "50%"],
    ]


def test_a_memory_table_has_no_spread():
    measured = memory_rows("s", "c", "m", {"a": 2**20, "b": 3 * 2**20})
    assert [(row.bytes, row.ratio, row.min_s) for row in measured] == [
        (2**20, 1.0, None),
        (3 * 2**20, 3.0, None),
    ]
    assert [line.split() for line in table(measured).splitlines()[1:]] == [
        ["a", "1.0", "MiB", "1.00"],
        ["b", "3.0", "MiB", "3.00"],
    ]


def test_product_counts_its_operations():
    (row,), rate = product("suite", size=64, repeats=2)
    assert (row.suite, row.case, row.of_product) == ("suite", "64 x 64", 1.0)
    assert row.min_s
    assert rate * row.min_s == pytest.approx(2 * 64**3)


def test_run_python_sets_folder_arguments_and_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/nowhere")
    code = """
import os, sys
caches = {name: value for name, value in os.environ.items() if "CACHE" in name}
print(sys.argv[1:], list(caches), os.listdir(caches["XDG_CACHE_HOME"]), file=open("said", "a"))
open(caches["XDG_CACHE_HOME"] + "/entry", "w")
"""
    (tmp_path / "kept").mkdir()
    for cache in (None, None, tmp_path / "kept", tmp_path / "kept"):
        run_python("-c", code, "an argument", folder=tmp_path, cache=cache)
    empty = "['an argument'] ['XDG_CACHE_HOME'] []"
    said = (tmp_path / "said").read_text().splitlines()
    assert said == [empty] * 3 + [empty.replace("[]", "['entry']")]


def test_run_python_raises_with_the_last_line(tmp_path):
    with pytest.raises(ChildProcessError, match="code 3: the reason"):
        code = "import sys; print('first\\nthe reason', file=sys.stderr); sys.exit(3)"
        run_python("-c", code, folder=tmp_path)
    with pytest.raises(ChildProcessError, match="code 1: no message"):
        run_python("-c", "import os; os._exit(1)", folder=tmp_path)


def test_startup_suite(monkeypatch):
    monkeypatch.setattr(peers, "missing", lambda: list(peers.PACKAGES))
    done = []
    monkeypatch.setattr(lab, "run_python", lambda *_, folder, cache=None: done.append(cache))
    monkeypatch.setattr(jax, "clear_caches", lambda: done.append("cleared"))
    monkeypatch.setattr(lab, "compiled", lambda experiment: done.append(experiment.train.steps))
    processes, compiling = lab.startup(repeats=1)
    assert [row.system for row in processes] == ["jaxrnn, empty cache", "jaxrnn, filled cache"]
    assert done[:2] == done[2:4] == [None, done[1]] and done[1].name == "warm"
    assert [row.measure for row in compiling] == ["tracing and compiling"]
    assert done[4:] == ["cleared", 50] * 2


def test_a_call_initializes_and_trains():
    experiment = lab.hihello_config(seeds=2)
    call = lab.compiled(
        ExperimentConfig(experiment.task, experiment.model, experiment.train, seeds=2, vmap_size=2)
    )
    again = jax.device_get(call())  # a call must not consume its arguments
    state, metrics = jax.device_get(call())
    chex.assert_trees_all_equal(again, (state, metrics))
    assert state.step.tolist() == [50, 50]
    assert metrics["loss"].shape == (2, 51)
    assert np.all(metrics["loss"] > 0)  # also at the last step
    assert np.all(metrics["loss"][:, -1] < 0.1 * metrics["loss"][:, 0])
    _, others = jax.device_get(call(seeds=np.array([5, 0], np.uint32)))
    np.testing.assert_array_equal(others["loss"][1], metrics["loss"][0])
    assert not np.array_equal(others["loss"][0], metrics["loss"][1])


@pytest.mark.slow
def test_layer_suite(monkeypatch):
    monkeypatch.setattr(peers, "missing", lambda: list(peers.PACKAGES))
    own, *parts = layer.layer(1, sizes=((2, 3, 4),))
    assert [row.measure for row in own] == ["matmul"]
    measured = [row for part in parts for row in part]
    systems = ["jaxrnn", "jaxrnn, nn.scan", "Flax, OptimizedLSTMCell", "Flax, LSTMCell"]
    lstm = [row for row in measured if row.case == "LSTM, B=2, T=3, H=4"]
    assert [row.system for row in lstm] == systems * 3
    assert {row.system for row in measured if "GRU" in row.case} == {*systems[:2], "Flax, GRUCell"}
    measures = ["forward", "forward+backward", "compiling both, once"]
    assert [row.measure for row in lstm[::4]] == measures
    assert all(row.min_s and row.min_s > 0 for row in measured)
    one, three = lstm[0], lstm[4]
    counted = [row.of_product * row.min_s for row in (one, three) if row.of_product and row.min_s]
    assert counted[1] == pytest.approx(3 * counted[0])


@pytest.mark.slow
def test_layers_whose_rows_are_on_all_devices():
    """Four, in the tests."""
    data = layer.arrays("lstm", 8, 3, 4)
    [(name, system)] = layer.on_all_devices(*data)
    assert name == "jaxrnn, 4 devices"
    assert len(system.forward().sharding.device_set) == 4
    layer.compare("rows", dict(layer.ours(*data)) | {name: system})
    assert not [*layer.on_all_devices(*layer.arrays("lstm", 6, 3, 4))]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_peers_that_are_installed_compute_the_same(kind):
    """With different values in all weights and biases; for all peers installed here."""
    ours = Recurrent(CELLS[kind](5))
    inputs = jax.random.normal(jax.random.key(0), (3, 4, 2))
    gradient = jax.random.normal(jax.random.key(2), (3, 4, 5))
    params = ours.init(jax.random.key(1), inputs)["params"]
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    leaves = [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    params = jax.tree.unflatten(structure, leaves)
    systems = {
        "ours": peers.compiled(lambda p, x: layer.outputs(ours, p, x), params, inputs, gradient)
    }
    # As some peers need:
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        systems |= dict(peers.peers(ours, params, inputs, gradient))
    assert len(systems) >= (3 if kind == "lstm" else 2)
    layer.compare("case", systems)
    wrong = peers.System(lambda: 2 * np.asarray(systems["ours"].forward()), systems["ours"].both)
    with pytest.raises(AssertionError, match="case: wrong differs from ours by 1"):
        layer.compare("case", systems | {"wrong": wrong})


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["ragged", "resets"])
def test_suites_of_ragged_rows_and_of_resets(suite, monkeypatch):
    """PyTorch's results are compared, if it is installed."""
    monkeypatch.setattr(ragged, "EPISODE", 4)  # several episodes in a row
    (own,), *parts = getattr(ragged, suite)(1, sizes=((3, 9, 4), (2, 5, 3)))
    assert (own.suite, own.measure) == (suite, "matmul")
    *tables, forward, both = parts
    cases = [
        f"{kind}, {size}" for kind in ("LSTM", "GRU") for size in ("B=3, T=9, H=4", "B=2, T=5, H=3")
    ]
    measures = ["forward", "forward+backward"]
    found = [(part[0].suite, part[0].case, part[0].measure) for part in tables]
    assert found == [(suite, case, measure) for case in cases for measure in measures]
    ways = ["packed", "padded"] + ["step by step"] * (suite == "resets")
    others = [f"PyTorch, {way}" for way in ways if peers.PYTORCH not in peers.missing()]
    for part in tables:
        assert [row.system for row in part] == ["jaxrnn", "jaxrnn, nn.scan", *others]
    for said, measure in zip((forward, both), measures, strict=True):
        assert said.startswith(f"{measure}: geometric means relative to jaxrnn: jaxrnn, nn.scan ")
        assert (
            re.findall(r"PyTorch, [a-z ]+(?= [\d.]+ \(LSTM [\d.]+, GRU [\d.]+\))", said) == others
        )


def test_geometric_means_by_kind_of_layer():
    turns = {"ours": 1.0, "theirs": 2.0}, {"ours": 1.0, "theirs": 8.0}, {"ours": 2.0, "theirs": 1.0}
    measured = [
        row
        for case, times in zip(("LSTM, small", "LSTM, large", "GRU, small"), turns, strict=True)
        for row in rows("s", case, "m", {name: np.array([[t]]) for name, t in times.items()})
    ]
    assert ragged.means(measured) == (
        "geometric means relative to ours: theirs 2.00 (LSTM 4.00, GRU 0.50)"
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_ways_to_run_rows_in_pytorch_have_the_same_gradients_of_the_weights(kind):
    """Also with an episode that starts at a row's first step, or at its last."""
    torch = pytest.importorskip("torch")
    lengths, starts = np.array([2, 5, 1]), np.zeros((3, 5), bool)
    starts[[0, 0, 1, 2], [0, 4, 2, 3]] = True
    ours, *data = layer.arrays(kind, 3, 5, 4)
    for name, option, ways in (
        ("lengths", lengths, (ragged.packed_rows, ragged.padded_rows)),
        ("resets", starts, (ragged.packed_episodes, ragged.padded_episodes, ragged.cell_loop)),
    ):
        systems = dict(layer.ours(ours, *data, **{name: jax.numpy.array(option)}))
        expected = to_torch(ours, systems["jaxrnn"].both()[0])
        for way in ways:
            run = partial(way, **{name: torch.from_numpy(option)})
            theirs = peers.torch(ours, *data, run=run)
            layer.compare(way.__name__, {"ours": systems["jaxrnn"], "theirs": theirs})
            found = dict(zip(expected, theirs.both()[0], strict=True))
            for weight in ("weight_ih_l0", "weight_hh_l0"):
                np.testing.assert_allclose(found[weight], expected[weight], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_products_are_timed_by_shape():
    (own,), *parts = products.products(1, sizes=((6, 3, 4), (1, 2, 5)))
    assert (own.suite, own.measure) == ("products", "matmul")
    cases = ["6 rows, F=3, 4 outputs", "1 rows, F=2, 5 outputs"]
    assert [(part[0].case, part[0].measure) for part in parts] == [
        (case, measure) for case in cases for measure in ("weight gradient", "forward")
    ]
    expected = ["a.T @ b", "with a barrier", "summed over T and B"]
    assert [row.system for row in parts[0]][:3] == expected


def test_sums_over_time_and_rows_are_the_product():
    a, b = np.arange(18.0).reshape(6, 3) ** 2, np.arange(24.0).reshape(6, 4)
    split = products.split_time(jnp.asarray(a))
    assert split.shape == (2, 3, 3)
    summed = products.sum_over_time(split, products.split_time(jnp.asarray(b)))
    np.testing.assert_allclose(summed, a.T @ b)


@pytest.mark.slow
def test_steps_on_several_devices_are_measured_and_predicted():
    found = list(mesh.mesh(1, steps=1, sizes=((1, 4, 8),)))
    tables = [part for part in found if not isinstance(part, str)]
    measures = {part[0].measure: part for part in tables}
    assert [row.system for row in measures["train step on one device"]] == ["measured", "predicted"]
    devices = [n for n in mesh.DEVICES if 1 < n <= jax.device_count()]
    assert set(measures) - {"train step on one device", "all-reduce"} == {
        f"train step on {n} devices" for n in devices
    }
    assert str(found[-1]).startswith("on paper, the same rows on each of 8, 64, 1024")


def test_the_cost_model(monkeypatch):
    monkeypatch.setattr(mesh, "usable_cpus", lambda: 2)
    # Two cores are enough for two devices that keep one busy each, not for four.
    assert mesh.predict(span=1.0, work=1.0, all_reduce_s=0.25, devices=1) == 1.0
    assert mesh.predict(span=1.0, work=1.0, all_reduce_s=0.25, devices=2) == 1.25
    assert mesh.predict(span=1.0, work=1.0, all_reduce_s=0.25, devices=4) == 2.25
    # 4 devices: each sends 3/2 of 8 bytes; 2 log2(4) messages.
    assert mesh.ring_seconds(8, 4, bandwidth=2.0, latency=0.5) == 6.0 + 2.0


def test_devices_add_up_the_gradients(no_cache):
    add = mesh.all_reduce(12, 1)
    assert np.asarray(add()).tolist() == [[1.0, 1.0, 1.0]]


@pytest.mark.slow
def test_seeds_suite(no_cache, monkeypatch):
    monkeypatch.setattr(peers, "missing", lambda: list(peers.PACKAGES))
    measured = list(seeds.seeds(1, networks=2, models=2))
    assert [[row.system for row in part] for part in measured] == [
        ["jaxrnn, vmap size 1", "jaxrnn, vmap size 2", "jaxrnn, one call per seed"],
        ["jaxrnn, vmap size 1"],
        [
            "jaxrnn, vmap size 1",
            "jaxrnn, vmap size 2",
            "jaxrnn, nn.scan, vmap size 2",
            "jaxrnn, one model, multiplied",
        ],
    ]


@pytest.mark.slow
def test_scaling_measures_time_memory_and_compilation(monkeypatch):
    monkeypatch.setattr(scaling, "GROWING", {"T": (16, 64), "S": (1, 3)})
    monkeypatch.setattr(scaling, "LAYERS", (1, 2))
    monkeypatch.setattr(scaling, "NARROW", (3,))
    monkeypatch.setattr(scaling, "JACOBIANS", 64 * 3 * 3 * 4)  # of the LSTM not at T = 64
    time_of_t, memory, time_of_s, steps, layers, *rest = scaling.scaling(1, longest=64)
    assert [row.system for row in time_of_t] == ["T=16", "T=64"]
    assert memory[1].ratio == pytest.approx(4, rel=0.2)  # linear in T, except for the weights
    assert [row.system for row in time_of_s] == ["S=1", "S=3"]
    assert [row.system for row in steps] == ["T=16", "T=64"]
    assert [row.system for row in layers] == ["layers=1", "layers=2"]
    assert [row.case for (row, *_) in rest[-6:]] == [
        f"{cell}, B=1, T={n}, F=8, H=3" for cell in ("GRU", "LSTM") for n in (4, 16, 64)
    ]
    each = ["fused", "scan", "newton"]
    assert [[row.system for row in part] for part in rest[-6:]] == [*[each] * 5, each[:2]]


@pytest.mark.slow
def test_times_per_token_and_of_all_models(no_cache, monkeypatch):
    """Each call takes one second here."""

    def clock(systems, repeats, burst=1):
        return {name: np.ones((repeats, burst)) for name in systems}

    monkeypatch.setattr(peers, "missing", lambda: list(peers.PACKAGES))
    monkeypatch.setattr(scaling, "interleave", clock)
    (measured,) = scaling.growing("S", (1, 3), repeats=2)
    of_one = 16 * 64  # B x T
    assert [row.min_s for row in measured] == [1 / of_one, 1 / (3 * of_one)]
    monkeypatch.setattr(seeds, "interleave", clock)
    (measured,) = seeds.language_models(1, models=3, steps=5)
    assert [row.min_s for row in measured] == pytest.approx([0.2, 0.2, 0.2, 0.6])


@pytest.mark.slow
@pytest.mark.optimized
def test_long_sequences_are_timed_with_their_memory():
    parts = list(scaling.chunks(1, longest=64))  # one method of `fused`
    cases = [f"B=16, T={n}, F=8, H=128" for n in (4, 16, 64)]
    assert [part[0].case for part in parts[::2]] == [part[0].case for part in parts[1::2]] == cases
    for system, most, least in (
        (0, 4.4, 3.6),
        (1, 2.8, 1.6),
    ):  # O(T); chunks: O(√T)
        small, middle, large = (part[system].bytes or 0 for part in parts[1::2])
        assert least < (large - middle) / (middle - small) < most


@pytest.mark.slow
def test_the_run_and_its_bare_loop_are_equal(no_cache, monkeypatch):
    monkeypatch.setattr(harness, "SAVE_EVERY", 0.0)
    measured: Any
    measured, said = harness.overhead(repeats=1, steps=5, hidden=4, length=4)
    assert [row.system for row in measured] == ["harness", "bare loop"]
    assert measured[0].ratio == 1.0 > measured[1].ratio
    end = re.search(r"checkpoints per run: (\d) to (\d); the final parameters are (.*)$", str(said))
    assert end, said
    assert 2 <= int(end[1]) <= int(end[2])
    if end[3] != "bitwise equal":
        assert float(end[3].split()[-1]) < 1e-6


def test_the_difference_is_the_largest_anywhere():
    some = {"a": np.array([1.0, 2.0]), "b": np.array([[3.0]])}
    others = {"a": np.array([1.5, 1.0]), "b": np.array([[3.25]])}
    assert harness.difference(some, others) == 1.0
    assert harness.difference(some, some) == 0.0


def test_sweep_compares_with_one_process_per_seed(monkeypatch):
    calls = []

    def run(*arguments, folder, cache=None):
        assert arguments[:2] == ("-c", harness.SCRIPT)
        name, first, seeds, steps = arguments[2:]
        calls.append((name, int(first), int(seeds), int(steps), cache is not None))

    def clock(systems, repeats):
        assert repeats == 2
        for system in systems.values():
            system()
            system()
        taken = zip(systems, (3.5, 7, 2, 1), strict=True)
        return {name: np.array([[second], [9.0]]) for name, second in taken}

    monkeypatch.setattr(harness, "run_python", run)
    monkeypatch.setattr(harness, "interleave", clock)
    (measured,) = harness.sweep(repeats=2, seeds=7, steps=9)
    kinds = [(seeds, filled) for _, _, seeds, _, filled in calls[::2]]
    assert kinds == [(7, False), (7, True), (1, False), (1, True)]
    assert len({name for name, *_ in calls}) == len(calls)
    assert all(first + seeds <= 7 and steps == 9 for _, first, seeds, steps, _ in calls)
    # One of seven separate processes was run.
    assert [(row.min_s, row.median_s) for row in measured] == [
        (3.5, 6.25),
        (7.0, 8.0),
        (14.0, 38.5),
        (7.0, 35.0),
    ]


@pytest.mark.slow
def test_the_script_of_the_sweep_runs(no_cache, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["-c", str(tmp_path / "run"), "3", "1", "2"])
    exec(harness.SCRIPT, {})
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines] == [
        ['{"step": 0', ' "seed": 3'],
        ['{"step": 2', ' "seed": 3'],
    ]


@pytest.mark.slow
def test_the_script_prints_and_writes_files(run, tmp_path):
    files = tmp_path / "rows.json", tmp_path / "picture.png"
    options = ("--suite", "training", "--repeats", "2", "--json", files[0], "--plot", files[1])
    result = run("benchmark.py", *map(str, options))
    assert result.returncode == 0, result.stderr
    assert re.search(r"^training: hihello, 50 steps +min +median", result.stdout, re.MULTILINE)
    assert "gradient" not in result.stdout
    first, *_ = json.loads(files[0].read_text())
    assert first.keys() == {field.name for field in dataclasses.fields(Row)}
    assert (first["suite"], first["case"], first["measure"]) == ("training", "hihello", "50 steps")
    assert 0 < first["min_s"] <= first["median_s"]
    assert files[1].read_bytes().startswith(b"\x89PNG")


def test_a_plot_has_a_panel_per_measure_and_a_dot_per_system(tmp_path, monkeypatch):
    figures = []

    def save(figure, path, **_):
        figures.append(figure)

    monkeypatch.setattr(picture.Figure, "savefig", save)
    turns = {name: np.full((3, 1), float(n)) for n, name in enumerate(("ours", "theirs"), start=1)}
    measured = [
        row
        for case in ("small", "large")
        for measure in ("forward", "both", "compiling", "matmul")
        for row in rows("layer", case, measure, turns)
    ]
    picture.ratios(tmp_path / "p.png", measured + memory_rows("layer", "c", "m", {"ours": 3}))
    (figure,) = figures
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["layer: forward", "layer: both"]
    for axis in figure.axes:
        assert [label.get_text() for label in axis.get_yticklabels()] == ["small", "large"]
        marks = {line.get_label(): line for line in axis.lines if line.get_marker() == "o"}
        assert {name: list(mark.get_xdata()) for name, mark in marks.items()} == {
            "ours": [1.0, 1.0],
            "theirs": [2.0, 2.0],
        }


def test_bad_numbers_and_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="longest must be at least 16"):
        benchmark.Config(longest=15)
    with pytest.raises(ValueError, match="sweep seeds must be at least 1"):
        benchmark.Config(sweep_seeds=0)
    with pytest.raises(ValueError, match=r"plot must end in one of \.png, \.svg, \.pdf"):
        benchmark.Config(plot=Path("ratios.txt"))
    with pytest.raises(SettingError, match=r"cannot be written: name another file"):
        benchmark.main(benchmark.Config(json=tmp_path))
    with pytest.raises(SettingError, match=r"there is no folder .*/none: create it first"):
        benchmark.main(benchmark.Config(json=tmp_path / "none/rows.json"))


def test_every_suite_can_be_chosen(monkeypatch, capsys):
    suites: Any = {
        "products": products,
        "layer": layer,
        "ragged": ragged,
        "resets": ragged,
        "train": language,
        "mesh": mesh,
        "training": lab,
        "seeds": seeds,
        "startup": lab,
        "scaling": scaling,
        "overhead": harness,
        "sweep": harness,
    }
    for name, module in (suites | {"gpu": gpu}).items():
        monkeypatch.setattr(module, name, lambda *_, name=name, **__: [name])
    monkeypatch.setattr(gpu, "require_device", lambda: None)
    for suite in (*suites, "gpu", "all"):
        benchmark.main(benchmark.Config(suite=suite))
        said = [line for line in capsys.readouterr().out.splitlines() if "installed" not in line]
        assert said == [f"  ({name})" for name in (suites if suite == "all" else [suite])]


def test_the_suite_for_a_gpu_needs_one(call, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    start = partial(cli.run_command, benchmark.Config, benchmark.main)
    result = call(start, "benchmark.py", "--suite", "gpu")
    said = "the suite gpu needs a GPU, but JAX's default device is of the kind cpu\n"
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.endswith(said) and result.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_suite_for_a_gpu_at_small_sizes(no_cache):
    """With PyTorch, if it is installed; on a CPU without cuDNN."""
    sizes = gpu.Sizes(layer=(2, 8, 4), product=64, models=((1, 8, 3),), steps=2, seeds=(1, 3))
    parts = list(gpu.gpu(1, sizes))
    notes = [part for part in parts if isinstance(part, str)]
    assert gpu.PUBLISHED in notes
    assert sum("relative difference from jaxrnn, fused" in note for note in notes) == 5
    assert not any("MORE THAN" in note for note in notes)
    assert re.fullmatch(r"seeds per second, median: S=1: [\d,]+; S=3: [\d,]+", notes[-2])
    assert notes[-1] == "results other than by default: none"
    systems = {
        (part[0].case.partition(",")[0], part[0].measure): [row.system for row in part]
        for part in parts
        if not isinstance(part, str)
    }
    others = [peers.PYTORCH] * (peers.PYTORCH not in peers.missing())
    ours = ["jaxrnn, fused", "jaxrnn, scan"]
    cudnn = ["jaxrnn, cudnn"] * (jax.default_backend() == "gpu")
    assert systems["GRU", "forward+backward"] == [*ours, *others]
    assert systems["bidirectional LSTM", "forward"] == [*ours, *cudnn, *others]
    assert systems["language model", "train step"] == ["jaxrnn", "jaxrnn, nn.scan", *others]
    assert systems["hihello", "50 steps of all"] == ["S=1", "S=3"]
    assert systems["LSTM", "scan, forward"] == list(command_buffers.SETTINGS)


def test_a_setting_of_xla_that_fails_is_named_and_left_out(monkeypatch):
    def run(*arguments, XLA_FLAGS, **_):  # noqa: N803
        if "unroll" in XLA_FLAGS:
            raise ChildProcessError("python exited with code -6: Unknown flag in XLA_FLAGS")
        result = 1.0 + 0.1 * bool(XLA_FLAGS)  # the loop in a command buffer is wrong
        arrays: Any = {"fused, forward": [[2.0]], "result, outputs of fused": [result]}
        np.savez(arguments[2], **arrays)

    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(command_buffers, "run_python", run)
    measured: Any
    failed, measured, wrong = command_buffers.compare(1, (1, 2, 3))
    default, recorded, unrolled = command_buffers.SETTINGS
    assert failed == f"{unrolled}: python exited with code -6: Unknown flag in XLA_FLAGS"
    assert [(row.system, row.min_s) for row in measured] == [(default, 2.0), (recorded, 2.0)]
    assert wrong == f"results other than by default: {recorded}, result, outputs of fused"


@pytest.mark.slow
def test_a_step_of_a_language_model_is_the_same_in_both_implementations(no_cache, monkeypatch):
    monkeypatch.setattr(peers, "missing", lambda: list(peers.PACKAGES))
    (own,), measured = language.train(repeats=1, steps=2, sizes=((2, 8, 3),))  # not for 4 devices
    assert own.measure == "matmul"
    assert [row.system for row in measured] == ["jaxrnn", "jaxrnn, nn.scan"]
    assert measured[0].case == "language model, 2x8, B=3, T=50"
    losses = {"ours": np.array([1.0, 2.0]), "theirs": np.array([1.0, 2.01])}
    with pytest.raises(AssertionError, match="losses of ours, theirs differ by 0"):
        language.compare(losses)


def test_weights_in_the_products_of_a_token():
    # By hand: two kernels of 3 x 12, one more layer's lowest of 3 x 12, and a readout of 3 x 7.
    assert language.weights(layers=2, hidden=3, vocabulary=7) == 3 * 36 + 21


def test_the_script_of_the_lab_in_pytorch_takes_no_options(call):
    pytest.importorskip("torch")
    import hihello_torch

    helped = call(hihello_torch.main, "hihello_torch.py", "--help")
    assert (helped.returncode, helped.stdout) == (0, hihello_torch.__doc__)
    refused = call(hihello_torch.main, "hihello_torch.py", "--steps", "3")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "error: this script takes no options, such as '--steps'\n"


def test_a_model_too_large_for_memory_is_refused_in_pytorch(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    import char_lm_torch

    monkeypatch.setattr(char_lm_torch, "Model", None)
    (tmp_path / "text.txt").write_text("the rain in Spain " * 20)
    monkeypatch.setattr(tuning, "_free_memory", lambda: 10**6)
    sizes: dict[str, Any] = {"hidden_size": 300, "batch_size": 3, "sequence_length": 10}
    config = char_lm_torch.PeerConfig(tmp_path / "text.txt", **sizes)
    with pytest.raises(MemoryError, match="use fewer hidden units"):
        char_lm_torch.main(config)
