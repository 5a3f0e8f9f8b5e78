"""Models with one readout per time step of their inputs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxrnn.checks import check_axes, check_counts, check_kind, check_rate, drops
from jaxrnn.dtypes import promote
from jaxrnn.errors import SettingError
from jaxrnn.layers.dropout import Dropout
from jaxrnn.layers.stack import check_layers, recurrent_layers
from jaxrnn.types import Carry


class SequenceModel(nn.Module):
    """Recurrent layers and a dense readout at every time step.

    Attributes:
      recurrent: `Recurrent`, `Bidirectional` or `Stack`.
      output_size: V.

    Raises:
      ValueError: if `recurrent` is not a recurrent layer.
      SettingError: if `output_size` is not a whole number from 1.

    >>> from jaxrnn import LSTMCell, Recurrent, SequenceModel
    >>> model = SequenceModel(Recurrent(LSTMCell(8)), output_size=3)
    >>> inputs = jnp.ones((2, 5, 4))  # [B, T, F]
    >>> variables = model.init(jax.random.key(0), inputs)
    >>> logits, carry = model.apply(variables, inputs)
    >>> logits.shape
    (2, 5, 3)
    """

    recurrent: nn.Module
    output_size: int

    def __post_init__(self) -> None:
        """Check the attributes."""
        check_layers((self.recurrent,))
        check_sizes(self, "output_size")
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
        """Inputs [B, T, F] float -> logits [B, T, V], and the layers' carry.

        The other arguments are as for `Recurrent`.

        Raises:
          TypeError, ValueError: as `Recurrent`; also if the readout's parameters do not fit.
        """
        hidden, carry = self.recurrent(
            inputs, initial_carry, lengths=lengths, resets=resets, deterministic=deterministic
        )
        return readout(self, hidden, self.output_size), carry


class LanguageModel(nn.Module):
    """A sequence model over token ids: it predicts the next token at every step.

    Attributes:
      recurrent: `Recurrent` or `Stack`; not `reverse`, which would see the tokens to predict.
      vocabulary_size: V.
      embedding_size: the size of a learned embedding per token; None for one-hot inputs.
      tie_embeddings: use the embedding matrix as the readout's (Press and Wolf 2017, section 3).
        The last layer's H must then be the embedding size.
      dropout: dropout rate of the readout's inputs (Zaremba et al. 2014, section 3.2). `Stack` has
        its own for the layers in between.

    Raises:
      ValueError: if `recurrent` is not a recurrent layer or is reversed, or the dropout rate is
        out of range.
      SettingError: if a size is not a whole number from 1, or `tie_embeddings` is set without an
        embedding size.

    >>> from jaxrnn import GRUCell, LanguageModel, Recurrent
    >>> model = LanguageModel(Recurrent(GRUCell(8)), vocabulary_size=5)
    >>> ids = jnp.array([[0, 4, 1]])  # [B, T]
    >>> variables = model.init(jax.random.key(0), ids)
    >>> model.apply(variables, ids)[0].shape
    (1, 3, 5)
    """

    recurrent: nn.Module
    vocabulary_size: int
    embedding_size: int | None = None
    tie_embeddings: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Check the attributes."""
        check_layers((self.recurrent,))
        optional = () if self.embedding_size is None else ("embedding_size",)
        check_sizes(self, "vocabulary_size", *optional)
        check_rate("dropout", self.dropout)
        if any(layer.reverse for _, layer in recurrent_layers(self.recurrent)):
            raise ValueError(
                "a language model must not be reversed: it would see the tokens to predict"
            )
        if self.tie_embeddings and self.embedding_size is None:
            raise SettingError("tie_embeddings needs an embedding size")
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
          TypeError, ValueError: as `Recurrent`; also if `inputs` is not [B, T] int, or the
            parameters do not fit.
          SettingError: if `tie_embeddings` is set and the sizes differ.
        """
        drops(self, self.dropout, deterministic)
        inputs = jnp.asarray(inputs)
        check_axes("inputs", inputs, "BT")
        check_kind("inputs", inputs, jnp.integer, "a language model reads token ids")
        embedding = None
        if self.embedding_size is None:
            vectors = jax.nn.one_hot(inputs, self.vocabulary_size, dtype=jnp.float32)
        else:
            sizes = {"V": self.vocabulary_size, "F": self.embedding_size}
            check_param(self, "embedding", "embedding", sizes)
            embedding = nn.Embed(self.vocabulary_size, self.embedding_size, name="embedding")
            vectors = embedding(inputs)
        hidden, carry = self.recurrent(
            vectors, initial_carry, lengths=lengths, resets=resets, deterministic=deterministic
        )
        hidden = Dropout(self.dropout)(hidden, deterministic=deterministic)
        if embedding is None or not self.tie_embeddings:
            return readout(self, hidden, self.vocabulary_size), carry
        if hidden.shape[-1] != self.embedding_size:
            raise SettingError(
                "tie_embeddings needs an embedding size equal to the last layer's hidden size,"
                f" {hidden.shape[-1]}, not {self.embedding_size}"
            )
        bias = self.param("bias", nn.initializers.zeros, (self.vocabulary_size,))
        with jax.numpy_dtype_promotion("standard"):  # Flax needs it if a cell has another dtype
            logits, bias = promote(embedding.attend(hidden), bias)
        return logits + bias[None, None], carry


def check_sizes(model: nn.Module, *names: str) -> None:
    """Check that attributes are whole numbers from 1; NumPy's, as of a shape, become plain ones."""
    for name in names:
        if isinstance(value := getattr(model, name), np.integer):
            object.__setattr__(model, name, int(value))
    check_counts(model, *names)


def readout(model: nn.Module, hidden: jax.Array, size: int) -> jax.Array:
    """A model's dense readout: hidden [B, T, H] -> logits [B, T, V]. For use in `nn.compact`."""
    check_param(model, "readout", "kernel", {"H": hidden.shape[-1], "V": size})
    glorot = nn.initializers.glorot_uniform()
    with jax.numpy_dtype_promotion("standard"):  # Flax needs it if a cell has another dtype
        return nn.Dense(size, kernel_init=glorot, name="readout")(hidden)


def check_param(model: nn.Module, layer: str, name: str, sizes: dict[str, int]) -> None:
    """Check the shape of a parameter that the model was given, with a ValueError.

    Flax would raise an error of its own, which is no ValueError and does not name the axes.
    """
    params: Any = model.variables.get("params", {}).get(layer, {})
    if name in params:
        check_axes(f"params {layer}/{name}", params[name], "".join(sizes), **sizes)
