"""Small tasks of the tests' own."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxrnn import losses
from jaxrnn.tasks.base import Task
from jaxrnn.types import Batch


@dataclass(frozen=True)
class Echo(Task):
    """Say the symbol of one step before; rows of several lengths; other data at every step."""

    batch_size: int = 3
    length: int = 5
    output_size: int = 4
    stateful: bool = False
    ragged: bool = False

    @property
    def memoryless_loss(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return math.log(self.output_size)

    def sample_batch(self, key, step, arrays=None):
        shape = (self.batch_size, self.length)
        ids = jax.random.randint(key, shape, 0, self.output_size)
        weights = jnp.ones(shape).at[:, 0].set(0.0)
        lengths = None
        if self.ragged:
            lengths = jax.random.randint(key, (self.batch_size,), 2, self.length + 1)
            weights = jnp.where(jnp.arange(self.length)[None] < lengths[:, None], weights, 0.0)
        inputs = jax.nn.one_hot(ids, self.output_size) * (1.0 + 0.01 * jnp.float32(step))
        return Batch(inputs, jnp.roll(ids, 1, axis=1), weights, lengths)


@dataclass(frozen=True)
class Trap(Echo):
    """Echo, but the loss is infinite at a step whose first row's symbols sum to `sprung`."""

    sprung: int = 14

    def loss(self, outputs, batch):
        trapped = batch.inputs[0].argmax(-1).sum() == self.sprung
        loss = losses.sequence_cross_entropy(outputs, batch.targets, batch.weights)
        return jnp.where(trapped, jnp.inf, loss)
