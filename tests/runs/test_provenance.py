"""What surrounds a run: all of it found, and every difference that can change bits named."""

import copy
import datetime
import hashlib
import importlib.metadata
import json
import re
import sys
from pathlib import Path

import chex
import flax
import jax
import numpy as np
import optax
import pytest

import jaxrnn
from jaxrnn.runs import machine, provenance

HARMLESS = {
    ("command",),
    ("python",),
    ("system", "name"),
    ("versions", "chex"),
    ("versions", "orbax-checkpoint"),
}
STATE = {"commit": "0123456789abcdef" + 24 * "0", "dirty": True, "changes": "f" * 64}


@pytest.fixture
def now():
    """What surrounds the tests, but for the states of the repositories, which all are known."""
    collected = provenance.collect(Path(__file__))
    collected["code"] |= {"script": dict(STATE), "jaxrnn": dict(STATE)}
    return collected


def leaves(value, path=()):
    """Each value that is no dictionary, by its path of names."""
    if not isinstance(value, dict):
        return {path: value}
    return {
        p: leaf for name, part in value.items() for p, leaf in leaves(part, (*path, name)).items()
    }


def changed(collected, path, value):
    """A copy with another value at a path; or without it, if that is None."""
    other = copy.deepcopy(collected)
    *folders, name = path
    place = other
    for folder in folders:
        place = place[folder]
    if value is None:
        del place[name]
    else:
        place[name] = value
    return other


def test_provenance_is_json(now):
    assert json.loads(json.dumps(now, allow_nan=False)) == now


def test_equal_provenance_has_no_differences(now):
    again = provenance.collect(Path(__file__))
    again["code"] = now["code"]
    assert provenance.differences(json.loads(json.dumps(now)), again) == []


def test_every_difference_that_matters_is_named_once(now):
    found = leaves(now)
    assert set(found) > HARMLESS
    for path in found:
        for value in ("another", 7, ["odd"], None):
            for then, later in ((changed(now, path, value), now), (now, changed(now, path, value))):
                phrases = provenance.differences(then, later)
                assert len(phrases) == (path not in HARMLESS), (path, value, phrases)
                assert all(re.fullmatch(r"\S.* was \S.*, is \S.*", line) for line in phrases)


def test_a_difference_names_both_values(now):
    for path, was, new, phrase in (
        (("versions", "jaxlib"), "0.10.1", "0.12.0", "jaxlib was 0.10.1, is 0.12.0"),
        (("cpu", "usable"), 64, 2, "the number of usable CPUs was 64, is 2"),
        (("settings", "jax_enable_x64"), True, False, "jax_enable_x64 was True, is False"),
        (("variables", "XLA_FLAGS"), "--a\n", "", r"XLA_FLAGS was --a\n, is empty"),
        (
            ("code", "jaxrnn"),
            STATE,
            STATE | {"dirty": False},
            "jaxrnn's repository was at 0123456789ab with uncommitted changes ffffffffffff,"
            " is at 0123456789ab",
        ),
    ):
        then, later = changed(now, path, was), changed(now, path, new)
        assert provenance.differences(then, later) == [phrase]
    then, later = changed(now, ("versions", "libtpu"), "1.0"), copy.deepcopy(now)
    later["versions"]["libtpu"] = None
    assert provenance.differences(then, later) == ["libtpu was 1.0, is not installed"]
    del then["versions"]["libtpu"]
    assert provenance.differences(then, later) == ["libtpu was not recorded, is not installed"]


@pytest.mark.parametrize(
    "then",
    [None, {}, [], 3, "text", {"versions": None}, {"versions": ["jax"]}, {"code": {"jaxrnn": 3}}],
    ids=str,
)
def test_missing_facts_are_differences(now, then):
    phrases = provenance.differences(then, now)
    compared = [path[:2] for path in leaves(now) if path not in HARMLESS]
    assert len(phrases) == len(set(compared))
    assert "jaxlib was not recorded, is " + now["versions"]["jaxlib"] in phrases


@pytest.mark.parametrize("odd", [{}, [], {"a": {"b": [1]}}, STATE | {"commit": [1], "changes": 3}])
def test_malformed_facts_are_differences(now, odd):
    for path in leaves(now):
        if path not in HARMLESS:
            [phrase] = provenance.differences(changed(now, path, odd), now)
            assert phrase.isprintable()


def test_versions_equal_the_packages_own():
    versions = provenance.versions()
    for module in (jaxrnn, jax, flax, optax, chex, np):
        assert versions[module.__name__] == module.__version__
    assert versions["jaxlib"] == importlib.metadata.version("jaxlib")


def test_a_package_that_is_not_installed_is_none(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("jax", "jaxrnn-has-no-such-package"))
    assert provenance.versions()["jaxrnn-has-no-such-package"] is None


def test_settings_are_those_in_effect():
    assert set(provenance.SETTINGS) <= set(jax.config.values)
    before = provenance.settings()
    unset = {name for name, value in before.items() if value is None}
    assert unset <= {"jax_default_matmul_precision", "jax_default_device"}
    assert before["prng"] == "threefry2x32, partitionable"
    with (
        jax.default_matmul_precision("highest"),
        jax.numpy_dtype_promotion("standard"),
        jax.default_prng_impl("rbg"),
        jax.threefry_partitionable(False),
        jax.default_device(jax.devices()[0]),
    ):
        within = provenance.settings()
    assert {name: value for name, value in within.items() if before[name] != value} == {
        "jax_default_matmul_precision": "highest",
        "jax_numpy_dtype_promotion": "standard",
        "jax_default_prng_impl": "rbg",
        "jax_threefry_partitionable": False,
        "jax_default_device": str(jax.devices()[0]),
        "prng": "threefry2x32, not partitionable",  # runs draw from Threefry all the same
    }


def test_variables_and_command_are_recorded(monkeypatch):
    for name in provenance.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    monkeypatch.setattr(sys, "argv", ["script.py", "--text", "\udcff"])
    found = provenance.collect()
    environment = {name: value for name, value in found["variables"].items() if value is not None}
    assert environment == {"XLA_FLAGS": "--xla_cpu_enable_fast_math=true"}
    assert found["command"] == [sys.executable, "script.py", "--text", "\udcff"]
    assert found["python"] == ".".join(map(str, sys.version_info[:3])) or "rc" in found["python"]


def test_the_script_has_a_checksum(tmp_path):
    script = tmp_path / "lab.py"
    assert provenance.code(None)["script_sha256"] is None
    assert provenance.code(script)["script_sha256"] is None
    script.write_text("first")
    then = provenance.collect(script)
    assert then["code"]["script_sha256"] == hashlib.sha256(b"first").hexdigest()
    script.write_text("other")
    now = provenance.collect(script)
    now["code"]["jaxrnn"] = then["code"]["jaxrnn"]  # someone may be at work on it
    [phrase] = provenance.differences(then, now)
    assert phrase.startswith("the script's SHA-256 was a7937b64b8caa58f")


def test_the_time_is_utc_to_the_millisecond():
    text = provenance.utc_now()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(text)
    assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=1)


def test_devices_are_jaxs():
    device = jax.devices()[0]
    found = machine.devices()
    assert (found["platform"], found["kind"]) == (device.platform, device.device_kind)
    assert found["count"] == jax.device_count()
