"""The real-gated linear recurrent unit of Griffin."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer

from jaxrnn.cells.base import BlockDense, LinearCell, at_least_32_bits, check_flags, check_heads
from jaxrnn.cells.initializers import initializer
from jaxrnn.dtypes import promote

POWER = 8.0  # c in the paper


class RGLRUCell(LinearCell):
    """The RG-LRU: a real diagonal recurrence whose decay is gated by the input.

        u = W_i x + b_i
        r = sigmoid(W_r u + b_r)                 z = sigmoid(W_z u + b_z)
        a = sigmoid(lambda)^(8 r)                h' = a * h + sqrt(1 - a^2) * (z * u)

    All time steps can be computed at once, with `implementation="associative_scan"`. The gates r
    and z and the decay a are sown as intermediates, for `read_gates`.

    Source: De et al. (2024), "Griffin: Mixing Gated Linear Recurrences with Local Attention for
    Efficient Language Models", eq. 1 to 4, with the first product, W_i, from its recurrent block
    (section 2.3), but without that block's convolution and its second branch.

    Attributes:
      features, dtype, param_dtype, bias_init: as in `Cell`.
      kernel_init: initializer of W_i [F, H], and of each block of W_r and W_z [H, H].
      num_heads: the number of blocks of W_r and W_z, which are block-diagonal; it divides H. The
        paper uses 16.
      project_inputs: whether there is W_i; if not, u = x, and F must be H.
      min_radius, max_radius: the decay with an open gate, sigmoid(lambda)^8, starts uniform between
        these.

    >>> cell = RGLRUCell(4, num_heads=2)
    >>> inputs = jnp.ones((2, 3))  # [B, F]
    >>> carry = cell.initialize_carry(None, inputs.shape)
    >>> (carry, outputs), variables = cell.init_with_output(jax.random.key(0), carry, inputs)
    >>> outputs.shape, variables["params"]["gate_r"]["kernel"].shape
    ((2, 4), (2, 2, 2))
    """

    kernel_init: str | Initializer = "lecun_normal"
    num_heads: int = 1
    project_inputs: bool = True
    min_radius: float = 0.9
    max_radius: float = 0.999

    def __post_init__(self) -> None:
        """Check the options."""
        if not 0 < self.min_radius < self.max_radius < 1:
            raise ValueError(
                "min_radius and max_radius must be between 0 and 1, the smaller first, not"
                f" {self.min_radius!r} and {self.max_radius!r}"
            )
        check_heads(self)
        check_flags(self, "project_inputs")
        super().__post_init__()

    @nn.compact
    def coefficients(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Inputs [..., F] -> decay a [..., H], drive sqrt(1 - a^2) * z * u [..., H]."""
        if self.project_inputs:
            inputs = self._dense("i")(inputs)
        elif inputs.shape[-1] != self.features:
            raise ValueError(
                f"inputs must have F = H = {self.features} without project_inputs, but"
                f" F = {inputs.shape[-1]}"
            )
        r, z = nn.sigmoid(self._gate("gate_r")(inputs)), nn.sigmoid(self._gate("gate_z")(inputs))
        weight = self.param("lambda", self._init_lambda, (self.features,), self.param_dtype)
        r_wide, weight, gated = promote(r, weight, z * inputs)
        log_a = -POWER * r_wide * jnp.expand_dims(nn.softplus(-weight), range(r.ndim - 1))
        # 1 - a^2 without cancellation, and not below where the root's slope is infinite.
        power = jnp.maximum(-jnp.expm1(2 * log_a), jnp.finfo(log_a.dtype).tiny)
        a = jnp.exp(log_a)
        self._sow(r=r, z=z, a=a)
        return a, jnp.sqrt(power) * gated

    def _gate(self, name: str) -> BlockDense:
        return BlockDense(
            self.features,
            self.num_heads,
            initializer(self.kernel_init),
            self.bias_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )

    def _init_lambda(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        """The logit of the 8th root of a uniform number."""
        wide = at_least_32_bits(dtype)
        u = jax.random.uniform(key, shape, wide, self.min_radius, self.max_radius)
        log_root = jnp.log(u) / POWER
        return (log_root - jnp.log(-jnp.expm1(log_root))).astype(dtype)
