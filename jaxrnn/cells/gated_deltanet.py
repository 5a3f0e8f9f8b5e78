"""The Gated DeltaNet: the delta rule over a matrix state that also decays."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.cells.deltanet import DeltaNetCell
from jaxrnn.dtypes import promote


class GatedDeltaNetCell(DeltaNetCell):
    """The Gated DeltaNet: a DeltaNet whose state decays before each correction.

        a = exp(-exp(A_log) * softplus(W_a x + dt_bias))
        S' = (I - beta k k^T) a S + beta k v^T

    q, k, v, beta, the output and the options are those of `DeltaNetCell`. The decay a, from 0 to 1
    for each head, and beta, [B, T, K] each, are sown as intermediates, for `read_gates`.

    Source: Yang, Kautz and Hatamizadeh (2024), "Gated Delta Networks: Improving Mamba2 with Delta
    Rule", eq. 10; a, A_log and dt_bias, and how they start, are from Mamba-2: Dao and Gu (2024).

    >>> cell = GatedDeltaNetCell(4, num_heads=2)
    >>> inputs = jnp.ones((3, 5))  # [B, F]
    >>> carry = cell.initialize_carry(None, inputs.shape)
    >>> (carry, outputs), variables = cell.init_with_output(jax.random.key(0), carry, inputs)
    >>> outputs.shape, sorted(variables["params"])
    ((3, 4), ['A_log', 'dt_bias', 'gate_a', 'gate_b', 'ik', 'iq', 'iv'])
    """

    def _decay(self, inputs: jax.Array) -> jax.Array:
        shape = (self.num_heads,)
        log_rate = self.param("A_log", _init_log_rate, shape, self.param_dtype)
        bias = self.param("dt_bias", _init_step_bias, shape, self.param_dtype)
        step, log_rate, bias = promote(self._per_head("gate_a", inputs), log_rate, bias)
        step = nn.softplus(step + jnp.expand_dims(bias, range(step.ndim - 1)))
        a = jnp.exp(-jnp.expand_dims(jnp.exp(log_rate), range(step.ndim - 1)) * step)
        self._sow(a=a)
        return a


def _init_log_rate(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """The logarithm of a rate uniform from 0.001 to 16."""
    return jnp.log(jax.random.uniform(key, shape, dtype, 1e-3, 16.0))


def _init_step_bias(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """The bias for which softplus(bias) is log-uniform from 0.001 to 0.1."""
    step = jnp.exp(jax.random.uniform(key, shape, dtype, math.log(1e-3), math.log(1e-1)))
    return step + jnp.log(-jnp.expm1(-step))
