"""Weighted losses over sequences."""

import jax
import jax.numpy as jnp

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
      targets: [B, T] int, each in 0..V-1 (anything where the weight is 0); of another one the loss
        is not a number.
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
    # Picked by a mask: the gradient of an index is a scatter, which a CPU takes one by one.
    ids, size = targets.astype(jnp.int32), logits.shape[-1]
    true = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2) == ids[..., None]
    picked = jnp.sum(jnp.where(true, logits, 0.0), axis=-1)
    picked = jnp.where((ids >= 0) & (ids < size), picked, jnp.nan)  # no such answer: no loss
    return weighted_mean(jax.nn.logsumexp(logits, axis=-1) - picked, weights)  # [B, T]


def argmax(logits: jax.Array) -> jax.Array:
    """The first of the highest: `argmax` over the last axis, by two reductions of one array each.

    `argmax` reduces values and places together, which XLA does not vectorise on a CPU.

    Args:
      logits: [..., V] float.

    Returns:
      [...] int32, each in 0..V-1; where a logit is not a number V-1.
    """
    size = logits.shape[-1]
    places = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    highest = logits == logits.max(axis=-1, keepdims=True)
    return jnp.where(highest, places, size - 1).min(axis=-1)


def sequence_squared_error(outputs: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """The weighted mean of each step's squared error.

    Args:
      outputs: [B, T, 1] float.
      targets: [B, T] float (anything where the weight is 0).
      weights: [B, T] float, not negative.

    Returns:
      [] float, in the square of the targets' unit.

    Raises:
      ValueError: if the shapes do not fit each other.
    """
    sizes = check_axes("outputs", outputs, "BTV", V=1)
    check_axes("targets", targets, "BT", **sizes)
    check_axes("weights", weights, "BT", **sizes)
    # Errors of weight 0 go before they are squared: infinity times 0 would spoil the gradient.
    errors = jnp.where(weights > 0, outputs[..., 0] - targets, 0.0)
    return weighted_mean(errors**2, weights)
