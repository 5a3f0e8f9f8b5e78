"""Say every next unit of a text file: character language modelling."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import check_counts
from jaxrnn.errors import RunError
from jaxrnn.tasks.base import Task
from jaxrnn.text import corpus
from jaxrnn.text.corpus import Corpus
from jaxrnn.types import Arrays, Batch


@dataclass(frozen=True)
class Language(Task):
    """Windows of a text, in order: inputs [B, T] are units, the targets those that follow them.

    The training part is cut into B rows of the same length. Row b of a batch goes on where row b of
    the batch before it stopped, and the carry goes along (truncated backpropagation through time).
    One pass is `windows` batches; each starts with a fresh carry, as a text that is to be read or
    written later does. What is left at the end, less than B * T units, is not read.

    All of the validation part is scored, each unit once, in as many rows, each after one window of
    the text before it, which is not scored.

    Attributes:
      file: UTF-8; any file at all if the units are bytes. Read by `corpus.read`.
      vocabulary: [V] units, sorted.
      units: characters, bytes or jamo.
      batch_size: B.
      length: T, the window.
      splits: the share of the training part and of the validation part; the rest is for tests.

    Raises:
      SettingError: if a setting is out of range.
    """

    file: Path
    vocabulary: tuple[str, ...]
    units: str = "characters"
    batch_size: int = 50
    length: int = 50
    splits: tuple[float, float] = (0.9, 0.1)

    stateful = True

    def __post_init__(self) -> None:
        check_counts(self, "batch_size", "length")

    @classmethod
    def from_file(cls, file: Path, units: str = "characters", **settings: Any) -> "Language":
        """The task of a file, with the file's own vocabulary.

        Raises:
          SettingError: if a setting is out of range.
          RunError, OSError: if the file cannot be learned from; see `corpus.read`, and `corpus`.
        """
        splits = settings.get("splits", cls.splits)
        found = corpus.read(file, units, splits)
        task = cls(file, found.vocabulary, units, **settings)
        task.__dict__["corpus"] = task._checked(found)  # so that it is not read twice
        return task

    @cached_property
    def corpus(self) -> Corpus:
        """The text, in numbers.

        Raises:
          RunError: if the file is not what it was, or a part is too short for its windows.
          OSError: if it cannot be read.
        """
        found = corpus.read(self.file, self.units, self.splits, self.vocabulary)
        return self._checked(found)

    def _checked(self, found: Corpus) -> Corpus:
        batch, have = self.batch_size * self.length + 1, len(found.train)
        if have < batch:
            raise RunError(
                f"the training part of {self.file} has {have} {self.units}, but one batch of"
                f" {self.batch_size} windows of {self.length} takes {batch}: a longer text, a"
                " smaller batch size or a smaller length is needed"
            )
        have = len(found.validation)
        if self.splits[1] and have < self.length + 1:
            raise RunError(
                f"the validation part of {self.file} has {have} {self.units}, but one window of"
                f" {self.length} takes {self.length + 1}: a longer text, a larger share for"
                " validation or a smaller length is needed"
            )
        return found

    @property
    def files(self) -> tuple[Path, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The text."""
        return (self.file,)

    @property
    def output_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """V, a score for each unit."""
        return len(self.vocabulary)

    @cached_property
    def memoryless_loss(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Nats a unit of the best guess that is always the same: the entropy of the units."""
        ids, counts = self.corpus.train, np.zeros(self.output_size, int)
        for start in range(0, len(ids), 2**20):  # in pieces, as it widens each id to eight bytes
            counts += np.bincount(ids[start : start + 2**20], minlength=self.output_size)
        shares = counts[counts > 0] / counts.sum()
        return float(-(shares * np.log(shares)).sum())

    @property
    def windows(self) -> int:
        """Batches of one pass over the training part."""
        return (len(self.corpus.train) - 1) // (self.batch_size * self.length)

    def arrays(self) -> Arrays:
        """The ids of the training part [N] and of the validation part [M], as small integers."""
        return {"train": self.corpus.train, "validation": self.corpus.validation}

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """The window of each row at a step; `key` is not used."""
        del key
        rows, length = self.batch_size, self.length
        windows = (arrays["train"].size - 1) // (rows * length)
        within = jnp.asarray(step) % windows
        nth = jnp.arange(rows) * windows + within  # [B] windows of the text

        def window(n: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(arrays["train"], n * length, length + 1)

        ids = jax.vmap(window)(nth).astype(jnp.int32)  # [B, T+1]
        weights = jnp.ones((rows, length), jnp.float32)
        starts = jnp.broadcast_to((within == 0) & (jnp.arange(length) == 0)[None], weights.shape)
        return Batch(ids[:, :-1], ids[:, 1:], weights, resets=starts)

    def validation_batches(self, arrays: Arrays) -> int:
        """As many as score all of the validation part, and the one before them; 0 without it."""
        if not arrays["validation"].size:
            return 0
        rows, targets = self._held_out(arrays)
        return 1 + math.ceil(targets / (rows * self.length))

    def validation_batch(self, n: jax.Array, arrays: Arrays) -> Batch:
        """The n-th window of each row; those of n=0 are read for the carry, and not scored.

        Row 0 has nothing before it: there its length is 0, and its carry stays fresh.
        """
        rows, targets = self._held_out(arrays)
        scored = (self.validation_batches(arrays) - 1) * self.length  # units a row
        row = jnp.arange(rows)[:, None]  # [B, 1]
        start = row * scored + (n - 1) * self.length  # [B, 1]
        place = start + jnp.arange(self.length)[None]  # [B, T]
        counts = (n > 0) & (place < targets)  # [B, T]
        lengths = jnp.where((n > 0) | (row[:, 0] > 0), self.length, 0)
        return Batch(
            jnp.take(arrays["validation"], place, mode="clip").astype(jnp.int32),
            jnp.take(arrays["validation"], place + 1, mode="clip").astype(jnp.int32),
            counts.astype(jnp.float32),
            lengths,
        )

    def _held_out(self, arrays: Arrays) -> tuple[int, int]:
        """The rows of the validation batches, and how many units are scored."""
        targets = arrays["validation"].size - 1
        return min(self.batch_size, targets // self.length), targets

    def solved(self, metrics: dict[str, Any]) -> None:
        """A language is never learned to the end."""
        del metrics

    def format_loss(self, validation_loss: float) -> str:
        """Bits and perplexity; of jamo and bytes also the bits of a whole character."""
        unit, bits = self.units.removesuffix("s"), validation_loss / math.log(2)
        said = f" nats a {unit} ({bits:.4g} bits, perplexity {math.exp(validation_loss):.4g}"
        characters = self.corpus.characters[1]
        if self.units != "characters" and characters:  # of bytes that are no text there are none
            each = len(self.corpus.validation) / characters
            said += f"; {bits * each:.4g} bits a character"
        return said + ")"
