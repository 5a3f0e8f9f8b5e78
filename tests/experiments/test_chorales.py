"""Chorales from MusicXML: a score written out by hand, music21's own reading, and the script."""

import hashlib
import importlib.util
import re
import zipfile
from fractions import Fraction
from functools import partial
from pathlib import Path

import chorales
import numpy as np
import pytest
from chorales import Config, Note, Score, main, read_score, to_frames

from jaxrnn import cli
from jaxrnn.errors import RunError
from jaxrnn.tasks.music import Music

CONTAINER = '<container><rootfiles><rootfile full-path="a.xml"/></rootfiles></container>'


def note(step, octave, duration, *, alter=0, chord=False, grace=False):
    """A <note> of MusicXML; without a step, a rest."""
    flags = "<chord/>" * chord + "<grace/>" * grace
    pitch = f"<pitch><step>{step}</step><alter>{alter}</alter><octave>{octave}</octave></pitch>"
    time = "" if grace else f"<duration>{duration}</duration>"
    return f"<note>{flags}{pitch if step else '<rest/>'}{time}</note>"


UPPER = (  # a quarter as the upbeat; then a chord of a half, a rest, and a second voice below it
    "<measure><attributes><divisions>2</divisions><key><fifths>1</fifths></key></attributes>"
    + note("G", 4, 2)
    + "</measure><measure>"
    + note("A", 4, 0, grace=True)
    + note("B", 4, 4)
    + note("D", 5, 4, chord=True)
    + note("", 0, 2)
    + "<backup><duration>6</duration></backup><forward><duration>1</duration></forward>"
    + note("F", 4, 3, alter=1)
    + "</measure><measure><attributes><divisions>3</divisions></attributes>"
    + note("E", 4, 4)
    + "</measure>"
)
LOWER = (
    "<measure><attributes><divisions>1</divisions></attributes>"
    + note("G", 2, 1)
    + "</measure><measure>"
    + note("B", 2, 3, alter=-1)
    + "</measure>"
)


def write_score(file, *parts, root="score-partwise"):
    body = "".join(f"<part>{part}</part>" for part in parts)
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("META-INF/container.xml", CONTAINER)
        opened.writestr("a.xml", f"<{root}>{body}</{root}>")
    return file


def test_a_score_is_read_note_by_note(tmp_path):
    score = read_score(write_score(tmp_path / "a.mxl", UPPER, LOWER))
    assert (score.parts, score.fifths) == (2, 1)
    third = Fraction(1, 3)
    assert sorted(score.notes) == sorted(
        [
            Note(Fraction(0), Fraction(1), 67),
            Note(Fraction(1), Fraction(3), 71),
            Note(Fraction(1), Fraction(3), 74),
            Note(Fraction(3, 2), Fraction(3), 66),
            Note(Fraction(4), 4 + 4 * third, 64),
            Note(Fraction(0), Fraction(1), 43),
            Note(Fraction(1), Fraction(4), 46),
        ]
    )


def test_frames_have_the_keys_that_sound_at_their_start(tmp_path):
    score = read_score(write_score(tmp_path / "a.mxl", UPPER, LOWER))
    roll = to_frames(score, transpose=False)
    keys = [set((21 + np.flatnonzero(frame)).tolist()) for frame in roll]
    assert keys == [{67, 43}, {71, 74, 46}, {71, 74, 66, 46}, {46}, {64}, {64}]
    halves = to_frames(score, 2, transpose=False)
    assert len(halves) == 11 and (halves[::2] == roll).all()
    assert halves[3, 66 - 21] and not halves[2, 66 - 21]


@pytest.mark.parametrize("fifths", range(-7, 8))
def test_transposed_pieces_have_no_sharps_or_flats(fifths):
    tonic = (7 * fifths) % 12  # of the major key, from C
    score = Score([Note(Fraction(0), Fraction(1), 60 + tonic)], 4, fifths)
    (key,) = np.flatnonzero(to_frames(score)[0]) + 21
    assert key % 12 == 0
    assert -6 <= key - (60 + tonic) <= 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["bwv10.7.mxl", "bwv101.7.mxl"])
def test_scores_are_those_that_music21_reads(name):
    converter = pytest.importorskip("music21.converter")
    file = chorales.folder() / name
    expected = set()
    for found in converter.parse(file).flatten().notes:
        start, end = (Fraction(time) for time in (found.offset, found.offset + found.quarterLength))
        if end > start:  # not a grace note
            expected |= {Note(start, end, pitch.midi) for pitch in found.pitches}
    assert set(read_score(file).notes) == expected


@pytest.fixture
def script(call, tmp_path, monkeypatch):
    """The script's command line in this process, on a package with 12 pieces and a duet."""
    folder = tmp_path / "music21/corpus/bach"
    folder.mkdir(parents=True)
    (tmp_path / "music21/__init__.py").touch()
    for n in range(12):
        soprano = f"<measure>{note('C', 5, 1) * (n + 2)}</measure>"
        write_score(folder / f"bwv{n:02}.mxl", soprano, *[UPPER] * 2, LOWER)
    write_score(folder / "duet.mxl", UPPER, LOWER)
    spec = importlib.util.spec_from_file_location(
        "music21",
        tmp_path / "music21/__init__.py",
        submodule_search_locations=[str(tmp_path / "music21")],
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    return partial(call, partial(cli.run_command, Config, main), "chorales.py"), folder


def test_the_script_writes_a_file_that_the_task_reads(script):
    run, folder = script
    result = run("--out", "a.mat")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        "12 of 13 pieces have 4 parts: 8 in traindata, 2 in validdata, 2 in testdata, of a.mat.\n"
    )
    task = Music(Path("a.mat"))
    assert task.parts["test"].lengths.tolist() == [6, 12]  # pieces 0 and 10
    assert task.parts["validation"].lengths.tolist() == [6, 13]
    wanted = to_frames(read_score(folder / "bwv11.mxl"))
    np.testing.assert_array_equal(task.parts["validation"].rolls[1], wanted)
    first = hashlib.sha256(Path("a.mat").read_bytes()).digest()
    run("--out", "a.mat")
    assert hashlib.sha256(Path("a.mat").read_bytes()).digest() == first


@pytest.mark.parametrize("content", [b"no zip", None])
def test_damaged_scores_are_one_line(script, content):
    run, folder = script
    if content is None:
        with zipfile.ZipFile(folder / "bwv00.mxl", "w") as opened:
            opened.writestr("a.txt", "no score")
    else:
        (folder / "bwv00.mxl").write_bytes(content)
    result = run("--out", "a.mat")
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"error: .*bwv00.mxl is not a compressed MusicXML file\n", result.stderr)
    assert not Path("a.mat").exists()


def test_frames_are_counted_from_1(script):
    result = script[0]("--frames-per-quarter", "0")
    assert (result.returncode, result.stderr) == (
        2,
        "error: frames per quarter must be at least 1\n",
    )


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RunError, match="pip install music21"):
        chorales.folder()
