"""The weighted losses against their definitions."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn.losses import (
    argmax,
    sequence_binary_cross_entropy,
    sequence_cross_entropy,
    sequence_squared_error,
    weighted_mean,
)

B, T, V = 2, 5, 3


@pytest.fixture
def batch(key):
    """Logits, targets and weights with no two rows or steps alike; one step weighs nothing."""
    k1, k2, k3 = jax.random.split(key, 3)
    weights = jax.random.uniform(k3, (B, T), minval=0.5, maxval=2.0).at[1, 3].set(0.0)
    return jax.random.normal(k1, (B, T, V)), jax.random.randint(k2, (B, T), 0, V), weights


def test_cross_entropy_equals_its_definition(batch):
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


def test_scaling_the_weights_keeps_the_loss(batch):
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


@pytest.fixture
def numbers(batch, key):
    """Outputs, targets and weights of a task that says numbers; one step weighs nothing."""
    logits, _, weights = batch
    return logits[..., :1], 3.0 * jax.random.normal(key, (B, T)), weights


def test_squared_error_equals_its_definition(numbers):
    outputs, targets, weights = (np.asarray(array, np.float64) for array in numbers)
    total, expected = 0.0, np.zeros((B, T, 1))
    for b in range(B):
        for t in range(T):
            total += weights[b, t] * (outputs[b, t, 0] - targets[b, t]) ** 2
            expected[b, t, 0] = 2 * weights[b, t] * (outputs[b, t, 0] - targets[b, t])
    loss, gradient = jax.value_and_grad(sequence_squared_error)(*numbers)
    np.testing.assert_allclose(loss, total / weights.sum(), rtol=1e-6)
    np.testing.assert_allclose(gradient, expected / weights.sum(), rtol=1e-5)


@pytest.mark.parametrize(
    ("output", "target"), [(np.inf, 0.0), (0.0, -np.inf), (np.inf, np.inf), (1e30, np.nan)]
)
def test_squared_error_ignores_steps_of_weight_zero(numbers, output, target):
    outputs, targets, weights = numbers
    value_and_grad = jax.value_and_grad(sequence_squared_error)
    expected = value_and_grad(outputs, targets, weights)
    other = outputs.at[1, 3].set(output), targets.at[1, 3].set(target)
    chex.assert_trees_all_equal(value_and_grad(*other, weights), expected)


def test_squared_error_refuses_shapes_that_do_not_fit(numbers):
    outputs, targets, weights = numbers
    with pytest.raises(ValueError, match=r"outputs must be \[B, T, V\], but its shape is \(2, 5\)"):
        sequence_squared_error(targets, targets, weights)
    with pytest.raises(ValueError, match=r"outputs must be \[B, T, V\] with V = 1"):
        sequence_squared_error(jnp.tile(outputs, 2), targets, weights)
    with pytest.raises(ValueError, match=r"targets must be \[B, T\]"):
        sequence_squared_error(outputs, outputs, weights)
    with pytest.raises(ValueError, match=r"targets must be \[B, T\] with T = 5"):
        sequence_squared_error(outputs, targets[:, :1], weights)
    with pytest.raises(ValueError, match=r"weights must be \[B, T\] with B = 2"):
        sequence_squared_error(outputs, targets, weights[:1])


@pytest.fixture
def keys(batch, key):
    """Logits, targets of 0 and 1 and weights of a task with V targets per step."""
    logits, _, weights = batch
    return 4 * logits, jax.random.bernoulli(key, 0.4, (B, T, V)).astype(jnp.float32), weights


def test_binary_cross_entropy_equals_its_definition(keys):
    logits, targets, weights = (np.asarray(array, np.float64) for array in keys)
    total = 0.0
    for b, t, v in np.ndindex(B, T, V):
        p = 1 / (1 + np.exp(-logits[b, t, v]))
        total -= weights[b, t] * np.log(p if targets[b, t, v] else 1 - p)
    np.testing.assert_allclose(
        sequence_binary_cross_entropy(*keys), total / weights.sum(), rtol=1e-6
    )


def test_binary_cross_entropy_and_its_gradient_equal_those_of_pytorch(keys):
    torch = pytest.importorskip("torch")
    logits, targets, weights = (torch.tensor(np.asarray(array)) for array in keys)
    logits.requires_grad_()
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    wanted = (each.sum(-1) * weights).sum() / weights.sum()
    wanted.backward()
    loss, gradient = jax.value_and_grad(sequence_binary_cross_entropy)(*keys)
    np.testing.assert_allclose(loss, wanted.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, logits.grad.numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("logit", "target"), [(np.inf, 0.0), (np.nan, 1.0), (1.0, np.nan)])
def test_binary_cross_entropy_ignores_steps_of_weight_zero(keys, logit, target):
    logits, targets, weights = keys
    value_and_grad = jax.value_and_grad(sequence_binary_cross_entropy)
    other = logits.at[1, 3].set(logit), targets.at[1, 3].set(target)
    chex.assert_trees_all_equal(value_and_grad(*other, weights), value_and_grad(*keys))


def test_binary_cross_entropy_of_large_logits_is_finite():
    logits, ones = jnp.array([[[1e4, -1e4]]]), jnp.ones((1, 1))
    assert sequence_binary_cross_entropy(logits, jnp.array([[[1.0, 0.0]]]), ones) == 0.0
    assert sequence_binary_cross_entropy(logits, jnp.array([[[0.0, 1.0]]]), ones) == 2e4


def test_binary_cross_entropy_refuses_shapes_that_do_not_fit(keys):
    logits, targets, weights = keys
    with pytest.raises(ValueError, match=r"targets must be \[B, T, V\], but its shape is \(2, 5\)"):
        sequence_binary_cross_entropy(logits, targets[..., 0], weights)
    with pytest.raises(ValueError, match=r"targets must be \[B, T, V\] with V = 3"):
        sequence_binary_cross_entropy(logits, targets[..., 1:], weights)
    with pytest.raises(ValueError, match=r"weights must be \[B, T\] with T = 5"):
        sequence_binary_cross_entropy(logits, targets, weights[:, 1:])


def test_losses_of_bfloat16_outputs_are_float32(batch, numbers):
    for loss, (outputs, targets, weights) in (
        (sequence_cross_entropy, batch),
        (sequence_squared_error, numbers),
    ):
        assert loss(outputs.astype(jnp.bfloat16), targets, weights).dtype == jnp.float32


@pytest.mark.parametrize("target", [V, 300, -1])
def test_targets_outside_the_vocabulary_give_nan(batch, target):
    logits, targets, weights = batch
    loss = sequence_cross_entropy(logits, targets.at[0, 0].set(target), weights)
    assert np.isnan(loss)


def test_small_integer_targets_are_not_wrapped():
    logits, weights = jnp.ones((1, 1, 300)), jnp.ones((1, 1))
    loss = sequence_cross_entropy(logits, jnp.full((1, 1), 200, jnp.uint8), weights)
    np.testing.assert_allclose(loss, np.log(300), rtol=1e-6)


def test_argmax_takes_the_first_of_ties(key):
    logits = jnp.round(2 * jax.random.normal(key, (B, T, 7)))  # rounded, so that there are ties
    assert np.any((logits == logits.max(-1, keepdims=True)).sum(-1) > 1)
    np.testing.assert_array_equal(argmax(logits), np.argmax(np.asarray(logits), axis=-1))
    assert argmax(jnp.full((1, 7), -jnp.inf)).tolist() == [0]
    assert 0 <= argmax(jnp.full((7,), jnp.nan)) < 7
