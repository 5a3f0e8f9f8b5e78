"""The independently recurrent network: each unit sees its own past alone."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer

from jaxrnn.cells.base import Cell, check_clip
from jaxrnn.cells.initializers import initializer
from jaxrnn.dtypes import promote


class IndRNNCell(Cell):
    """The IndRNN: a recurrent weight u for each unit, where an Elman cell has a matrix.

        h' = relu(W_i x + b_i + u * h)

    The gradient of a unit over T steps is u^T times products of the activation's derivative. So
    bounds on u alone keep it from exploding: the paper's are |u| <= 2^(1/T) for relu. The units
    mix in the next layer: stack two or more.

    Source: Li et al. (2018), "Independently Recurrent Neural Network (IndRNN): Building A Longer
    and Deeper RNN", eq. 2; the bounds are from section 3.2.

    Attributes:
      features, kernel_init, bias_init, dtype, param_dtype: as in `Cell`.
      recurrent_kernel_init: initializer of u [H]: a name in `INITIALIZERS`, or a function. The
        default, uniform from 0 to 1, is that of the authors' code.
      recurrent_clip: the bound of |u|; None for no bound. Weights beyond it count as the bound,
        and their gradient is zero, as in `jnp.clip`.
      activation_fn: the activation function, relu by default.

    >>> cell = IndRNNCell(4, recurrent_clip=2 ** (1 / 100))  # for 100 time steps
    >>> inputs = jnp.ones((2, 3))  # [B, F]
    >>> carry = cell.initialize_carry(None, inputs.shape)
    >>> (carry, outputs), variables = cell.init_with_output(jax.random.key(0), carry, inputs)
    >>> outputs.shape, sorted(variables["params"])
    ((2, 4), ['i', 'u'])
    """

    recurrent_kernel_init: str | Initializer = "uniform_0_1"
    recurrent_clip: float | None = None
    activation_fn: Callable[[jax.Array], jax.Array] = nn.relu

    def __post_init__(self) -> None:
        """Check the options."""
        check_clip(self, "recurrent_clip")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, carry: jax.Array, inputs: jax.Array, hidden_mask: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """One step: carry [B, H], inputs [B, F] -> new carry, outputs [B, H].

        `hidden_mask` [B, H], if given, multiplies h in u * h (recurrent dropout).
        """
        init = initializer(self.recurrent_kernel_init)
        weight = self.param("u", init, (self.features,), self.param_dtype)
        if self.recurrent_clip is not None:
            weight = jnp.clip(weight, -self.recurrent_clip, self.recurrent_clip)
        hidden = carry if hidden_mask is None else carry * hidden_mask
        # u * h stays in the carry's type: it is elementwise, and rounding adds up over the steps.
        driven, weight, hidden = promote(self._dense("i")(inputs), weight, hidden)
        h = self.activation_fn(driven + jnp.expand_dims(weight, range(driven.ndim - 1)) * hidden)
        return h, h
