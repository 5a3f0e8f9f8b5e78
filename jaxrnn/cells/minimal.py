"""Cells whose gates see the input alone, so that all time steps can be computed at once.

Source: Feng et al. (2024), "Were RNNs All We Needed?", sections 3.1 and 3.2.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer

from jaxrnn.cells.initializers import initializer


def _identity(x: jax.Array) -> jax.Array:
    return x


def positive(x: jax.Array) -> jax.Array:
    """x + 0.5 from zero on, sigmoid(x) below: Feng et al. (2024), appendix B, their g.

    As a candidate's `activation_fn` it keeps the states positive, as the paper's form in log-space
    needs them.
    """
    return jnp.where(x >= 0, x + 0.5, nn.sigmoid(x))


class LinearCell(nn.RNNCellBase):
    """A recurrence that is linear in its state: `h' = decay * h + drive`, [B, H] each.

    A cell gives `coefficients`, decay and drive, from the inputs alone. Stepped through, this is a
    cell like any other; a layer may as well take the coefficients of all time steps and put them
    through an associative scan (Blelloch 1990, section 1.4), in a number of rounds that grows as
    the logarithm of T.

    Attributes:
      features: H.
      kernel_init: a name in `INITIALIZERS`, or an initialiser; each gate's matrix is made by
        itself.
      bias_init: of the biases.
      activation_fn: of the candidate; the identity, or `positive` for the paper's form in
        log-space.
      dtype: of products and gates; None: that of inputs and parameters. The carry keeps
        `param_dtype`.
      param_dtype: of parameters and carry.
    """

    features: int
    kernel_init: str | Initializer = "glorot_uniform"
    bias_init: Initializer = nn.initializers.zeros
    activation_fn: Callable[[jax.Array], jax.Array] = _identity
    dtype: jax.typing.DTypeLike | None = None
    param_dtype: jax.typing.DTypeLike = jnp.float32

    def coefficients(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """inputs [..., F] -> decay [..., H], drive [..., H]."""
        raise NotImplementedError

    def __call__(self, carry: jax.Array, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One step: carry [B, H], inputs [B, F] -> new carry, outputs [B, H]."""
        decay, drive = self.coefficients(inputs)
        h = decay * carry + drive
        return h, h

    def _dense(self, name: str, bias_init: Initializer | None = None) -> nn.Dense:
        """One gate's view of the input."""
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
        """The zero carry for inputs of `input_shape` ([..., F]); `rng` is not used."""
        return jnp.zeros((*input_shape[:-1], self.features), self.param_dtype)

    @property
    def num_feature_axes(self) -> int:
        """How many axes of the inputs are features: one, F."""
        return 1


class MinGRUCell(LinearCell):
    """The minimal GRU.

        z = sigmoid(W_iz x + b_iz)               n = W_in x + b_in
        h' = (1 - z) * h + z * n

    z and n are sown as intermediates. Note that here a z of 1 forgets, in `GRUCell` it keeps.

    Source: Feng et al. (2024), section 3.1.
    """

    @nn.compact
    def coefficients(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """inputs [..., F] -> decay 1 - z [..., H], drive z * n [..., H]."""
        z = nn.sigmoid(self._dense("iz")(inputs))
        n = self.activation_fn(self._dense("in")(inputs))
        for name, value in {"z": z, "n": n}.items():
            self.sow("intermediates", name, value)
        return 1.0 - z, z * n


class MinLSTMCell(LinearCell):
    """The minimal LSTM, its two gates scaled to sum to one.

        f = sigmoid(W_if x + b_if)               i = sigmoid(W_ii x + b_ii)
        g = W_ig x + b_ig
        h' = f / (f + i) * h + i / (f + i) * g

    The scaled gates are sown as the intermediates f and i, and g.

    Source: Feng et al. (2024), section 3.2.

    Attributes:
      forget_bias: what the forget gate's bias starts at; the more, the longer the memory at first.
    """

    forget_bias: float = 0.0

    @nn.compact
    def coefficients(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """inputs [..., F] -> decay f / (f + i) [..., H], drive i / (f + i) * g [..., H]."""
        bias = nn.initializers.constant(self.forget_bias) if self.forget_bias else None
        a_f, a_i = self._dense("if", bias)(inputs), self._dense("ii")(inputs)
        g = self.activation_fn(self._dense("ig")(inputs))
        # sigmoid(a) / (sigmoid(a) + sigmoid(b)) without the quotient, which is 0 / 0 where both
        # gates are shut: it is the sigmoid of the difference of their logarithms.
        f = nn.sigmoid(nn.softplus(-a_i) - nn.softplus(-a_f))
        i = nn.sigmoid(nn.softplus(-a_f) - nn.softplus(-a_i))
        for name, value in {"f": f, "i": i, "g": g}.items():
            self.sow("intermediates", name, value)
        return f, i * g
