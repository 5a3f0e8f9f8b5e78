"""The persistent cache: a place of its own, a switch, and entries that were cut short."""

import json
import os

import pytest

from jaxrnn.runs import compilation_cache

SETTINGS = ["--cell", "rnn", "--no-plots", "--quiet", "--steps", "4", "--run-dir"]


@pytest.fixture
def hihello(run, tmp_path):
    """Run the script with a cache in tmp_path/home; returns its metrics and standard error."""

    def hihello(name, **environment):
        environment = {
            "XDG_CACHE_HOME": str(tmp_path / "home"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        } | environment
        result = run("hihello.py", *SETTINGS, name, **environment)
        assert result.returncode == 0, result.stderr
        rows = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        return [row | {"clock": None} for row in rows], result.stderr

    return hihello


def entries(folder):
    return sorted(folder.rglob("*-cache"))


@pytest.mark.slow
@pytest.mark.parametrize("kept", [0, 0.5, -1], ids=["none", "half", "all but one"])
def test_a_truncated_entry_costs_only_a_compilation(hihello, tmp_path, kept):
    first, _ = hihello("first")
    written = {entry: entry.read_bytes() for entry in entries(tmp_path)}
    assert written
    for entry, whole in written.items():
        entry.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    assert hihello("second") == (first, "")
    times = {entry: entry.stat().st_mtime_ns for entry in entries(tmp_path)}
    for entry, whole in written.items():
        assert len(entry.read_bytes()) > 0.7 * len(whole), "an entry was not replaced"
    assert hihello("third") == (first, "")
    for entry, time in times.items():
        assert entry.stat().st_mtime_ns == time, "an entry was not used"


@pytest.mark.slow
def test_an_entry_with_a_flipped_bit_gives_no_wrong_number(hihello, tmp_path):
    first, _ = hihello("first")
    for entry in entries(tmp_path):
        damaged = bytearray(entry.read_bytes())
        if damaged.startswith(b"\x28\xb5\x2f\xfd"):
            pytest.skip("Zstandard, where JAX uses it, keeps no checksum of the contents")
        damaged[len(damaged) // 2] ^= 16
        entry.write_bytes(damaged)
    assert hihello("second") == (first, "")


@pytest.mark.slow
def test_the_directory_names_jaxlib_and_the_processor(hihello, tmp_path):
    import jaxlib.version

    hihello("first")
    entry = entries(tmp_path)[0]
    assert entry.parent.parent == tmp_path / "home/jaxrnn"
    version, _, processor = entry.parent.name.rpartition("-")
    assert version == f"jaxlib-{jaxlib.version.__version__}"
    assert len(processor) == 12


@pytest.mark.slow
def test_it_can_be_disabled_or_moved(hihello, tmp_path):
    first = hihello("first", JAX_ENABLE_COMPILATION_CACHE="false")
    assert entries(tmp_path) == []
    second = hihello(
        "second",
        JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"),
    )
    assert entries(tmp_path / "mine")
    assert not (tmp_path / "home").exists()
    assert first == second


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_one_note(hihello, tmp_path):
    first, _ = hihello("first")
    (tmp_path / "file").touch()
    second, complaint = hihello("second", XDG_CACHE_HOME=str(tmp_path / "file"))
    assert second == first
    assert complaint.startswith("note: no compilation cache in ")
    assert complaint.count("\n") == 1


def test_a_cache_that_jax_cannot_name_is_one_note(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", os.fsdecode(b"%b/bad\xff" % os.fsencode(tmp_path)))
    assert compilation_cache.enable() is None
    said = capsys.readouterr().err
    assert said.startswith(f"note: no compilation cache: the path {tmp_path}/bad\\udcff/jaxrnn/")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())
