"""Sequence classification: one label for each sequence."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import check_counts
from jaxrnn.choices import check_choice
from jaxrnn.errors import RunError
from jaxrnn.rng import root_key
from jaxrnn.tasks.base import Task
from jaxrnn.types import Arrays, Batch


class Examples(NamedTuple):
    """Labelled sequences; the axis N counts them."""

    inputs: Any  # [N, T, F] float32
    labels: Any  # [N] int32, each in 0..V-1
    lengths: Any = None  # [N] int32; None if all have T steps


@dataclass(frozen=True)
class Classification(Task):
    """A training set and a test set of labelled sequences, from `load`.

    Each sequence has one target, [B, 1], so the model must be a `SequenceClassifier` or another
    one with outputs [B, 1, V]. The whole test set is the validation set, in batches of `batch_size`
    rows; padding of the last batch has weight 0.

    Attributes:
      batch_size: B.
      order: "random" draws each batch's rows independently, with replacement; "sequential" takes
        them in the order of the set, and starts again at its end.
      memoryless_loss: ln V, the loss of the best constant, if all classes are equally frequent.
      target_accuracy: the accuracy on the test set from which a seed has solved the task.

    Raises:
      SettingError: if a setting is out of range.

    >>> class Signs(Classification):
    ...     output_size = 2
    ...
    ...     def load(self):
    ...         numbers = np.array([-2.0, 3.0, -1.0], np.float32)
    ...         examples = Examples(numbers.reshape(3, 1, 1), (numbers > 0).astype(np.int32))
    ...         return examples, examples
    >>> task = Signs(batch_size=2)
    >>> task.validation_batch(jnp.int32(1), task.arrays()).weights.tolist()  # the third one
    [[1.0], [0.0]]
    """

    batch_size: int = 100
    order: Literal["random", "sequential"] = "random"

    target_accuracy = 0.9

    def __post_init__(self) -> None:
        check_counts(self, "batch_size")
        check_choice("order", self.order, ("random", "sequential"))

    @property
    def memoryless_loss(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Nats of a guess among V classes."""
        return float(np.log(self.output_size))

    def load(self) -> tuple[Examples, Examples]:
        """Return the training set and the test set, in NumPy.

        Raises:
          RunError: if the data cannot be used, or a package that has them is not installed.
          OSError: if a file cannot be read.
        """
        raise NotImplementedError(f"{type(self).__name__} must define load()")

    @cached_property
    def _loaded(self) -> tuple[Examples, Examples]:
        return self.load()

    def arrays(self) -> Arrays:
        """The training set and the test set."""
        return self._loaded

    def sizes(self, arrays: Arrays) -> tuple[int, int]:
        """The number of sequences in the training set and in the test set."""
        train, test = arrays
        return len(train.labels), len(test.labels)

    def take(self, part: int, ids: jax.Array, arrays: Arrays) -> Examples:
        """The sequences ids [B] of the training set (part 0) or the test set (part 1)."""
        return jax.tree.map(lambda array: jnp.asarray(array)[ids], arrays[part])

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """Inputs [B, T, F], targets [B, 1], weights [B, 1], and lengths [B] or None."""
        size, _ = self.sizes(arrays)
        if self.order == "sequential":
            start = (jnp.asarray(step, jnp.int32) % size) * (self.batch_size % size)
            ids = (start + jnp.arange(self.batch_size, dtype=jnp.int32)) % size
        else:
            ids = jax.random.randint(key, (self.batch_size,), 0, size, jnp.int32)
        return _batch(self.take(0, ids, arrays), jnp.ones((self.batch_size, 1), jnp.float32))

    def num_validation_batches(self, arrays: Arrays) -> int:
        """How many batches the test set has."""
        return -(-self.sizes(arrays)[1] // self.batch_size)

    def validation_batch(self, n: jax.Array, arrays: Arrays) -> Batch:
        """Batch n of the test set, as from `sample_batch`."""
        _, size = self.sizes(arrays)
        ids = n * self.batch_size + jnp.arange(self.batch_size, dtype=jnp.int32)
        there = (ids < size).astype(jnp.float32)[:, None]  # [B, 1]
        return _batch(self.take(1, jnp.minimum(ids, size - 1), arrays), there)

    def solved(self, metrics: dict[str, Any]) -> Any:
        """[S] bool: whether the accuracy on the test set has reached `target_accuracy`."""
        return metrics["validation_accuracy"] >= self.target_accuracy


def _batch(examples: Examples, weights: jax.Array) -> Batch:
    inputs, labels, lengths = examples
    return Batch(inputs, labels[:, None], weights, lengths)


def permutation(seed: int, steps: int) -> np.ndarray:
    """A fixed random order of the steps, [T] int: the same for all sequences and runs."""
    with jax.ensure_compile_time_eval():
        return np.asarray(jax.random.permutation(root_key(seed), steps))


def check_examples(name: str, examples: Examples, classes: int) -> Examples:
    """Return the examples as float32 and int32.

    Raises:
      RunError: if the shapes do not fit, a number is not finite, or a label not in 0..classes-1.
    """
    inputs, labels, lengths = examples
    inputs, labels = np.asarray(inputs, np.float32), np.asarray(labels)
    if inputs.ndim != 3 or not inputs.size or labels.shape != inputs.shape[:1]:
        raise RunError(
            f"{name} must have sequences [N, T, F] and labels [N], not {list(inputs.shape)} and"
            f" {list(labels.shape)}"
        )
    if not np.isfinite(inputs).all():
        raise RunError(f"{name} has numbers that are not finite")
    whole = np.issubdtype(labels.dtype, np.integer)
    if not whole or labels.min() < 0 or labels.max() >= classes:
        raise RunError(f"{name} must have whole numbers from 0 to {classes - 1} as labels")
    return Examples(inputs, labels.astype(np.int32), lengths)
