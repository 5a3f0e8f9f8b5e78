"""Music from a trained network: frames, a MIDI file, and a picture of the piano roll."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.errors import RunError
from jaxrnn.tasks.music import LOWEST
from jaxrnn.types import Params

TICKS = 480  # of a MIDI file, per frame
VELOCITY = 80


def compose(
    model: Any, params: Params, key: jax.Array, opening: jax.typing.ArrayLike, frames: int
) -> np.ndarray:
    """Continue a piece: in each frame, every key sounds with its predicted probability.

    The keys of a frame are drawn independently of each other, which is what the loss assumes.

    Args:
      model: a `SequenceModel` that was trained on `Music`.
      params: its parameters.
      key: [] PRNG key.
      opening: [P, 88], the first frames, at least one.
      frames: how many to add.

    Returns:
      [P + frames, 88] uint8.
    """
    first = jnp.asarray(opening, jnp.float32)[None]  # [1, P, 88]

    def go_on(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        outputs, carry = state
        frame = jax.random.bernoulli(key, jax.nn.sigmoid(outputs[:, -1:])).astype(jnp.float32)
        return model.apply({"params": params}, frame, carry), frame[0, 0]

    def run(first: jax.Array, key: jax.Array) -> jax.Array:
        outputs, carry = model.apply({"params": params}, first)
        state = outputs[:, -1:], carry
        return jax.lax.scan(go_on, state, jax.random.split(key, frames))[1]

    added = jax.jit(run)(first, key)
    return np.concatenate([first[0], added]).astype(np.uint8)


def write_midi(path: Path, roll: np.ndarray, frames_per_minute: float = 100.0) -> None:
    """Write a piano roll as a MIDI file; a key that sounds in successive frames is held.

    Args:
      path: the file to write.
      roll: [T, 88] of 0 and 1.
      frames_per_minute: the tempo.

    Raises:
      RunError: if the package mido is not installed.
      OSError: if the file cannot be written.
    """
    try:
        import mido
    except ImportError:
        raise RunError("MIDI files need the package mido: pip install mido") from None
    track = mido.MidiTrack()
    track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(frames_per_minute)))
    silent = np.zeros_like(roll[:1], int)
    changes = np.diff(np.concatenate([silent, roll.astype(int), silent]), axis=0)  # [T+1, 88]
    waited = 0
    for frame in changes:
        for kind, sign in (("note_off", -1), ("note_on", 1)):
            for pressed in np.flatnonzero(frame == sign).tolist():
                note = LOWEST + pressed
                track.append(mido.Message(kind, note=note, velocity=VELOCITY, time=waited))
                waited = 0
        waited += TICKS
    mido.MidiFile(type=0, ticks_per_beat=TICKS, tracks=[track]).save(path)


def plot_roll(path: Path, roll: np.ndarray, opening: int, title: str) -> None:
    """Draw a piano roll.

    Args:
      path: the PNG file to write.
      roll: [T, 88] of 0 and 1.
      opening: how many frames were given; the others are the network's.
      title: the title.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    from jaxrnn.analysis.plots import ACCENT, INK

    pressed = np.flatnonzero(roll.any(axis=0))
    low, high = (pressed[0], pressed[-1]) if pressed.size else (0, roll.shape[1] - 1)
    low, high = max(0, low - 2), min(roll.shape[1] - 1, high + 2)
    made = np.arange(len(roll)) >= opening
    colors = np.where(roll > 0, 1 + made[:, None], 0)[:, low : high + 1].T
    figure = Figure(figsize=(max(6.4, min(12.0, 0.12 * len(roll))), 3.6), layout="constrained")
    axis = figure.subplots()
    first, last = LOWEST + low, LOWEST + high
    axis.imshow(
        colors,
        cmap=ListedColormap(["white", INK, ACCENT]),
        vmin=0,
        vmax=2,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(-0.5, len(roll) - 0.5, first - 0.5, last + 0.5),
    )
    octaves = [note for note in range(first, last + 1) if note % 12 == 0]
    axis.set_yticks(octaves, [f"C{note // 12 - 1}" for note in octaves])
    axis.grid(axis="y", color=INK, alpha=0.15)
    axis.axvline(opening - 0.5, color=INK, lw=0.8, ls=":")
    axis.set_xlabel("frame (dark: the opening that was given; light: the network's)")
    axis.set_title(title, fontsize=11)
    figure.savefig(path, dpi=144)
