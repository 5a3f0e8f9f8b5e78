"""Models: input -> recurrent layers -> readout."""

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.checks import check_rate, drops
from jaxrnn.errors import SettingError
from jaxrnn.layers.stack import check_layers, recurrent_layers
from jaxrnn.types import Carry


class SequenceModel(nn.Module):
    """Recurrent layers, read out to class scores at every time step.

    Attributes:
      recurrent: `Recurrent`, `Bidirectional` or `Stack`.
      output_size: V.

    Raises:
      ValueError: if `recurrent` is no layer.
    """

    recurrent: nn.Module
    output_size: int

    def __post_init__(self) -> None:
        """Refuse what is no layer."""
        check_layers((self.recurrent,))
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        inputs: jax.Array,
        initial_carry: Carry = None,
        *,
        lengths: jax.Array | None = None,
        resets: jax.Array | None = None,
        deterministic: bool = True,
    ) -> tuple[jax.Array, Carry]:
        """inputs [B, T, F] -> logits [B, T, V], and the layers' carry.

        Arguments and errors are as for `Recurrent`.
        """
        hidden, carry = self.recurrent(
            inputs, initial_carry, lengths=lengths, resets=resets, deterministic=deterministic
        )
        glorot = nn.initializers.glorot_uniform()
        return nn.Dense(self.output_size, kernel_init=glorot, name="readout")(hidden), carry


class LanguageModel(nn.Module):
    """A `SequenceModel` of units of text: ids in, scores of the next unit out.

    Attributes:
      recurrent: `Recurrent` or `Stack`; a layer that reads backward would see what it is to say.
      vocabulary_size: V.
      embedding_size: what a unit becomes at the input: a vector of so many learned numbers; None
        for its one-hot vector.
      tied: read out with the embedding's own vectors: Press and Wolf (2017), section 3. Then the
        last layer's H must be the embedding's size.
      dropout: the share of the readout's inputs that is dropped: Zaremba et al. (2014), section
        3.2. Between the layers, the `Stack` does it.

    Raises:
      ValueError: if `recurrent` is no layer, or reads backward, or the dropout is out of range.
      SettingError: if `tied` lacks an embedding.
    """

    recurrent: nn.Module
    vocabulary_size: int
    embedding_size: int | None = None
    tied: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        check_layers((self.recurrent,))
        check_rate("dropout", self.dropout)
        if any(layer.reverse for _, layer in recurrent_layers(self.recurrent)):
            raise ValueError("a language model must not read backward")
        if self.tied and self.embedding_size is None:
            raise SettingError("a tied readout needs an embedding: set its size")
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        inputs: jax.Array,
        initial_carry: Carry = None,
        *,
        lengths: jax.Array | None = None,
        resets: jax.Array | None = None,
        deterministic: bool = True,
    ) -> tuple[jax.Array, Carry]:
        """Inputs [B, T] int, each in 0..V-1 -> logits [B, T, V], and the layers' carry.

        The other arguments are as for `Recurrent`.

        Raises:
          TypeError, ValueError: as `Recurrent`.
          SettingError: if the readout is tied and the sizes differ.
        """
        drops(self, self.dropout, deterministic)
        chex.assert_rank(inputs, 2)
        chex.assert_type(inputs, int)
        embedding = None
        if self.embedding_size is None:
            vectors = jax.nn.one_hot(inputs, self.vocabulary_size, dtype=jnp.float32)
        else:
            embedding = nn.Embed(self.vocabulary_size, self.embedding_size, name="embedding")
            vectors = embedding(inputs)
        hidden, carry = self.recurrent(
            vectors, initial_carry, lengths=lengths, resets=resets, deterministic=deterministic
        )
        hidden = nn.Dropout(self.dropout)(hidden, deterministic=deterministic)
        if embedding is None or not self.tied:
            glorot = nn.initializers.glorot_uniform()
            return nn.Dense(self.vocabulary_size, kernel_init=glorot, name="readout")(hidden), carry
        if hidden.shape[-1] != self.embedding_size:
            raise SettingError(
                f"a tied readout needs an embedding of the last layer's size, {hidden.shape[-1]},"
                f" not of {self.embedding_size}"
            )
        bias = self.param("bias", nn.initializers.zeros, (self.vocabulary_size,))
        return embedding.attend(hidden) + bias[None, None], carry
