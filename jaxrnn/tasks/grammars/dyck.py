"""Dyck-(k, m): brackets of k types, nested at most m deep."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import losses
from jaxrnn.checks import check_counts
from jaxrnn.errors import SettingError
from jaxrnn.rng import validation_key
from jaxrnn.tasks.grammars.automaton import Automaton
from jaxrnn.tasks.grammars.next_symbol import NextSymbol, pack, unpack
from jaxrnn.types import Arrays, Batch, Metrics

END, OPEN, CLOSE = range(3)
"""The symbols of the automaton, which knows the depth but not the types."""

CONFIDENT = 0.8
"""A bracket is closed correctly with more than this share of the closing brackets' probability."""

NUM_TEST_STRINGS = 512


@dataclass(frozen=True)
class Dyck(NextSymbol):
    """Predict the next bracket of a well-nested string of brackets of k types, at most m deep.

    A string starts with an opening bracket. Then, at depth 0, a bracket opens or the string ends,
    with probability 1/2 each; at depths 1 to m - 1 a bracket opens or the last one is closed, with
    probability 1/2 each; at depth m the last one is closed. The type of an opening bracket is
    uniform. Strings are drawn given that they have at most `max_length` brackets. The symbols are
    #, which stands before and after a string, then the k opening and the k closing brackets; inputs
    are one-hot, F = V = 2k + 1.

    `closing` is the fraction of closing brackets for which the right type has more than 0.8 of the
    probability of all closing brackets. A network has solved the task if it is at least 0.99 on 512
    validation strings.

    Source: Hewitt, Hahn, Ganguli, Liang and Manning (2020), "RNNs can generate bounded hierarchical
    languages with optimal memory", section 6 of which measures how confidently brackets are closed;
    there, distances between the two brackets are weighted equally.

    Attributes:
      num_types: k, from 1 to 12.
      max_depth: m.
      max_length: the most brackets of a string, even; T is one more.
      batch_size: B.
      output_size: V = 2k + 1.

    Raises:
      SettingError: if a number is out of range or not an integer.

    >>> task = Dyck(max_length=12, batch_size=1)
    >>> batch = task.sample_batch(jax.random.key(7), 0)
    >>> "".join("#([)]"[n] for n in batch.inputs[0, : int(batch.lengths[0])].argmax(-1))
    '#()([][]()())'
    """

    num_types: int = 2
    max_depth: int = 3
    max_length: int = 84
    batch_size: int = 32

    def __post_init__(self) -> None:
        check_counts(self, "num_types", "max_depth", "max_length", "batch_size")
        if self.num_types > 12:
            raise SettingError("num types must be at most 12")
        if self.max_length % 2:
            raise SettingError("max length must be even: each bracket is closed")

    @property
    def output_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """V, the brackets and the end."""
        return 2 * self.num_types + 1

    @property
    def length_groups(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The steps of # and up to 20, 40, 60, ... brackets, and all T."""
        steps = self.max_length + 1
        return (*range(21, steps, 20), steps)

    @cached_property
    def automaton(self) -> Automaton:
        """State 0 is the start, state 1 + d a depth of d, and the last one the end."""
        end = self.max_depth + 2
        edges: list[tuple[tuple[int, int], ...]] = [((OPEN, 2),), ((OPEN, 2), (END, end))]
        for state in range(2, end):
            close = (CLOSE, state - 1)
            edges.append(((OPEN, state + 1), close) if state + 1 < end else (close,))
        return Automaton((*edges, ((END, end),)), 3, end)

    @cached_property
    def memoryless_loss(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Nats of the best prediction from the current symbol alone: H(next | current).

        Beside what the depth decides, the type of an opening bracket is unknown, and so is that of
        a closing bracket after a closing one; one after an opening bracket closes that.
        """
        steps = self.max_length + 1
        pairs = self.automaton.pairs(steps)  # rows: the current symbol; of # there is none yet
        pairs[END, OPEN] = 1.0
        given = np.broadcast_to(pairs.sum(axis=1, keepdims=True), pairs.shape)
        seen = pairs > 0
        nats = -(pairs[seen] * np.log(pairs[seen] / given[seen])).sum()
        unknown = pairs[:, OPEN].sum() + pairs[CLOSE, CLOSE]
        return float((nats + unknown * math.log(self.num_types)) / pairs.sum())

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """Inputs [B, T, V], targets [B, T], weights [B, T] and lengths [B], new for each key."""
        del step, arrays
        return self.batch(key, self.batch_size)

    def num_validation_batches(self, arrays: Arrays) -> int:
        """One, of 512 strings."""
        del arrays
        return 1

    def validation_batch(self, n: jax.Array, arrays: Arrays) -> Batch:
        """512 strings, the same for every seed."""
        del arrays
        return self.batch(validation_key(n), NUM_TEST_STRINGS)

    def batch(self, key: jax.Array, rows: int) -> Batch:
        """`rows` strings: inputs [B, T, V], targets and weights [B, T], lengths [B]."""
        k_walk, k_types = jax.random.split(key)
        steps, k = self.max_length + 1, self.num_types
        kinds, states = self.automaton.sample(k_walk, rows, steps)  # [B, T]
        is_end = states == self.automaton.end
        depths = jnp.where(is_end, 0, jnp.maximum(states - 1, 0))  # before each symbol
        types = jax.random.randint(k_types, (rows, steps), 0, k, jnp.int32)
        innermost = self._innermost(kinds, depths, types)  # [B, T]
        symbols = jnp.where(kinds == OPEN, 1 + types, 1 + k + innermost)
        symbols = jnp.where(kinds == END, 0, symbols)

        number = jnp.arange(self.output_size, dtype=jnp.int32)[None, None]  # [1, 1, V]
        depth = depths[..., None]
        allowed = (number == 0) & (depth == 0) & (states > 0)[..., None]
        allowed |= (number > 0) & (number <= k) & (depth < self.max_depth)
        allowed |= (number == 1 + k + innermost[..., None]) & (depth > 0)

        lengths = jnp.sum(~is_end, axis=1, dtype=jnp.int32)  # # and the brackets
        inside = jnp.arange(steps, dtype=jnp.int32)[None] < lengths[:, None]
        read = jnp.concatenate([jnp.zeros((rows, 1), jnp.int32), symbols[:, :-1]], axis=1)
        inputs = jax.nn.one_hot(read, self.output_size, dtype=jnp.float32)
        inputs = jnp.where(inside[..., None], inputs, 0.0)
        return Batch(inputs, pack(symbols, allowed), inside.astype(jnp.float32), lengths)

    def _innermost(self, kinds: jax.Array, depths: jax.Array, types: jax.Array) -> jax.Array:
        """The type of the innermost open bracket before each step, [B, T]; any at depth 0.

        It is the bracket that was opened last of those opened at one depth less.
        """
        steps = jnp.arange(kinds.shape[1], dtype=jnp.int32)[None, :, None]  # [1, T, 1]
        levels = jnp.arange(self.max_depth, dtype=jnp.int32)[None, None]  # [1, 1, m]
        opened = (kinds == OPEN)[..., None] & (depths[..., None] == levels)  # [B, T, m]
        last = jax.lax.cummax(jnp.where(opened, steps, 0), axis=1)  # [B, T, m]
        level = jnp.maximum(depths - 1, 0)[..., None]  # [B, T, 1]
        place = jnp.take_along_axis(last, level, axis=2)[..., 0]
        return jnp.take_along_axis(types, place, axis=1)

    def metrics(self, outputs: jax.Array, batch: Batch) -> Metrics:
        """outputs [B, T, V] -> `closing`, `correct` and `correct_strings`, [] each."""
        symbols, _ = unpack(batch.targets, self.output_size)
        closing = jax.nn.log_softmax(outputs[..., 1 + self.num_types :])  # [B, T, k]
        right = jax.nn.one_hot(symbols - 1 - self.num_types, self.num_types, dtype=jnp.bool_)
        confident = jnp.any(right & (closing > math.log(CONFIDENT)), axis=-1)
        weights = jnp.where(jnp.any(right, axis=-1), batch.weights, 0.0)
        fraction = losses.weighted_mean(confident.astype(outputs.dtype), weights)
        return {"closing": fraction} | super().metrics(outputs, batch)

    def solved(self, metrics: dict[str, Any]) -> Any:
        """[S] bool: whether at least 0.99 of the validation set's brackets are closed correctly."""
        closing = metrics["validation_closing"]
        return (closing >= 0.99) & (closing <= 1.0)
