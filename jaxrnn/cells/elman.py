"""The simple recurrent network."""

import jax
from flax import linen as nn
from jax.nn.initializers import Initializer

from jaxrnn.cells.initializers import initializer


class ElmanCell(nn.SimpleCell):
    """Flax's simple cell, its initialisers by name too.

        h' = tanh(W_i x + b_i + W_h h)

    Parameters and equations are those of `flax.linen.SimpleCell`. With `activation_fn=nn.relu` and
    recurrent weights that start as the identity it is the IRNN of Le, Jaitly and Hinton (2015),
    which is `CELLS["irnn"]`.

    Source: Elman (1990).

    Attributes:
      features: H.
      kernel_init, recurrent_kernel_init: names in `INITIALIZERS`, or initialisers.
      activation_fn: in place of tanh.
      residual: whether h is added to what the tanh is taken of.
      dtype: of products and outputs; None: that of inputs and parameters. The carry keeps
        `param_dtype`.
      param_dtype: of parameters and carry.
    """

    kernel_init: str | Initializer = "glorot_uniform"
    recurrent_kernel_init: str | Initializer = "glorot_uniform"

    @nn.compact
    def __call__(
        self, carry: jax.Array, inputs: jax.Array, hidden_mask: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """One step: carry [B, H], inputs [B, F] -> new carry, outputs [B, H].

        `hidden_mask` [B, H], if any, multiplies the h of the product (recurrent dropout).
        """
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        from_input = nn.Dense(
            self.features,
            kernel_init=initializer(self.kernel_init),
            bias_init=self.bias_init,
            name="i",
            **types,
        )
        from_hidden = nn.Dense(
            self.features,
            use_bias=False,
            kernel_init=initializer(self.recurrent_kernel_init),
            name="h",
            **types,
        )
        hidden = carry if hidden_mask is None else carry * hidden_mask
        h = from_input(inputs) + from_hidden(hidden)
        h = self.activation_fn(h + carry if self.residual else h)
        return h, h
