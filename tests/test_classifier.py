"""The classifier's pooling, against the layer's own outputs and final states."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import Bidirectional, GRUCell, LSTMCell, Recurrent, SequenceClassifier, Stack
from jaxrnn.errors import SettingError

INPUTS = jax.random.normal(jax.random.key(0), (3, 6, 2))
LENGTHS = jnp.array([6, 2, 1])


def two_ways(cell: Any = LSTMCell, merge: Any = "concat", **options: Any) -> Bidirectional:
    forward = Recurrent(cell(4, **options))
    return Bidirectional(forward, Recurrent(cell(5), reverse=True), merge)


def pooled(model: Any, lengths: Any = LENGTHS) -> tuple[np.ndarray, np.ndarray, Any]:
    """What the readout must have read, solved from its outputs; and the model's carry."""
    variables = model.init(jax.random.key(1), INPUTS)
    outputs, carry = model.apply(variables, INPUTS, lengths=lengths)
    readout = variables["params"]["readout"]
    assert outputs.shape == (3, 1, 40)
    wanted = np.linalg.lstsq(
        np.asarray(readout["kernel"], float).T, (outputs[:, 0] - readout["bias"][None]).T
    )
    layer = {"params": variables["params"]["recurrent"]}
    hidden, _ = model.recurrent.apply(layer, INPUTS, lengths=lengths)
    return wanted[0].T, np.asarray(hidden), carry


LAST = [
    (Recurrent(LSTMCell(4)), lambda carry: carry.h),
    (Recurrent(GRUCell(4), reverse=True), lambda carry: carry),
    (Stack((Recurrent(GRUCell(3)), two_ways())), lambda carry: both_states(carry[1])),
    (two_ways(projection_size=2), lambda carry: both_states(carry)),
]


def both_states(carry: Any) -> np.ndarray:
    return np.concatenate([carry.forward.h, carry.backward.h], axis=1)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
@pytest.mark.parametrize(("layer", "state"), LAST, ids=["forwards", "reverse", "stack", "both"])
def test_last_is_the_final_state_of_each_direction(layer, state, lengths):
    found, _, carry = pooled(SequenceClassifier(layer, 40), lengths)
    np.testing.assert_allclose(found, state(carry), atol=1e-5)


def test_mean_and_flatten_read_all_steps_but_no_padding():
    found, hidden, _ = pooled(SequenceClassifier(two_ways(), 40, "mean"))
    rows = [hidden[b, :length].mean(axis=0) for b, length in enumerate(LENGTHS.tolist())]
    np.testing.assert_allclose(found, rows, atol=1e-5)
    found, hidden, _ = pooled(SequenceClassifier(Recurrent(GRUCell(4)), 40, "mean"), None)
    np.testing.assert_allclose(found, hidden.mean(axis=1), atol=1e-5)
    found, hidden, _ = pooled(SequenceClassifier(Recurrent(GRUCell(4)), 40, "flatten"))
    np.testing.assert_allclose(found, hidden.reshape(3, 24), atol=1e-5)
    np.testing.assert_allclose(found[1, 8:], 0.0, atol=1e-6)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("pool", ["last", "mean", "flatten"])
def test_padding_has_no_effect_and_no_gradient(pool):
    model: Any = SequenceClassifier(two_ways(), 7, pool)
    variables = model.init(jax.random.key(1), INPUTS)
    past = jnp.arange(6)[None, :, None] >= LENGTHS[:, None, None]
    changed = jnp.where(past, 99.0, INPUTS)
    one, other = (model.apply(variables, x, lengths=LENGTHS)[0] for x in (INPUTS, changed))
    np.testing.assert_array_equal(one, other)
    gradient = jax.grad(lambda x: model.apply(variables, x, lengths=LENGTHS)[0].sum())(INPUTS)
    assert not gradient[jnp.broadcast_to(past, gradient.shape)].any()
    assert gradient[:, 0].all()


def test_invalid_settings_raise():
    with pytest.raises(ValueError, match="pool must be last, mean or flatten, not 'max'"):
        SequenceClassifier(two_ways(), 3, "max")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match='use merge="concat"'):
        SequenceClassifier(two_ways(merge="sum"), 3)
    SequenceClassifier(two_ways(merge="sum"), 3, "mean")
    with pytest.raises(SettingError, match="output size must be at least 1"):
        SequenceClassifier(two_ways(), 0)
    with pytest.raises(ValueError, match="must be one such as Recurrent"):
        SequenceClassifier(GRUCell(4), 3)
