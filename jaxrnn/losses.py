"""Weighted losses over sequences, and what is measured of a run."""

import jax
import jax.numpy as jnp
import optax

from jaxrnn.checks import check_axes


def weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """sum(weights * values) / sum(weights); 0 where all weights are 0.

    A value of weight 0 does not count at all, not even an infinite or undefined one.

    Args:
      values: [B, T] float.
      weights: [B, T] float, not negative.

    Returns:
      [] float.

    Raises:
      ValueError: if the shapes differ.
    """
    check_axes("weights", weights, "BT", **check_axes("values", values, "BT"))
    total = jnp.sum(weights)
    weighted = jnp.sum(jnp.where(weights > 0, weights * values, 0.0))
    return weighted / jnp.where(total > 0, total, 1.0)


def sequence_cross_entropy(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """The weighted mean of each step's cross-entropy, in nats.

    TensorFlow 1's `sequence_loss` averaged over time steps and batch rows.

    Args:
      logits: [B, T, V] float.
      targets: [B, T] int, each in 0..V-1 (anything where the weight is 0).
      weights: [B, T] float, not negative.

    Returns:
      [] float.

    Raises:
      ValueError: if the shapes do not fit each other.
    """
    sizes = check_axes("logits", logits, "BTV")
    check_axes("targets", targets, "BT", **sizes)
    check_axes("weights", weights, "BT", **sizes)
    targets = jnp.where(weights > 0, targets, 0)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)  # [B, T]
    return weighted_mean(losses, weights)


def learned_at(correct: jax.Array) -> jax.Array:
    """The first training step that was right and stayed right.

    Args:
      correct: [..., N] bool: whether all was right after each step's update.

    Returns:
      [...] int: a step in 0..N-1, or N if the last step was not right.

    >>> import numpy as np
    >>> int(learned_at(np.array([False, True, False, True, True])))
    3
    """
    steps = jnp.arange(1, correct.shape[-1] + 1)
    return jnp.max(jnp.where(correct, 0, steps), axis=-1)
