"""Weighted losses over sequences."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import check_axes
from jaxrnn.dtypes import promote


def weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """sum(weights * values) / sum(weights); 0 if all weights are 0.

    A value whose weight is 0 is ignored, even if it is infinite or NaN.

    Args:
      values: [B, T] float.
      weights: [B, T] float, not negative.

    Returns:
      [] float.

    Raises:
      ValueError: if the shapes differ.

    >>> float(weighted_mean(jnp.array([[1.0, 3.0, jnp.nan]]), jnp.array([[1.0, 3.0, 0.0]])))
    2.5
    """
    check_axes("weights", weights, "BT", **check_axes("values", values, "BT"))
    total = jnp.sum(weights)
    weights, values = promote(weights, values)
    weighted = jnp.sum(jnp.where(weights > 0, weights * values, 0.0))
    weighted, total = promote(weighted, total)
    return weighted / jnp.where(total > 0, total, 1.0)


def entropy(counts: np.ndarray) -> float:
    """The entropy of a distribution, in nats, from counts or probabilities that need not sum to 1.

    It is the loss of the best constant prediction.

    >>> round(float(entropy(np.array([1, 1, 2, 0])) / np.log(2)), 6)
    1.5
    """
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def sequence_cross_entropy(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """Weighted mean of the cross-entropy of each step, in nats.

    It is TensorFlow 1's `sequence_loss`, averaged over time steps and batch rows.

    Args:
      logits: [B, T, V] float.
      targets: [B, T] int in 0..V-1. A target outside this range makes the loss NaN, unless its
        weight is 0.
      weights: [B, T] float, not negative.

    Returns:
      [] float.

    Raises:
      ValueError: if the shapes do not match.

    >>> logits = jnp.zeros((1, 2, 4))  # uniform over V = 4 classes
    >>> loss = sequence_cross_entropy(logits, jnp.array([[0, 3]]), jnp.ones((1, 2)))
    >>> round(float(loss), 4)  # log(4)
    1.3863
    """
    sizes = check_axes("logits", logits, "BTV")
    check_axes("targets", targets, "BT", **sizes)
    check_axes("weights", weights, "BT", **sizes)
    targets = jnp.where(weights > 0, targets, 0)
    # A mask, not an index: the gradient of indexing is a scatter, which is slow on a CPU.
    ids, size = targets.astype(jnp.int32), logits.shape[-1]
    true = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2) == ids[..., None]
    picked = jnp.sum(jnp.where(true, logits, 0.0), axis=-1)
    picked = jnp.where((ids >= 0) & (ids < size), picked, jnp.nan)  # NaN for an invalid target
    return weighted_mean(jax.nn.logsumexp(logits, axis=-1) - picked, weights)  # [B, T]


def sequence_binary_cross_entropy(
    logits: jax.Array, targets: jax.Array, weights: jax.Array
) -> jax.Array:
    """Weighted mean of each step's binary cross-entropy, summed over its V outputs, in nats.

    Each step has V targets of 0 or 1, such as the keys of a piano; several may be 1.

    Args:
      logits: [B, T, V] float, of the probability of 1.
      targets: [B, T, V] float, from 0 to 1; ignored where the weight is 0.
      weights: [B, T] float, not negative.

    Returns:
      [] float.

    Raises:
      ValueError: if the shapes do not match.

    >>> loss = sequence_binary_cross_entropy(
    ...     jnp.zeros((1, 1, 3)), jnp.array([[[0.0, 1.0, 1.0]]]), jnp.ones((1, 1))
    ... )
    >>> round(float(loss), 4)  # 3 log(2)
    2.0794
    """
    sizes = check_axes("logits", logits, "BTV")
    check_axes("targets", targets, "BTV", **sizes)
    check_axes("weights", weights, "BT", B=sizes["B"], T=sizes["T"])
    logits, targets = promote(logits, targets)
    # Zero what is ignored first: infinity times 0 would make the gradient NaN.
    counts = (weights > 0)[..., None]
    logits, targets = jnp.where(counts, logits, 0.0), jnp.where(counts, targets, 0.0)
    # -t log p - (1 - t) log(1 - p), for p = sigmoid(logit)
    return weighted_mean(jnp.sum(jax.nn.softplus(logits) - targets * logits, axis=-1), weights)


def sequence_squared_error(outputs: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """Weighted mean of the squared error of each step.

    Args:
      outputs: [B, T, 1] float.
      targets: [B, T] float; ignored where the weight is 0.
      weights: [B, T] float, not negative.

    Returns:
      [] float, in the square of the targets' unit.

    Raises:
      ValueError: if the shapes do not match.

    >>> outputs, targets = jnp.array([[[1.0], [5.0]]]), jnp.array([[3.0, 5.0]])
    >>> float(sequence_squared_error(outputs, targets, jnp.ones((1, 2))))
    2.0
    """
    sizes = check_axes("outputs", outputs, "BTV", V=1)
    check_axes("targets", targets, "BT", **sizes)
    check_axes("weights", weights, "BT", **sizes)
    # Zero the ignored errors before squaring: infinity times 0 would make the gradient NaN.
    outputs, targets = promote(outputs[..., 0], targets)
    errors = jnp.where(weights > 0, outputs - targets, 0.0)
    return weighted_mean(errors**2, weights)


def argmax(logits: jax.Array) -> jax.Array:
    """`jnp.argmax` over the last axis, faster on a CPU; the first index of a tie.

    `jnp.argmax` reduces values and indices together, which XLA does not vectorise on a CPU. This
    is two reductions of one array each.

    Args:
      logits: [..., V] float.

    Returns:
      [...] int32 in 0..V-1; V-1 if a logit is NaN.

    >>> argmax(jnp.array([[0.1, 2.0, 2.0], [3.0, 0.0, 1.0]])).tolist()
    [1, 0]
    """
    size = logits.shape[-1]
    indices = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    highest = logits == logits.max(axis=-1, keepdims=True)
    return jnp.where(highest, indices, size - 1).min(axis=-1)
