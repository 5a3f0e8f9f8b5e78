"""Turn the Bach chorales that come with the package music21 into a file for `music.py`.

    pip install music21
    python experiments/chorales.py --out chorales.mat
    python experiments/music.py --data chorales.mat

The MusicXML files in the package are read directly; music21 itself would take minutes. These are
other editions and other parts than in JSB_Chorales.mat, so their losses are not comparable.
"""

import xml.etree.ElementTree as ElementTree
import zipfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import tyro

from jaxrnn import atomic, cli
from jaxrnn.checks import check_counts
from jaxrnn.errors import RunError
from jaxrnn.package_data import package_file
from jaxrnn.tasks.music import KEYS, LOWEST

SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
VOICES = 4  # pieces with other numbers of parts, such as with instruments, are left out


@dataclass(frozen=True)
class Config:
    """Write the four-part chorales of Bach in music21's corpus as frames of 88 keys."""

    out: Annotated[Path, tyro.conf.arg(metavar="FILE.mat", help_behavior_hint="")] = Path(
        "chorales.mat"
    )
    """The file to write."""
    frames_per_quarter: int = 1
    """Frames per quarter note."""
    transpose: bool = True
    """Transpose each piece so that its first key signature has no sharps or flats."""

    def __post_init__(self) -> None:
        check_counts(self, "frames_per_quarter")


class Note(NamedTuple):
    """A note, or a piece of a tied one."""

    start: Fraction  # quarter notes since the beginning
    end: Fraction
    pitch: int  # MIDI number


class Score(NamedTuple):
    """A piece."""

    notes: list[Note]
    parts: int
    fifths: int  # sharps of the first key signature; flats are negative


def read_score(file: Path) -> Score:
    """Read a compressed MusicXML file; repeats are not played, grace notes are left out.

    Raises:
      RunError: if it is something else.
      OSError: if it cannot be read.
    """
    try:
        with zipfile.ZipFile(file) as opened:
            container = ElementTree.fromstring(opened.read("META-INF/container.xml"))
            name = next(node for node in container.iter() if node.tag.endswith("rootfile"))
            root = ElementTree.fromstring(opened.read(name.attrib["full-path"]))
    except (zipfile.BadZipFile, ElementTree.ParseError, KeyError, StopIteration) as error:
        raise RunError(f"{file} is not a compressed MusicXML file") from error
    parts = root.findall("part")
    notes = [note for part in parts for note in read_part(part)]
    return Score(notes, len(parts), int(root.findtext(".//key/fifths") or 0))


def read_part(part: ElementTree.Element) -> list[Note]:
    """Return the notes of a part, in quarter notes."""
    notes, divisions, measure_start = [], 1, Fraction(0)
    for measure in part.findall("measure"):
        now = end_of_measure = chord_start = measure_start
        for element in measure:
            divisions = int(element.findtext("divisions") or divisions)
            duration = Fraction(element.findtext("duration") or 0) / divisions
            if element.tag == "backup":
                now -= duration
            elif element.tag == "forward":
                now += duration
            elif element.tag == "note" and element.find("grace") is None:
                if element.find("chord") is None:  # else it sounds with the note before
                    chord_start, now = now, now + duration
                if (pitch := element.find("pitch")) is not None:
                    notes.append(Note(chord_start, chord_start + duration, midi_number(pitch)))
            end_of_measure = max(end_of_measure, now)
        measure_start = end_of_measure
    return notes


def midi_number(pitch: ElementTree.Element) -> int:
    """Return the MIDI number of a <pitch>; middle C, octave 4, is 60.

    >>> text = "<pitch><step>B</step><alter>-1</alter><octave>3</octave></pitch>"
    >>> midi_number(ElementTree.fromstring(text))
    58
    """
    alter = float(pitch.findtext("alter") or 0)
    octave = int(pitch.findtext("octave") or 4)
    return 12 * (octave + 1) + SEMITONES[pitch.findtext("step") or "C"] + round(alter)


def to_frames(score: Score, frames_per_quarter: int = 1, transpose: bool = True) -> np.ndarray:
    """Return [L, 88] uint8: which keys sound at the start of each frame."""
    # A signature of one sharp is a fifth up, 7 semitones; go the shorter way, -6 to 5 semitones.
    shift = (-7 * score.fifths + 6) % 12 - 6 if transpose else 0
    end = max(note.end for note in score.notes)
    roll = np.zeros((-(-end * frames_per_quarter // 1), KEYS), np.uint8)
    for note in score.notes:
        first, last = (-(-time * frames_per_quarter // 1) for time in (note.start, note.end))
        roll[first:last, note.pitch + shift - LOWEST] = 1
    return roll


def split(rolls: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Split the pieces: of each ten, the first is for tests, the second for validation."""
    parts: dict[str, list[np.ndarray]] = {"traindata": [], "validdata": [], "testdata": []}
    for n, roll in enumerate(rolls):
        parts[{0: "testdata", 1: "validdata"}.get(n % 10, "traindata")].append(roll)
    cells = {}
    for name, pieces in parts.items():
        cells[name] = np.empty((1, len(pieces)), object)
        for n, piece in enumerate(pieces):
            cells[name][0, n] = piece
    return cells


def folder() -> Path:
    """Return the folder of the chorales in the package music21, which is not imported.

    Raises:
      RunError: if it is not installed, or has no such folder.
    """
    missing = "the chorales come with the package music21: pip install music21"
    folder = package_file("music21", "corpus/bach", missing)
    if not any(folder.glob("*.mxl")):
        raise RunError(f"there are no chorales in {folder}: install another version of music21")
    return folder


def main(config: Config) -> None:
    """Read all chorales and write the file."""
    import io

    from scipy.io import savemat

    scores = [read_score(file) for file in sorted(folder().glob("*.mxl"))]
    rolls = [
        to_frames(score, config.frames_per_quarter, config.transpose)
        for score in scores
        if score.parts == VOICES and score.notes
    ]
    parts, contents = split(rolls), io.BytesIO()
    savemat(contents, parts, do_compression=True)
    # The header of a .mat file starts with text that has the time; without it, the same pieces
    # always give the same bytes.
    data = b"MATLAB 5.0 MAT-file, chorales of music21".ljust(116) + contents.getvalue()[116:]
    atomic.write(config.out, data)
    sizes = ", ".join(f"{cells.size} in {name}" for name, cells in parts.items())
    print(f"{len(rolls)} of {len(scores)} pieces have {VOICES} parts: {sizes}, of {config.out}.")


if __name__ == "__main__":
    cli.run_command(Config, main)
