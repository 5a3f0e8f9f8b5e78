"""Cells whose gates depend only on the input, so all time steps can be computed in parallel.

Source: Feng et al. (2024), "Were RNNs All We Needed?", sections 3.1 and 3.2.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer

from jaxrnn.cells.initializers import initializer
from jaxrnn.dtypes import promote


def _identity(x: jax.Array) -> jax.Array:
    return x


def positive(x: jax.Array) -> jax.Array:
    """x + 0.5 if x >= 0, else sigmoid(x), elementwise: g in appendix B of Feng et al. (2024).

    As the candidate's `activation_fn` it keeps the states positive, which the paper's log-space
    form requires.
    """
    return jnp.where(x >= 0, x + 0.5, nn.sigmoid(x))


class LinearCell(nn.RNNCellBase):
    """A recurrence that is linear in its state: `h' = decay * h + drive`, [B, H] each.

    The base class of such cells. A subclass defines `coefficients`, which computes decay and drive
    from the inputs alone. A layer can step through the cell like any other, or compute the
    coefficients of all T steps at once and combine them in O(log T) rounds of an associative scan
    (Blelloch 1990, section 1.4).

    Attributes:
      features: H.
      kernel_init: initializer of each gate's [F, H] matrix: a name in `INITIALIZERS`, or a
        function.
      bias_init: initializer of the biases, [H] each.
      activation_fn: the candidate's activation function: the identity, or `positive` as in the
        paper's log-space form.
      dtype: the type of products and gates; if None, that of inputs and parameters. The carry
        keeps `param_dtype`.
      param_dtype: the type of parameters and carry.

    >>> class Decay(LinearCell):
    ...     def coefficients(self, inputs):
    ...         return 0.5 * jnp.ones_like(inputs), inputs
    >>> carry, outputs = Decay(3).apply({}, jnp.ones((2, 3)), jnp.ones((2, 3)))
    >>> outputs[0].tolist()
    [1.5, 1.5, 1.5]
    """

    features: int
    kernel_init: str | Initializer = "glorot_uniform"
    bias_init: Initializer = nn.initializers.zeros
    activation_fn: Callable[[jax.Array], jax.Array] = _identity
    dtype: jax.typing.DTypeLike | None = None
    param_dtype: jax.typing.DTypeLike = jnp.float32

    def coefficients(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Inputs [..., F] -> decay [..., H], drive [..., H]."""
        raise NotImplementedError

    def __call__(self, carry: jax.Array, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One step: carry [B, H], inputs [B, F] -> new carry, outputs [B, H]."""
        decay, drive = self.coefficients(inputs)
        decay, carry, drive = promote(decay, carry, drive)  # the carry may be wider
        h = decay * carry + drive
        return h, h

    def _dense(self, name: str, bias_init: Initializer | None = None) -> nn.Dense:
        """The product of one gate with the input."""
        return nn.Dense(
            self.features,
            kernel_init=initializer(self.kernel_init),
            bias_init=bias_init or self.bias_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array | None, input_shape: tuple[int, ...]) -> jax.Array:
        """The initial carry, zeros [..., H], for inputs of shape [..., F]; `rng` is not used."""
        return jnp.zeros((*input_shape[:-1], self.features), self.param_dtype)

    @property
    def num_feature_axes(self) -> int:
        """The number of feature axes of the inputs: one, F."""
        return 1


class MinGRUCell(LinearCell):
    """The minimal GRU: its gate depends only on the input.

        z = sigmoid(W_iz x + b_iz)               n = W_in x + b_in
        h' = (1 - z) * h + z * n

    z and n are sown as intermediates, for `read_gates`. Here z = 1 replaces the state, whereas in
    `GRUCell` it keeps the state. Attributes as in `LinearCell`.

    Source: Feng et al. (2024), section 3.1.

    >>> cell = MinGRUCell(4)
    >>> inputs = jnp.ones((2, 3))  # [B, F]
    >>> carry = cell.initialize_carry(None, inputs.shape)
    >>> (carry, outputs), variables = cell.init_with_output(jax.random.key(0), carry, inputs)
    >>> outputs.shape, sorted(variables["params"])
    ((2, 4), ['in', 'iz'])
    """

    @nn.compact
    def coefficients(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Inputs [..., F] -> decay 1 - z [..., H], drive z * n [..., H]."""
        z = nn.sigmoid(self._dense("iz")(inputs))
        n = self.activation_fn(self._dense("in")(inputs))
        for name, value in {"z": z, "n": n}.items():
            self.sow("intermediates", name, value)
        return 1.0 - z, z * n


class MinLSTMCell(LinearCell):
    """The minimal LSTM: its two gates depend only on the input and are scaled to sum to 1.

        f = sigmoid(W_if x + b_if)               i = sigmoid(W_ii x + b_ii)
        g = W_ig x + b_ig
        h' = f / (f + i) * h + i / (f + i) * g

    The scaled gates f / (f + i) and i / (f + i) are sown as the intermediates f and i, for
    `read_gates`, and so is g. Other attributes as in `LinearCell`.

    Source: Feng et al. (2024), section 3.2.

    Attributes:
      forget_bias: initial value of the forget gate's bias; if 0, `bias_init` sets it. The larger
        it is, the longer the cell remembers at the start of training.

    >>> cell = MinLSTMCell(4)
    >>> inputs = jnp.ones((2, 3))  # [B, F]
    >>> carry = cell.initialize_carry(None, inputs.shape)
    >>> (carry, outputs), variables = cell.init_with_output(jax.random.key(0), carry, inputs)
    >>> outputs.shape, sorted(variables["params"])
    ((2, 4), ['if', 'ig', 'ii'])
    """

    forget_bias: float = 0.0

    @nn.compact
    def coefficients(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Inputs [..., F] -> decay f / (f + i) [..., H], drive i / (f + i) * g [..., H]."""
        bias = nn.initializers.constant(self.forget_bias) if self.forget_bias else None
        a_f, a_i = self._dense("if", bias)(inputs), self._dense("ii")(inputs)
        g = self.activation_fn(self._dense("ig")(inputs))
        # sigmoid(a) / (sigmoid(a) + sigmoid(b)) is 0 / 0 if both gates underflow to 0. This equal
        # form, the sigmoid of the difference of their logarithms, stays finite.
        f = nn.sigmoid(nn.softplus(-a_i) - nn.softplus(-a_f))
        i = nn.sigmoid(nn.softplus(-a_f) - nn.softplus(-a_i))
        for name, value in {"f": f, "i": i, "g": g}.items():
            self.sow("intermediates", name, value)
        return f, i * g
