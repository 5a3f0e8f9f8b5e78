"""Composed music: frames, MIDI read back, and the picture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn.analysis import music
from jaxrnn.cells import GRUCell, LSTMCell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Stack
from jaxrnn.models import SequenceModel

ROLL = (np.random.default_rng(0).random((20, 88)) < 0.1).astype(np.uint8)
ROLL[[0, 7, 8]] = 0  # silence
ROLL[3:6, 40] = 1  # held


def read_midi(path):
    """The frames in which each note sounds, as a set of (frame, key), and the notes struck."""
    mido = pytest.importorskip("mido")
    file, now, since, sounding, struck = mido.MidiFile(path), 0, {}, set(), 0
    for message in file.tracks[0]:
        now += message.time
        if message.type == "note_on":
            since[message.note] = now
            struck += 1
        elif message.type == "note_off":
            start, end = since.pop(message.note) / file.ticks_per_beat, now / file.ticks_per_beat
            assert start == int(start) and end == int(end)
            sounding |= {(frame, message.note - 21) for frame in range(int(start), int(end))}
    assert not since
    return sounding, struck, file


def test_a_midi_file_read_back_is_the_roll(tmp_path):
    pytest.importorskip("mido")
    music.write_midi(tmp_path / "a.mid", ROLL, 120)
    sounding, struck, file = read_midi(tmp_path / "a.mid")
    assert sounding == {(t, key) for t, key in np.argwhere(ROLL).tolist()}
    rises = np.diff(ROLL.astype(int), axis=0, prepend=0) == 1
    assert struck == rises.sum() < ROLL.sum()  # a held key is struck once
    last = int(np.flatnonzero(ROLL.any(axis=1))[-1])
    np.testing.assert_allclose(file.length, 0.5 * (last + 1))  # half a second per frame
    music.write_midi(tmp_path / "b.mid", np.zeros((4, 88), np.uint8))
    assert read_midi(tmp_path / "b.mid")[0] == set()


def test_mido_is_named_if_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mido", None)
    with pytest.raises(music.RunError, match="pip install mido"):
        music.write_midi(tmp_path / "a.mid", ROLL)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("cell", [GRUCell, LSTMCell])
def test_composing_reads_the_opening_and_what_was_composed(cell, key):
    """With saturated outputs the drawing is certain: compare with a run over the whole piece."""
    model = SequenceModel(Stack((Recurrent(cell(4)), Recurrent(cell(4)))), 88)
    params = model.init(key, jnp.zeros((1, 2, 88)))["params"]
    params = jax.tree.map(lambda leaf: 30 * leaf, params)
    params["readout"]["kernel"] *= 30
    roll = music.compose(model, params, key, ROLL[:6], 9)
    assert roll.shape == (15, 88) and roll.dtype == np.uint8
    np.testing.assert_array_equal(roll[:6], ROLL[:6])
    outputs = model.apply({"params": params}, jnp.asarray(roll, jnp.float32)[None])[0][0]
    certain = np.abs(outputs[5:-1]) > 20
    assert certain.mean() > 0.8
    np.testing.assert_array_equal((outputs[5:-1] > 0)[certain], roll[6:].astype(bool)[certain])


def test_each_key_is_drawn_with_its_probability(key):
    model = SequenceModel(Recurrent(GRUCell(2)), 88)
    params = model.init(key, jnp.zeros((1, 2, 88)))["params"]
    chances = np.linspace(0.02, 0.98, 88)
    logits = jnp.asarray(np.log(chances / (1 - chances)), jnp.float32)
    params["readout"] = {"kernel": jnp.zeros((2, 88)), "bias": logits}
    roll = music.compose(model, params, key, ROLL[:1], 4000)[1:]
    error = np.sqrt(chances * (1 - chances) / 4000)
    assert (np.abs(roll.mean(axis=0) - chances) < 5 * error).all()
    pair = np.corrcoef(roll[:, 40], roll[:, 41])[0, 1]
    assert abs(pair) < 5 / np.sqrt(4000)


def test_the_picture_is_drawn_also_of_silence(tmp_path):
    for name, roll in (("a.png", ROLL), ("b.png", np.zeros((5, 88), np.uint8))):
        music.plot_roll(tmp_path / name, roll, 2, "title")
        assert (tmp_path / name).stat().st_size > 3000
