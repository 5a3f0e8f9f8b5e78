"""Say every next character of one fixed text: the task of the classic hihello lab."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.text import encode, normalise, vocabulary
from jaxrnn.types import Batch


@dataclass(frozen=True)
class NextCharacter:
    """One sequence: input `text[:-1]`, target `text[1:]`, every step of weight 1.

    Source: the lab `hihell` -> `ihello` of the TensorFlow 1 course "Deep Learning Zero to All".

    Attributes:
      text: two characters or more.

    Raises:
      ValueError: if the text is shorter than two characters, or is not valid UTF-8.

    >>> task = NextCharacter("hihello")
    >>> batch = task.sample_batch(jax.random.key(0))
    >>> task.characters, batch.targets.tolist()
    (('h', 'i', 'e', 'l', 'o'), [[1, 0, 2, 3, 3, 4]])
    """

    text: str = "hihello"

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", normalise(self.text))
        if len(self.text) < 2:
            raise ValueError("the text must have at least 2 characters")

    @property
    def characters(self) -> tuple[str, ...]:
        """The vocabulary: [V] characters in order of first appearance."""
        return vocabulary(self.text)

    @property
    def ids(self) -> np.ndarray:
        """The text in numbers, [T+1] int32: the first T are read, the last T are to be said."""
        return encode(self.text, self.characters)

    def sample_batch(self, key: jax.Array) -> Batch:
        """The one batch there is, B=1, F=V, one-hot; `key` is not used."""
        del key
        inputs = jax.nn.one_hot(self.ids[None, :-1], len(self.characters), dtype=jnp.float32)
        return Batch(
            inputs, jnp.asarray(self.ids[None, 1:]), jnp.ones(inputs.shape[:2], jnp.float32)
        )
