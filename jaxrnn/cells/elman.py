"""The simple (Elman) recurrent cell."""

import jax
from flax import linen as nn
from jax.nn.initializers import Initializer

from jaxrnn.cells.initializers import initializer
from jaxrnn.dtypes import promote


class ElmanCell(nn.SimpleCell):
    """Flax's simple cell, with initializers that can be given by name.

        h' = tanh(W_i x + b_i + W_h h)

    Its parameters and equations are those of `flax.linen.SimpleCell`. `CELLS["irnn"]` is this cell
    with `activation_fn=nn.relu` and the identity as initial recurrent weights: the IRNN of Le,
    Jaitly and Hinton (2015).

    Source: Elman (1990).

    Attributes:
      features: H.
      kernel_init, recurrent_kernel_init: initializers of W_i [F, H] and W_h [H, H]: names in
        `INITIALIZERS`, or functions.
      bias_init: initializer of b_i [H].
      activation_fn: the activation function, tanh by default.
      residual: whether to add h to the argument of the activation function.
      dtype: the type of products and outputs; if None, that of inputs and parameters. The carry
        keeps `param_dtype`.
      param_dtype: the type of parameters and carry.

    >>> cell = ElmanCell(4)
    >>> inputs = jax.numpy.ones((2, 3))  # [B, F]
    >>> carry = cell.initialize_carry(jax.random.key(0), inputs.shape)
    >>> (carry, outputs), variables = cell.init_with_output(jax.random.key(0), carry, inputs)
    >>> outputs.shape, sorted(variables["params"])
    ((2, 4), ['h', 'i'])
    """

    kernel_init: str | Initializer = "glorot_uniform"
    recurrent_kernel_init: str | Initializer = "glorot_uniform"

    @nn.compact
    def __call__(
        self, carry: jax.Array, inputs: jax.Array, hidden_mask: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """One step: carry [B, H], inputs [B, F] -> new carry, outputs [B, H].

        `hidden_mask` [B, H], if given, multiplies h in W_h h (recurrent dropout).
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
        if self.residual:
            h, old = promote(h, carry)  # the carry may be wider than the products
            h = h + old
        h = self.activation_fn(h)
        return h, h
