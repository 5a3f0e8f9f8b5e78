"""Sequence to sequence: an encoder reads the source, a decoder writes the target."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.checks import check_axes, check_kind, check_lengths, check_rate
from jaxrnn.choices import check_choice
from jaxrnn.dtypes import promote
from jaxrnn.errors import SettingError
from jaxrnn.layers.dropout import Dropout
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Stack, check_layers, recurrent_layers
from jaxrnn.models.attention import AdditiveAttention, Memory
from jaxrnn.models.bridge import DenseBridge, fresh_carry, hidden_state
from jaxrnn.models.sequence import check_sizes
from jaxrnn.types import Carry

State = tuple[Carry, jax.Array]
"""A decoder between two steps: its layers' carry, and its last output [B, H], the query."""


class EncoderDecoder(nn.Module):
    """An encoder reads source tokens; a decoder predicts target tokens, each from those before.

    One array of ids [B, T] holds both parts: S source ids, padded to `source_length`, then the
    decoder's inputs: 0, which stands for the start, and the target shifted by one step (teacher
    forcing). `tasks.sequence_to_sequence.make_batch` makes such a batch. The outputs at the
    source's steps are zeros, so their weights must be 0.

    The first state of the decoder is computed from the encoder's last one, h: the carry of its top
    layer, of both directions if there are two. With bridge "dense", each array of the decoder's
    carry is tanh(W h + b) with parameters of its own. With "copy", the carry of every layer is the
    encoder's, so both must have the same cells and sizes.

    With attention, the decoder also reads a context c_i at each step, which depends on its state
    before the step: see `AdditiveAttention`. The readout sees the step's output and c_i. That is
    the model of Bahdanau, Cho and Bengio (2015), section 3, with two simplifications: there, the
    readout has a hidden layer of maxout units, which also sees the last token, and the bridge sees
    the backward direction only. Steps run one after the other; without attention, the decoder's
    layers run over the whole target at once.

    Sources: Sutskever, Vinyals and Le (2014), whose encoder reads backwards, `Recurrent(...,
    reverse=True)`, with bridge "copy"; Cho et al. (2014); Bahdanau, Cho and Bengio (2015).

    Attributes:
      encoder: `Recurrent`, `Bidirectional` or `Stack`.
      decoder: `Recurrent`, or a `Stack` of them, without `reverse`.
      source_length: S, the steps of the source part.
      source_size: how many different source ids there are.
      output_size: V, how many different target ids there are.
      embedding_size: the size of learned embeddings of source and target ids; None for one-hot.
      attention_size: A, the tanh units of the attention; None for no attention.
      bridge: how the decoder starts: "dense" or "copy".
      dropout: dropout rate of the readout's inputs.

    Raises:
      ValueError: if a layer does not fit its place.
      SettingError: if a size is not a whole number from 1, the bridge is unknown or impossible, or
        a cell's carry has no hidden state.

    >>> from jaxrnn import Bidirectional, EncoderDecoder, GRUCell, Recurrent
    >>> encoder = Bidirectional(Recurrent(GRUCell(8)), Recurrent(GRUCell(8), reverse=True))
    >>> model = EncoderDecoder(encoder, Recurrent(GRUCell(8)), 3, 5, 6, attention_size=8)
    >>> ids = jnp.array([[4, 1, 0, 0, 5, 2]])  # the source 4 1 (padded), the start, the target 5 2
    >>> variables = model.init(jax.random.key(0), ids)
    >>> logits, _ = model.apply(variables, ids, lengths=jnp.array([2]))
    >>> logits.shape, bool(jnp.any(logits[:, :3]))
    ((1, 6, 6), False)
    """

    encoder: nn.Module
    decoder: nn.Module
    source_length: int
    source_size: int
    output_size: int
    embedding_size: int | None = None
    attention_size: int | None = None
    bridge: Literal["dense", "copy"] = "dense"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Check the attributes."""
        check_layers((self.encoder, self.decoder))
        optional = ("embedding_size", "attention_size")
        given = (name for name in optional if getattr(self, name) is not None)
        check_sizes(self, "source_length", "source_size", "output_size", *given)
        check_rate("dropout", self.dropout)
        check_choice("bridge", self.bridge, ("dense", "copy"))
        _check_decoder(self.decoder, self.attention_size is not None)
        if self.bridge == "copy":
            _check_same_carries(self.encoder, self.decoder)
        for part in (self.encoder, self.decoder):
            jax.eval_shape(lambda part=part: hidden_state(fresh_carry(part, 1)))
        super().__post_init__()

    def setup(self) -> None:
        """Make the embeddings, the attention and the readout."""
        if self.embedding_size is not None:
            self.source_embedding = nn.Embed(self.source_size, self.embedding_size)
            self.target_embedding = nn.Embed(self.output_size, self.embedding_size)
        if self.attention_size is not None:
            self.attention = AdditiveAttention(self.attention_size)
        if self.bridge == "dense":
            self.dense_bridge = DenseBridge()
        glorot = nn.initializers.glorot_uniform()
        self.readout = nn.Dense(self.output_size, kernel_init=glorot)
        self.drop = Dropout(self.dropout)

    def __call__(
        self,
        inputs: jax.Array,
        initial_carry: None = None,
        *,
        lengths: jax.Array | None = None,
        resets: jax.Array | None = None,
        deterministic: bool = True,
    ) -> tuple[jax.Array, None]:
        """Inputs [B, T] int -> logits [B, T, V] of the next target token, and no carry.

        Args:
          inputs: source ids, then decoder inputs, as above.
          initial_carry: None: a row has nothing from the batch before.
          lengths: [B] int in 0..S, the steps of each source before its padding; None for S. The
            target's padding needs none: no step sees a later one.
          resets: None: a row has one source.
          deterministic: True to switch dropout off.

        Raises:
          TypeError, ValueError: as `Recurrent`; also if there is a carry, a reset, or no target.
        """
        if initial_carry is not None or resets is not None:
            raise ValueError("an encoder-decoder takes no initial carry and no resets")
        inputs, length = jnp.asarray(inputs), self.source_length
        steps = check_axes("inputs", inputs, "BT")["T"]
        check_kind("inputs", inputs, jnp.integer, "an encoder-decoder reads token ids")
        if steps <= length:
            raise ValueError(f"inputs must have T > {length}, the source's steps, not T = {steps}")
        memory, state = self.encode(inputs[:, :length], lengths, deterministic=deterministic)
        vectors = _vectors(self, "target_embedding", inputs[:, length:], self.output_size)
        hidden, _ = self._decode(vectors, memory, state, deterministic)
        logits = self._logits(hidden, deterministic)
        return jnp.pad(logits, ((0, 0), (length, 0), (0, 0))), None

    def encode(
        self, source: jax.Array, lengths: jax.Array | None = None, *, deterministic: bool = True
    ) -> tuple[Memory | None, State]:
        """Read the source: what to attend to, and the decoder's state before its first step.

        Args:
          source: [B, S] int.
          lengths: [B] int in 0..S, the steps before the padding; None for S.
          deterministic: True to switch dropout off.

        Returns:
          the memory, None without attention, and the state; all arrays have B as their first axis.
        """
        rows, steps = source.shape
        if lengths is not None:
            lengths = check_lengths(lengths, rows, steps)
        vectors = _vectors(self, "source_embedding", source, self.source_size)
        outputs, carry = self.encoder(vectors, lengths=lengths, deterministic=deterministic)
        if self.bridge == "dense":
            carry = self.dense_bridge(hidden_state(carry), fresh_carry(self.decoder, rows))
        memory = None
        if self.attention_size is not None:
            ends = jnp.full((rows,), steps, jnp.int32) if lengths is None else lengths
            mask = jnp.arange(steps)[None] < ends[:, None]
            memory = self.attention.remember(outputs, mask)
        return memory, (carry, hidden_state(carry))

    def decode_step(
        self, ids: jax.Array, memory: Memory | None, state: State
    ) -> tuple[jax.Array, State]:
        """Read one target id per row, [B] int: logits [B, V] of the next one, and the new state."""
        vectors = _vectors(self, "target_embedding", ids[:, None], self.output_size)
        hidden, state = self._decode(vectors, memory, state, True)
        return self._logits(hidden, True)[:, 0], state

    def _decode(
        self, vectors: jax.Array, memory: Memory | None, state: State, deterministic: bool
    ) -> tuple[jax.Array, State]:
        """Run the decoder over vectors [B, T, F]: the readout's inputs [B, T, H], a new state."""
        if memory is None:
            hidden, carry = self.decoder(vectors, state[0], deterministic=deterministic)
            return hidden, (carry, hidden[:, -1])
        run = nn.scan(
            partial(_attend_and_step, deterministic=deterministic),
            variable_broadcast="params",
            variable_axes={"intermediates": 0},
            split_rngs={"params": False, "dropout": True},
            in_axes=(nn.broadcast, 1),  # pyright: ignore[reportArgumentType]
            out_axes=1,
        )
        state, hidden = run(self, state, memory, vectors)
        return hidden, state

    def _logits(self, hidden: jax.Array, deterministic: bool) -> jax.Array:
        hidden = self.drop(hidden, deterministic=deterministic)
        with jax.numpy_dtype_promotion("standard"):  # Flax needs it if a cell has another dtype
            return self.readout(hidden)


def _attend_and_step(
    model: EncoderDecoder, state: State, memory: Memory, vector: jax.Array, *, deterministic: bool
) -> tuple[State, jax.Array]:
    """One step of a decoder with attention: vector [B, F] -> the readout's input [B, H]."""
    carry, query = state
    context, _ = model.attention.attend(query, memory)
    inputs = jnp.concatenate(promote(vector, context), axis=-1)
    hidden, carry = model.decoder(inputs[:, None], carry, deterministic=deterministic)
    output = hidden[:, 0].astype(query.dtype)
    return (carry, output), jnp.concatenate(promote(output, context), axis=-1)


def _vectors(model: EncoderDecoder, embedding: str, ids: jax.Array, size: int) -> jax.Array:
    """Ids [B, T] -> vectors [B, T, F]."""
    if model.embedding_size is None:
        return jax.nn.one_hot(ids, size, dtype=jnp.float32)
    return getattr(model, embedding)(ids)


def _check_decoder(decoder: nn.Module, attends: bool) -> None:
    """Raise ValueError if a decoder would see later tokens, or cannot run step by step."""
    parts = decoder.layers if isinstance(decoder, Stack) else (decoder,)
    if not all(isinstance(part, Recurrent | Stack) for part in parts):
        raise ValueError("the decoder must be Recurrent, or a Stack of Recurrent layers")
    layers = [layer for _, layer in recurrent_layers(decoder)]
    if any(layer.reverse for layer in layers):
        raise ValueError("the decoder must not be reversed: it would see the tokens to predict")
    one_mask = any(layer.recurrent_dropout for layer in layers)
    one_mask |= isinstance(decoder, Stack) and decoder.variational_dropout and decoder.dropout > 0
    if attends and one_mask:
        raise ValueError(
            "a decoder with attention runs step by step, each with new dropout masks: it can have"
            " no recurrent_dropout or variational_dropout"
        )


def _check_same_carries(encoder: nn.Module, decoder: nn.Module) -> None:
    """Raise SettingError if the decoder cannot start from a copy of the encoder's carry."""
    first, second = (jax.eval_shape(partial(fresh_carry, part, 1)) for part in (encoder, decoder))
    if first != second:
        raise SettingError(
            'bridge "copy" needs the same cells and sizes in the encoder and the decoder, in one'
            ' direction; use "dense"'
        )
