"""What the grammars share: targets that also say which symbols may come, and how many are right."""

import jax
import jax.numpy as jnp

from jaxrnn import losses
from jaxrnn.tasks.base import Task
from jaxrnn.types import Batch, Metrics


class NextSymbol(Task):
    """Predict the next symbol at every step, where often several symbols are possible.

    The loss is the cross-entropy of the symbol that came. What counts as correct is whether each
    of the symbols that may come gets a larger output than every other one, as in Hochreiter and
    Schmidhuber (1997). So a target holds both, packed into one integer.

    >>> allowed = jnp.array([[[True, False, True]]])  # [B, T, V]
    >>> targets = pack(jnp.array([[2]]), allowed)
    >>> [part.tolist() for part in unpack(targets, 3)]
    [[[2]], [[[True, False, True]]]]
    """

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """outputs [B, T, V] -> [], the cross-entropy of the symbols that came, in nats."""
        symbols, _ = unpack(batch.targets, self.output_size)
        return losses.sequence_cross_entropy(outputs, symbols, batch.weights)

    def correct(self, outputs: jax.Array, allowed: jax.Array) -> jax.Array:
        """outputs, allowed [B, T, V] -> [B, T] bool, whether a step counts as correct."""
        lowest = jnp.min(jnp.where(allowed, outputs, jnp.inf), axis=-1)
        highest = jnp.max(jnp.where(allowed, -jnp.inf, outputs), axis=-1)
        return lowest > highest

    def metrics(self, outputs: jax.Array, batch: Batch) -> Metrics:
        """outputs [B, T, V] -> `correct` [] and `correct_strings` [].

        They are the fraction of steps that are correct, and the fraction of rows in which all are.
        """
        _, allowed = unpack(batch.targets, self.output_size)
        correct = self.correct(outputs, allowed)  # [B, T]
        scored = batch.weights > 0
        strings = jnp.all(correct | ~scored, axis=1, keepdims=True).astype(outputs.dtype)
        rows = jnp.any(scored, axis=1, keepdims=True).astype(outputs.dtype)
        return {
            "correct": losses.weighted_mean(correct.astype(outputs.dtype), batch.weights),
            "correct_strings": losses.weighted_mean(strings, rows),
        }


def pack(symbols: jax.Array, allowed: jax.Array) -> jax.Array:
    """Targets [B, T] int32 from the next symbols [B, T] int and the allowed ones [B, T, V] bool."""
    number = jax.lax.broadcasted_iota(jnp.int32, allowed.shape, 2)
    bits = jnp.sum(allowed.astype(jnp.int32) << number, axis=-1, dtype=jnp.int32)
    return symbols.astype(jnp.int32) + allowed.shape[-1] * bits


def unpack(targets: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """The next symbols [B, T] int32 and the allowed ones [B, T, V] bool of targets [B, T]."""
    number = jax.lax.broadcasted_iota(targets.dtype, (*targets.shape, size), 2)
    return targets % size, (targets // size)[..., None] >> number & 1 == 1
