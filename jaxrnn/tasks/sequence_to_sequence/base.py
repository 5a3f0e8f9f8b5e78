"""The base of tasks that turn one sequence of tokens into another."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import losses
from jaxrnn.errors import SettingError
from jaxrnn.rng import validation_key
from jaxrnn.tasks.base import Task
from jaxrnn.types import Arrays, Batch, Metrics

END = "<end>"
"""Token 0 of both vocabularies: it ends a target, pads, and is the decoder's first input."""


class SequenceToSequence(Task):
    """Targets that are written token by token, after a source was read, by an `EncoderDecoder`.

    Inputs [B, T] with T = S + L: the source, padded with zeros to S steps; then 0 and the target
    without its last step, so that each step's input is the token before (teacher forcing). Targets:
    zeros, then the target, which ends with token 0. Its steps, with the end, have weight 1.
    `lengths` are those of the sources.

    A subclass defines the fields `batch_size` and `validation_size`, the attributes below, and
    `sample_pairs`.

    The validation set is one batch, the same for all seeds. It is sampled like a training batch,
    unless a subclass has data of its own for it.

    Attributes:
      source_vocabulary: the source's tokens, `END` first.
      target_vocabulary: the target's tokens, `END` first.
      source_length: S, the most tokens of a source.
      target_length: L, the most tokens of a target, with the end.
      separator: what stands between two tokens of a text.
    """

    batch_size: int
    validation_size: int
    source_vocabulary: tuple[str, ...]
    target_vocabulary: tuple[str, ...]
    source_length: int
    target_length: int
    separator: str = ""

    def sample_pairs(
        self, key: jax.Array, rows: int, arrays: Arrays
    ) -> tuple[jax.Array, jax.Array]:
        """Sources [rows, S] and targets [rows, L], int32: tokens from 1, then zeros.

        A target has at least one zero, its end.
        """
        raise NotImplementedError(f"{type(self).__name__} must define sample_pairs")

    @property
    def output_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """V, the target's vocabulary."""
        return len(self.target_vocabulary)

    @property
    def length_groups(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Validation measures each length of the source by itself.

        In a group each target counts as often as it has tokens, in `exact_match`, too.
        """
        return tuple(range(1, self.source_length + 1))

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """Inputs, targets and weights [B, T], and the lengths [B] of the sources."""
        del step
        return make_batch(*self.sample_pairs(key, self.batch_size, arrays))

    def num_validation_batches(self, arrays: Arrays) -> int:
        """One, of `validation_size` rows."""
        del arrays
        return 1

    def validation_batch(self, n: jax.Array, arrays: Arrays) -> Batch:
        """As a training batch, from a key that no seed uses for training."""
        return make_batch(*self.sample_pairs(validation_key(n), self.validation_size, arrays))

    def metrics(self, outputs: jax.Array, batch: Batch) -> Metrics:
        """The shares of right tokens, `accuracy`, and of right targets, `exact_match`, both [].

        Outputs [B, T, V] are with teacher forcing. An exact match is also one of greedy decoding,
        and the other way round; see `text.decoding.greedy_decode`.
        """
        right = losses.argmax(outputs) == batch.targets  # [B, T]
        exact = jnp.all(right | (batch.weights == 0), axis=1)  # [B]
        return {
            "accuracy": losses.weighted_mean(right.astype(outputs.dtype), batch.weights),
            "exact_match": jnp.mean(exact.astype(outputs.dtype)),
        }

    def solved(self, metrics: dict[str, Any]) -> Any:
        """[S] bool: whether more than 99% of the validation set's targets are exactly right."""
        return metrics["validation_exact_match"] > 0.99

    def encode_source(self, text: str) -> np.ndarray:
        """Text to source ids [n] int32.

        Raises:
          SettingError: if it is too long, or has a token that is not in the vocabulary.
        """
        tokens = text.split(self.separator) if self.separator else list(text)
        if unknown := sorted(set(tokens) - set(self.source_vocabulary[1:])):
            raise SettingError(f"{text!r} has {unknown[0]!r}, which no source of this task has")
        if len(tokens) > self.source_length:
            limit = self.source_length
            raise SettingError(f"{text!r} has {len(tokens)} tokens; a source has at most {limit}")
        return np.array([self.source_vocabulary.index(token) for token in tokens], np.int32)

    def source_text(self, ids: Any) -> str:
        """Source ids, up to the first 0, to text."""
        return _text(ids, self.source_vocabulary, self.separator)

    def target_text(self, ids: Any) -> str:
        """Target ids, up to the first 0, to text."""
        return _text(ids, self.target_vocabulary, self.separator)


def make_batch(source: jax.Array, target: jax.Array) -> Batch:
    """Sources [B, S] and targets [B, L], padded with zeros, to a batch of T = S + L steps.

    >>> batch = make_batch(jnp.array([[5, 3, 0]]), jnp.array([[4, 2, 0, 0]]))
    >>> print(jnp.stack([batch.inputs, batch.targets, batch.weights.astype(int)])[:, 0])
    [[5 3 0 0 4 2 0]
     [0 0 0 4 2 0 0]
     [0 0 0 1 1 1 0]]
    >>> batch.lengths.tolist()
    [2]
    """
    before = jnp.pad(target[:, :-1], ((0, 0), (1, 0)))
    written = jnp.sum(target > 0, axis=1, keepdims=True)  # [B, 1]
    weights = (jnp.arange(target.shape[1])[None] <= written).astype(jnp.float32)  # with the end
    empty = jnp.zeros_like(source)
    return Batch(
        jnp.concatenate([source, before], axis=1),
        jnp.concatenate([empty, target], axis=1),
        jnp.concatenate([empty.astype(jnp.float32), weights], axis=1),
        jnp.sum(source > 0, axis=1, dtype=jnp.int32),
    )


def left_align(ids: jax.Array) -> jax.Array:
    """Move the zeros of each row [..., T] to its end; the other tokens keep their order.

    >>> left_align(jnp.array([[0, 7, 0, 8], [9, 0, 0, 1]])).tolist()
    [[7, 8, 0, 0], [9, 1, 0, 0]]
    """
    return jnp.take_along_axis(ids, jnp.argsort(ids == 0, axis=-1, stable=True), axis=-1)


def digits(numbers: jax.Array, width: int) -> jax.Array:
    """Decimal digits [..., width] of numbers [...] from 0; each digit plus 1, 0 for leading zeros.

    >>> digits(jnp.array([205, 0]), 4).tolist()
    [[0, 3, 1, 6], [0, 0, 0, 1]]
    """
    powers = jnp.asarray([10**k for k in reversed(range(width))], jnp.int32)
    parts = numbers[..., None] // powers.reshape(*[1] * numbers.ndim, -1)
    shown = (parts > 0) | (powers == 1).reshape(*[1] * numbers.ndim, -1)
    return jnp.where(shown, parts % 10 + 1, 0)


def _text(ids: Any, vocabulary: tuple[str, ...], separator: str) -> str:
    tokens = [vocabulary[i] for i in np.asarray(ids).tolist()]
    return separator.join(tokens[: tokens.index(END)] if END in tokens else tokens)
