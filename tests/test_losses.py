"""The weighted loss against its definition, and the step from which a run was right."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn.losses import learned_at, sequence_cross_entropy, weighted_mean

B, T, V = 2, 5, 3


@pytest.fixture
def batch(key):
    """Logits, targets and weights with no two rows or steps alike; one step weighs nothing."""
    k1, k2, k3 = jax.random.split(key, 3)
    weights = jax.random.uniform(k3, (B, T), minval=0.5, maxval=2.0).at[1, 3].set(0.0)
    return jax.random.normal(k1, (B, T, V)), jax.random.randint(k2, (B, T), 0, V), weights


def test_cross_entropy_is_its_definition(batch):
    logits, targets, weights = (np.asarray(array, np.float64) for array in batch)
    total = 0.0
    for b in range(B):
        for t in range(T):
            probability = np.exp(logits[b, t]) / np.exp(logits[b, t]).sum()
            total -= weights[b, t] * np.log(probability[int(targets[b, t])])
    np.testing.assert_allclose(sequence_cross_entropy(*batch), total / weights.sum(), rtol=1e-6)


def test_steps_of_weight_zero_change_nothing(batch):
    logits, targets, weights = batch
    other_logits = logits.at[1, 3].set(jnp.array([1e4, -1e4, 7.0]))
    other_targets = targets.at[1, 3].set(-1)
    value_and_grad = jax.value_and_grad(sequence_cross_entropy)
    loss, gradient = value_and_grad(logits, targets, weights)
    other_loss, other_gradient = value_and_grad(other_logits, other_targets, weights)
    chex.assert_trees_all_equal(loss, other_loss)
    chex.assert_trees_all_equal(gradient, other_gradient)
    assert not gradient[1, 3].any()
    assert gradient[1, 2].any()


def test_twice_the_weights_are_the_same_loss(batch):
    logits, targets, weights = batch
    chex.assert_trees_all_close(
        sequence_cross_entropy(logits, targets, 2 * weights),
        sequence_cross_entropy(logits, targets, weights),
        rtol=1e-6,
    )


def test_weighted_mean_of_nothing_is_zero():
    assert weighted_mean(jnp.full((1, 2), jnp.nan), jnp.zeros((1, 2))) == 0.0


def test_shapes_that_do_not_fit_are_refused(batch):
    logits, targets, weights = batch
    with pytest.raises(ValueError, match=r"logits must be \[B, T, V\]"):
        sequence_cross_entropy(logits[0], targets, weights)
    with pytest.raises(ValueError, match=r"targets must be \[B, T\] with T = 5"):
        sequence_cross_entropy(logits, targets[:, 1:], weights)
    with pytest.raises(ValueError, match=r"weights must be \[B, T\] with T = 5"):
        sequence_cross_entropy(logits, targets, weights[:, 1:])
    with pytest.raises(ValueError, match=r"weights must be \[B, T\] with B = 2"):
        weighted_mean(weights, weights[:1])


def test_learned_at_is_the_first_step_of_the_last_right_stretch(key):
    correct = np.asarray(jax.random.bernoulli(key, 0.7, (50, 6)))
    expected = []
    for row in correct:
        right_from = [n for n in range(6) if row[n:].all()]
        expected.append(right_from[0] if right_from else 6)
    assert {0, 6} < set(expected)
    np.testing.assert_array_equal(learned_at(jnp.asarray(correct)), expected)
