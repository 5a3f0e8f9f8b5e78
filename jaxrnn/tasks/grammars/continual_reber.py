"""The continual embedded Reber grammar: string after string, without a mark where one ends."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from jaxrnn.checks import check_counts
from jaxrnn.errors import SettingError
from jaxrnn.rng import validation_key
from jaxrnn.tasks.grammars.automaton import conditional_entropy
from jaxrnn.tasks.grammars.embedded_reber import SYMBOLS, reber_automaton
from jaxrnn.tasks.grammars.next_symbol import NextSymbol, pack
from jaxrnn.types import Arrays, Batch

AUTOMATON = reber_automaton(again=True)


@dataclass(frozen=True)
class ContinualReber(NextSymbol):
    """Predict which symbols may come next in an endless stream of embedded Reber strings.

    Each row is a stream, read in windows of T symbols; the carry goes on from batch to batch. A
    window holds whole strings, drawn given that they fill it exactly. After the E of one string
    comes the B of the next. All rows start from a zero carry every `windows_per_stream` batches.

    With `external_resets` the carry is also reset at the start of every string, as is done by hand
    for networks that cannot forget. Then the task is the embedded Reber grammar again.

    The validation set is `num_test_streams` streams of `windows_per_stream` windows. A network has
    solved the task if it predicts all of their symbols. Gers, Schmidhuber and Cummins (2000),
    section 4, ended a training stream at the first mistake or after 100,000 symbols, and tested on
    10 streams of 100,000 symbols: sequence_length=100, windows_per_stream=1000.

    Attributes:
      sequence_length: T, at least 9.
      batch_size: B.
      windows_per_stream: how many windows of T symbols a stream has.
      num_test_streams: rows of the validation set.
      external_resets: reset the carry at the start of every string.
      output_size: V = 7, the symbols.

    Raises:
      SettingError: if a number is out of range.

    >>> task = ContinualReber(sequence_length=20, batch_size=1)
    >>> batch = task.sample_batch(jax.random.key(0), 0)
    >>> "".join(SYMBOLS[n] for n in batch.inputs[0].argmax(-1))
    'BPBPVPSEPEBTBPVPSETE'
    """

    output_size = len(SYMBOLS)
    stateful = True

    sequence_length: int = 100
    batch_size: int = 16
    windows_per_stream: int = 100
    num_test_streams: int = 10
    external_resets: bool = False

    def __post_init__(self) -> None:
        check_counts(self, "sequence_length", "batch_size", "windows_per_stream")
        check_counts(self, "num_test_streams")
        if not AUTOMATON.ends(self.sequence_length)[-1, 0]:
            raise SettingError(
                f"no strings have {self.sequence_length} symbols in all; use 9 or more"
            )

    @cached_property
    def memoryless_loss(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Nats of the best prediction from the current symbol alone: H(next | current)."""
        pairs = AUTOMATON.pairs(self.sequence_length)
        pairs[SYMBOLS.index("E"), SYMBOLS.index("B")] += 1  # after the window
        return conditional_entropy(pairs)

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """Inputs [B, T, 7], targets [B, T], weights [B, T] and resets [B, T]."""
        del arrays
        starts = jnp.asarray(step) % self.windows_per_stream == 0
        return self.batch(key, self.batch_size, starts)

    def num_validation_batches(self, arrays: Arrays) -> int:
        """One for each window of a stream."""
        del arrays
        return self.windows_per_stream

    def validation_batch(self, n: jax.Array, arrays: Arrays) -> Batch:
        """Window n of the test streams."""
        del arrays
        return self.batch(validation_key(n), self.num_test_streams, jnp.asarray(n) == 0)

    def batch(self, key: jax.Array, rows: int, starts: jax.Array) -> Batch:
        """A window of some rows, with a reset at its first symbol if `starts`, [] bool."""
        symbols, states = AUTOMATON.sample(key, rows, self.sequence_length)
        is_first = jnp.arange(self.sequence_length)[None] == 0
        resets = jnp.broadcast_to(is_first & starts, symbols.shape)
        if self.external_resets:
            resets |= states == 0
        following = jnp.roll(symbols, -1, axis=1)  # a window begins with B, and so does the next
        allowed = jnp.asarray(AUTOMATON.allowed)[jnp.roll(states, -1, axis=1)]
        inputs = jax.nn.one_hot(symbols, len(SYMBOLS), dtype=jnp.float32)
        weights = jnp.ones(symbols.shape, jnp.float32)
        return Batch(inputs, pack(following, allowed), weights, resets=resets)

    def solved(self, metrics: dict[str, Any]) -> Any:
        """[S] bool: whether every symbol of the test streams is predicted."""
        return metrics["validation_correct"] == 1.0
