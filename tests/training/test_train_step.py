"""The settings, and the step: gradient, clipping and update as written out by hand."""

from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from example_tasks import Echo

from jaxrnn import losses
from jaxrnn.cells import LSTMCell
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.training.config import TrainConfig
from jaxrnn.training.optimizer import make_optimizer, make_schedule
from jaxrnn.training.step import RESERVED, init_state, make_train_step

MODEL = SequenceModel(Recurrent(LSTMCell(6)), 4)


def start(task, train, key, model=MODEL):
    batch = task.sample_batch(key, 0)
    return init_state(key, task, model, make_optimizer(train), batch), batch


def loss_by_hand(task, batch, initial_carry=None, model=MODEL, **options):
    def loss(params):
        outputs, _ = model.apply(
            {"params": params}, batch.inputs, initial_carry, lengths=batch.lengths, **options
        )
        return losses.sequence_cross_entropy(outputs, batch.targets, batch.weights)

    return loss


@pytest.mark.sampled(4)
@pytest.mark.parametrize("clip_norm", [None, 0.05])
@pytest.mark.parametrize("ragged", [False, True])
def test_a_step_applies_the_clipped_gradient(key, clip_norm, ragged):
    task = Echo(ragged=ragged)
    train = TrainConfig(9, 0.5, optimizer="sgd", clip_norm=clip_norm)
    state, batch = start(task, train, key)
    new, metrics = make_train_step(task, MODEL, make_optimizer(train))(state, batch, key)
    loss, gradient = jax.value_and_grad(loss_by_hand(task, batch))(state.params)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)))
    assert norm > 0.1  # so that 0.05 does clip
    scale = 0.5 * (1.0 if clip_norm is None else clip_norm / norm)
    expected = jax.tree.map(lambda p, g: p - scale * g, state.params, gradient)
    chex.assert_trees_all_close(new.params, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)
    assert 0 <= metrics["accuracy"] <= 1
    assert new.step == 1


@pytest.mark.slow
def test_flatten_gives_the_same_update(key):
    task = Echo()
    results = []
    for flatten in (False, True):
        train = TrainConfig(9, 0.1, flatten=flatten, clip_norm=0.05)
        state, batch = start(task, train, key)
        new, _ = make_train_step(task, MODEL, make_optimizer(train))(state, batch, key)
        results.append(new.params)
    chex.assert_trees_all_close(*results, rtol=1e-6, atol=1e-7)


def test_dropout_draws_from_its_key(key):
    task, train = Echo(), TrainConfig(9, 0.1, optimizer="sgd", clip_norm=None)
    model = SequenceModel(Recurrent(LSTMCell(6), recurrent_dropout=0.5), 4)
    state, batch = start(task, train, key, model)
    step = make_train_step(task, model, make_optimizer(train))
    first, again, other = (
        step(state, batch, dropout_key)[1]["loss"] for dropout_key in (key, key, jax.random.key(21))
    )
    assert first == again != other
    by_hand = loss_by_hand(task, batch, model=model, deterministic=False, rngs={"dropout": key})
    np.testing.assert_allclose(first, by_hand(state.params), rtol=1e-6)


def test_the_carry_passes_between_batches_if_the_task_is_stateful(key):
    train = TrainConfig(9, 0.1)
    for keeps in (False, True):
        task = Echo(stateful=keeps)
        state, batch = start(task, train, key)
        step = make_train_step(task, MODEL, make_optimizer(train))
        middle, _ = step(state, batch, key)
        _, metrics = step(middle, batch, key)
        _, after = MODEL.apply({"params": state.params}, batch.inputs)
        carry = after if keeps else None
        by_hand = loss_by_hand(task, batch, carry)(middle.params)
        np.testing.assert_allclose(metrics["loss"], by_hand, rtol=1e-5)
        assert (middle.carry is not None) == keeps
    assert not np.allclose(by_hand, loss_by_hand(task, batch)(middle.params), rtol=1e-3)


def test_a_second_step_does_not_compile(key):
    task, train = Echo(), TrainConfig(9, 0.1)
    state, batch = start(task, train, key)
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(make_train_step(task, MODEL, make_optimizer(train)), n=1))
    for _ in range(3):
        state, _ = step(state, batch, key)
    with pytest.raises(AssertionError, match="traced"):
        step(state, jax.tree.map(lambda leaf: leaf[:1], batch), key)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0, 0.1, 0.2, 0.3, 0.4] + [0.4] * 5),
        ("linear", [0, 0.1, 0.2, 0.3] + [0.4 * (1 - n / 6) for n in range(6)]),
        (
            "cosine",
            [0, 0.1, 0.2, 0.3] + [0.2 * (1 + np.cos(np.pi * n / 6)) for n in range(6)],
        ),
    ],
)
def test_the_learning_rate_rises_and_falls(schedule, expected):
    rate = make_schedule(TrainConfig(10, 0.4, schedule=schedule, warmup_steps=4))
    assert callable(rate)
    with jax.numpy_dtype_promotion("standard"):  # optax multiplies steps by floats
        rates = np.array([rate(jnp.int32(n)) for n in range(10)])
    np.testing.assert_allclose(rates, expected, atol=1e-7)


def test_the_optimizer_gets_its_kwargs_and_schedule(key):
    """Two steps of momentum along a line, by hand."""
    train = TrainConfig(
        4,
        0.4,
        optimizer="sgd",
        optimizer_kwargs={"momentum": 0.5},
        schedule="linear",
        clip_norm=None,
    )
    optimizer = make_optimizer(train)
    params, gradients = jnp.array([1.0, -2.0]), [jnp.array([1.0, 3.0]), jnp.array([-2.0, 1.0])]
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    first = np.array([1.0, -2.0]) - 0.4 * np.array([1.0, 3.0])
    second = first - 0.3 * (np.array([-2.0, 1.0]) + 0.5 * np.array([1.0, 3.0]))
    np.testing.assert_allclose(np.asarray(params), second, rtol=1e-6)


@dataclass(frozen=True)
class Measured(Echo):
    names: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    dtype: str = "float32"

    def metrics(self, outputs, batch):
        return {name: jnp.zeros(self.shape, self.dtype) for name in self.names}


@pytest.mark.parametrize(
    ("task", "message"),
    [
        *((Measured(names=(name,)), f"must not be called {name}") for name in sorted(RESERVED)),
        (Measured(names=("none",), shape=(0, 3)), "the metric none must hold real numbers"),
        (Measured(names=("odd",), dtype="complex64"), "the metric odd must hold real numbers"),
        (
            Echo(output_size=5),
            r"outputs are \[..., 4\], but the task's output_size is 5",
        ),
    ],
)
def test_invalid_tasks_are_refused(key, task, message):
    train = TrainConfig(9)
    state, batch = start(task, train, key)
    with pytest.raises(SettingError, match=message):
        jax.eval_shape(make_train_step(task, MODEL, make_optimizer(train)), state, batch, key)


BAD = {
    "no steps": ({"steps": 0}, "steps must be at least 1"),
    "half a step": ({"steps": 1.5}, "steps must be a whole number"),
    "too many steps": ({"steps": 2**31}, "steps must be less than 2"),
    "a switch for a number": ({"steps_per_call": True}, "steps per call must be a whole number"),
    "no line": ({"log_every": 0}, "log every must be at least 1"),
    "no rate": ({"learning_rate": 0.0}, "learning rate must be a positive finite number"),
    "not a number": ({"learning_rate": float("nan")}, "learning rate must be"),
    "beyond single precision": ({"learning_rate": 1e39}, "learning rate must be"),
    "unknown optimizer": (
        {"optimizer": "adma"},
        "one of adam, adam-tf1, adamw, rmsprop, sgd or a function.*, not 'adma'",
    ),
    "unknown option": ({"optimizer_kwargs": {"b3": 0.9}}, "optimizer_kwargs do not fit adam: .*b3"),
    "unknown schedule": ({"schedule": "step"}, "constant, linear or cosine, not 'step'"),
    "all warm-up": ({"warmup_steps": 5}, "warmup steps must be a whole number from 0"),
    "clipped to nothing": ({"clip_norm": 0.0}, "clip norm must be a positive finite number"),
    "clipped at infinity": ({"clip_norm": float("inf")}, "clip norm must be"),
    "time runs backwards": ({"checkpoint_seconds": -1.0}, "checkpoint seconds must be 0 or more"),
}


@pytest.mark.parametrize("case", BAD)
def test_settings_out_of_range_are_refused(case):
    settings, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        TrainConfig(**({"steps": 5} | settings))
