"""Language modelling: predict every next token of a text file."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import check_counts, check_rate
from jaxrnn.errors import RunError
from jaxrnn.losses import entropy
from jaxrnn.tasks.base import Task
from jaxrnn.text import corpus
from jaxrnn.text.corpus import Corpus, check_fractions
from jaxrnn.types import Arrays, Batch


@dataclass(frozen=True)
class Language(Task):
    """Consecutive windows of a text: inputs [B, T] are token ids, the targets the next tokens.

    The training part is split into B rows of equal length. Row b of a batch continues row b of the
    previous batch, and the carry is passed on (truncated backpropagation through time). One epoch
    is `batches_per_epoch` batches and starts with a zero carry. The remainder at the end, less than
    B * T tokens, is not read.

    In each batch, each row also starts with a zero carry with probability `reset_probability`.
    Sampling and validation start from a zero carry in the middle of a text. A network that has
    rarely been trained on that can get stuck in a state in which it predicts worse than without
    memory, for thousands of tokens (docs/language.md, "Resets").

    Every token of the validation part but the first is scored exactly once, in up to B rows. Each
    row first reads the window before it, unscored, for its carry.

    Attributes:
      file: UTF-8 text, or any file with `tokenizer="bytes"`. Read by `corpus.read`.
      vocabulary: [V] tokens, sorted.
      tokenizer: "characters", "bytes" or "jamo".
      batch_size: B.
      sequence_length: T, the length of a window.
      val_fraction: the fraction of the text, after the training part, to validate on.
      test_fraction: the fraction at the end that is kept for tests; only its tokens' presence in
        the vocabulary is used.
      reset_probability: the probability that a row starts with a zero carry in a batch; 0 for none
        within an epoch.

    Raises:
      SettingError: if a setting is out of range.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "text.txt"
    >>> _ = file.write_text("the rain in Spain " * 20)
    >>> task = Language.from_file(file, batch_size=2, sequence_length=8)
    >>> batch = task.sample_batch(jax.random.key(0), 0, task.arrays())
    >>> task.decode(batch.inputs[0]), task.decode(batch.targets[0])
    ('the rain', 'he rain ')
    """

    file: Path
    vocabulary: tuple[str, ...]
    tokenizer: str = "characters"
    batch_size: int = 50
    sequence_length: int = 50
    val_fraction: float = 0.1
    test_fraction: float = 0.0
    reset_probability: float = 0.1

    stateful = True

    def __post_init__(self) -> None:
        check_counts(self, "batch_size", "sequence_length")
        check_fractions(self.val_fraction, self.test_fraction)
        check_rate("reset probability", self.reset_probability)

    @classmethod
    def from_file(
        cls,
        file: Path,
        tokenizer: str = "characters",
        *,
        val_fraction: float = 0.1,
        test_fraction: float = 0.0,
        vocabulary: tuple[str, ...] | None = None,
        **settings: Any,
    ) -> "Language":
        """The task for a file, by default with the file's own vocabulary.

        Args:
          file: the text.
          tokenizer: "characters", "bytes" or "jamo".
          val_fraction: see above.
          test_fraction: see above.
          vocabulary: another one, which must have all tokens of the file.
          **settings: `batch_size`, `sequence_length` and `reset_probability`.

        Raises:
          SettingError: if a setting is out of range.
          RunError, OSError: if the file cannot be used; see `corpus.read`.
        """
        found = corpus.read(file, tokenizer, val_fraction, test_fraction, vocabulary)
        task = cls(
            file,
            found.vocabulary,
            tokenizer,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            **settings,
        )
        task.__dict__["corpus"] = task._checked(found)  # so that the file is not read twice
        return task

    @cached_property
    def corpus(self) -> Corpus:
        """The text as token ids.

        Raises:
          RunError: if the file has changed, or a part is too short for its windows.
          OSError: if it cannot be read.
        """
        fractions = self.val_fraction, self.test_fraction
        found = corpus.read(self.file, self.tokenizer, *fractions, vocabulary=self.vocabulary)
        return self._checked(found)

    def _checked(self, found: Corpus) -> Corpus:
        length = self.sequence_length
        needed, have = self.batch_size * length + 1, len(found.train)
        if have < needed:
            raise RunError(
                f"the training part of {self.file} has {have} {self.tokenizer}, but one batch of"
                f" {self.batch_size} windows of {length} needs {needed}: use a longer text, a"
                " smaller batch size or a shorter sequence length"
            )
        have = len(found.validation)
        if self.val_fraction and have < length + 1:
            raise RunError(
                f"the validation part of {self.file} has {have} {self.tokenizer}, but one window of"
                f" {length} needs {length + 1}: use a longer text, a larger validation fraction or"
                " a shorter sequence length"
            )
        return found

    def encode(self, text: str) -> np.ndarray:
        """Text to token ids [T] int32; a SettingError names tokens outside the vocabulary."""
        return corpus.encode(text, self.tokenizer, self.vocabulary).astype(np.int32)

    def decode(self, ids: Any) -> str:
        """Token ids [T] to a string of one character per token; see `tokenizer.detokenize`."""
        return "".join(self.vocabulary[i] for i in np.asarray(ids).tolist())

    @property
    def files(self) -> tuple[Path, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The text file."""
        return (self.file,)

    @property
    def output_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """V, the size of the vocabulary."""
        return len(self.vocabulary)

    @cached_property
    def memoryless_loss(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Nats per token of the best constant prediction: the entropy of the tokens."""
        ids, counts = self.corpus.train, np.zeros(self.output_size, int)
        for start in range(0, len(ids), 2**20):  # bincount widens each id to eight bytes
            counts += np.bincount(ids[start : start + 2**20], minlength=self.output_size)
        return entropy(counts)

    @property
    def batches_per_epoch(self) -> int:
        """How many batches read the training part once."""
        return (len(self.corpus.train) - 1) // (self.batch_size * self.sequence_length)

    def arrays(self) -> Arrays:
        """Token ids of the training part [N] and the validation part [M], as small integers."""
        return {"train": self.corpus.train, "validation": self.corpus.validation}

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """The window of each row at a step, in order; `key` decides which rows are reset."""
        rows, length = self.batch_size, self.sequence_length
        windows = (arrays["train"].size - 1) // (rows * length)
        within = jnp.asarray(step, int) % windows  # of the dtype of `arange`
        nth = jnp.arange(rows) * windows + within  # [B] windows of the text

        def window(n: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(arrays["train"], n * length, length + 1)

        ids = jax.vmap(window)(nth).astype(jnp.int32)  # [B, T+1]
        weights = jnp.ones((rows, length), jnp.float32)
        starts = self.starts(key, step, windows)
        resets = starts[:, None] & (jnp.arange(length) == 0)[None]
        return Batch(ids[:, :-1], ids[:, 1:], weights, resets=resets)

    def starts(
        self, key: jax.Array, step: jax.typing.ArrayLike, batches_per_epoch: int
    ) -> jax.Array:
        """The rows that start with a zero carry at a step: [B] bool, all at the start of an epoch.

        Args:
          key: [] PRNG key of the step.
          step: [] int.
          batches_per_epoch: as the property of this name.
        """
        first = jnp.broadcast_to(jnp.asarray(step) % batches_per_epoch == 0, (self.batch_size,))
        if isinstance(self.reset_probability, int | float) and not self.reset_probability:
            return first
        return first | jax.random.bernoulli(key, self.reset_probability, first.shape)

    def num_validation_batches(self, arrays: Arrays) -> int:
        """Enough to score the validation part, and one to warm up the carry; 0 without it."""
        if not arrays["validation"].size:
            return 0
        rows, targets = self._validation_size(arrays)
        return 1 + math.ceil(targets / (rows * self.sequence_length))

    def validation_batch(self, n: jax.Array, arrays: Arrays) -> Batch:
        """The n-th window of each row; batch 0 only warms up the carry and has weight 0.

        Nothing comes before row 0, so its length in batch 0 is 0 and its carry stays zero.
        """
        n = jnp.asarray(n, int)  # of the dtype of `arange`
        rows, targets = self._validation_size(arrays)
        length = self.sequence_length
        scored = (self.num_validation_batches(arrays) - 1) * length  # tokens per row
        row = jnp.arange(rows)[:, None]  # [B, 1]
        start = row * scored + (n - 1) * length  # [B, 1]
        place = start + jnp.arange(length)[None]  # [B, T]
        counts = (n > 0) & (place < targets)  # [B, T]
        lengths = jnp.where((n > 0) | (row[:, 0] > 0), length, 0)
        return Batch(
            jnp.take(arrays["validation"], place, mode="clip").astype(jnp.int32),
            jnp.take(arrays["validation"], place + 1, mode="clip").astype(jnp.int32),
            counts.astype(jnp.float32),
            lengths,
        )

    def _validation_size(self, arrays: Arrays) -> tuple[int, int]:
        """The rows of a validation batch, and how many tokens are scored in all."""
        targets = arrays["validation"].size - 1
        return min(self.batch_size, targets // self.sequence_length), targets

    def solved(self, metrics: dict[str, Any]) -> None:
        """None: language modelling has no point at which it is solved."""
        del metrics

    def format_loss(self, validation_loss: float) -> str:
        """Bits and perplexity; for jamo and bytes also bits per character, which are comparable."""
        characters = self.corpus.characters[1]
        tokens = len(self.corpus.validation) / characters if characters else 0.0
        return self.format_loss_of(validation_loss, tokens)

    def format_loss_of(self, loss: float, tokens_per_character: float) -> str:
        """`format_loss` for another text; 0 tokens if it has no whole character, as bytes may."""
        token, bits = self.tokenizer.removesuffix("s"), loss / math.log(2)
        text = f" nats per {token} ({bits:.4g} bits, perplexity {math.exp(loss):.4g}"
        if self.tokenizer != "characters" and tokens_per_character:
            text += f"; {bits * tokens_per_character:.4g} bits per character"
        return text + ")"
