"""Cells whose gates depend only on the input, so all time steps can be computed in parallel.

Source: Feng et al. (2024), "Were RNNs All We Needed?", sections 3.1 and 3.2.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrnn.cells.base import LinearCell


def _identity(x: jax.Array) -> jax.Array:
    return x


def positive(x: jax.Array) -> jax.Array:
    """x + 0.5 if x >= 0, else sigmoid(x), elementwise: g in appendix B of Feng et al. (2024).

    As the candidate's `activation_fn` it keeps the states positive, which the paper's log-space
    form requires.
    """
    return jnp.where(x >= 0, x + 0.5, nn.sigmoid(x))


class MinGRUCell(LinearCell):
    """The minimal GRU: its gate depends only on the input.

        z = sigmoid(W_iz x + b_iz)               n = W_in x + b_in
        h' = (1 - z) * h + z * n

    z and n are sown as intermediates, for `read_gates`. Here z = 1 replaces the state, whereas in
    `GRUCell` it keeps the state. Other attributes as in `Cell`.

    Source: Feng et al. (2024), section 3.1.

    Attributes:
      activation_fn: the candidate's activation function: the identity, or `positive` as in the
        paper's log-space form.

    >>> cell = MinGRUCell(4)
    >>> inputs = jnp.ones((2, 3))  # [B, F]
    >>> carry = cell.initialize_carry(None, inputs.shape)
    >>> (carry, outputs), variables = cell.init_with_output(jax.random.key(0), carry, inputs)
    >>> outputs.shape, sorted(variables["params"])
    ((2, 4), ['in', 'iz'])
    """

    activation_fn: Callable[[jax.Array], jax.Array] = _identity

    @nn.compact
    def coefficients(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Inputs [..., F] -> decay 1 - z [..., H], drive z * n [..., H]."""
        z = nn.sigmoid(self._dense("iz")(inputs))
        n = self.activation_fn(self._dense("in")(inputs))
        self._sow(z=z, n=n)
        return 1.0 - z, z * n


class MinLSTMCell(LinearCell):
    """The minimal LSTM: its two gates depend only on the input and are scaled to sum to 1.

        f = sigmoid(W_if x + b_if)               i = sigmoid(W_ii x + b_ii)
        g = W_ig x + b_ig
        h' = f / (f + i) * h + i / (f + i) * g

    The scaled gates f / (f + i) and i / (f + i) are sown as the intermediates f and i, for
    `read_gates`, and so is g. Other attributes as in `Cell`.

    Source: Feng et al. (2024), section 3.2.

    Attributes:
      activation_fn: of the candidate, as in `MinGRUCell`.
      forget_bias: initial value of the forget gate's bias; if 0, `bias_init` sets it. The larger
        it is, the longer the cell remembers at the start of training.

    >>> cell = MinLSTMCell(4)
    >>> inputs = jnp.ones((2, 3))  # [B, F]
    >>> carry = cell.initialize_carry(None, inputs.shape)
    >>> (carry, outputs), variables = cell.init_with_output(jax.random.key(0), carry, inputs)
    >>> outputs.shape, sorted(variables["params"])
    ((2, 4), ['if', 'ig', 'ii'])
    """

    activation_fn: Callable[[jax.Array], jax.Array] = _identity
    forget_bias: float = 0.0

    @nn.compact
    def coefficients(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Inputs [..., F] -> decay f / (f + i) [..., H], drive i / (f + i) * g [..., H]."""
        bias = nn.initializers.constant(self.forget_bias) if self.forget_bias else self.bias_init
        a_f, a_i = self._dense("if", bias_init=bias)(inputs), self._dense("ii")(inputs)
        g = self.activation_fn(self._dense("ig")(inputs))
        # sigmoid(a) / (sigmoid(a) + sigmoid(b)) is 0 / 0 if both gates underflow to 0. This equal
        # form, the sigmoid of the difference of their logarithms, stays finite.
        f = nn.sigmoid(nn.softplus(-a_i) - nn.softplus(-a_f))
        i = nn.sigmoid(nn.softplus(-a_f) - nn.softplus(-a_i))
        self._sow(f=f, i=i, g=g)
        return f, i * g
