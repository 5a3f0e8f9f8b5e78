"""Dropout whose rate may be an array."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


class Dropout(nn.Dropout):
    """Flax's dropout, with the same masks, for a rate that may also be an array, [] float.

    The networks of a sweep that are trained in one program have rates of their own.
    """

    def __call__(
        self, inputs: jax.Array, deterministic: bool | None = None, rng: Any = None
    ) -> jax.Array:
        """Inputs of any shape -> the same shape. Arguments as Flax's."""
        off = nn.merge_param("deterministic", self.deterministic, deterministic)
        rate: Any = self.rate
        if off or not isinstance(rate, jax.Array):
            return super().__call__(inputs, deterministic, rng)
        keep = 1.0 - rate
        key = self.make_rng(self.rng_collection) if rng is None else rng
        ones = self.broadcast_dims
        shape = [1 if axis in ones else size for axis, size in enumerate(inputs.shape)]
        mask = jnp.broadcast_to(jax.random.bernoulli(key, keep, shape), inputs.shape)
        return jax.lax.select(mask, inputs / keep.astype(inputs.dtype), jnp.zeros_like(inputs))
