"""Predict every next character of one fixed text: the task of the classic hihello lab."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.errors import SettingError
from jaxrnn.losses import argmax
from jaxrnn.tasks.base import Task
from jaxrnn.text.characters import encode, normalize, vocabulary
from jaxrnn.types import Arrays, Batch, Metrics


@dataclass(frozen=True)
class NextCharacter(Task):
    """One sequence: input `text[:-1]`, target `text[1:]`, every step of weight 1.

    Source: the lab `hihell` -> `ihello` of the TensorFlow 1 course "Deep Learning Zero to All".

    Attributes:
      text: at least two characters.
      num_logged_positions: log the predicted probabilities of this many positions, from the first
        on; if not 0, the predicted text is logged too.

    Raises:
      SettingError: if the text is shorter than two characters or not valid UTF-8.

    >>> task = NextCharacter("hihello")
    >>> batch = task.sample_batch(jax.random.key(0), 0)
    >>> task.characters, batch.targets.tolist()
    (('h', 'i', 'e', 'l', 'o'), [[1, 0, 2, 3, 3, 4]])
    """

    text: str = "hihello"
    num_logged_positions: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", normalize(self.text))
        if len(self.text) < 2:
            raise SettingError("the text must have at least 2 characters")

    @property
    def characters(self) -> tuple[str, ...]:
        """The vocabulary: [V] characters in order of first appearance."""
        return vocabulary(self.text)

    @property
    def ids(self) -> np.ndarray:
        """The ids of the text, [T+1] int32: the first T are inputs, the last T are targets."""
        return encode(self.text, self.characters)

    @property
    def output_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """V, the size of the vocabulary."""
        return len(self.characters)

    @property
    def memoryless_loss(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Nats of the best prediction from the last character alone: H(next | last)."""
        counts = np.zeros((self.output_size, self.output_size))
        np.add.at(counts, (self.ids[:-1], self.ids[1:]), 1)
        seen = counts[counts > 0]
        given = np.broadcast_to(counts.sum(1, keepdims=True), counts.shape)[counts > 0]
        return float(-(seen * np.log(seen / given)).sum() / counts.sum())

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """The same batch at every step: one-hot inputs [1, T, V], targets [1, T]."""
        del key, step, arrays
        inputs = jax.nn.one_hot(self.ids[None, :-1], self.output_size, dtype=jnp.float32)
        return Batch(
            inputs, jnp.asarray(self.ids[None, 1:]), jnp.ones(inputs.shape[:2], jnp.float32)
        )

    def metrics(self, outputs: jax.Array, batch: Batch) -> Metrics:
        """outputs [1, T, V] -> `correct` [], whether every prediction is right.

        With `num_logged_positions` = L, also `prediction` [T], the most likely characters, and
        `probability` [L, V].
        """
        prediction = argmax(outputs[0])
        metrics = {"correct": jnp.all(prediction == batch.targets[0])}
        if self.num_logged_positions:
            metrics["prediction"] = prediction
            metrics["probability"] = jax.nn.softmax(outputs[0, : self.num_logged_positions])
        return metrics

    def solved(self, metrics: dict[str, Any]) -> Any:
        """[S] bool: whether every character is predicted."""
        return metrics["correct"] > 0
