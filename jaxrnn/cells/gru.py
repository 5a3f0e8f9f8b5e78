"""The gated recurrent unit, with the reset gate before or after the recurrent product."""

from functools import partial

import jax
from flax import linen as nn
from jax.nn.initializers import Initializer

from jaxrnn.cells.initializers import initializer
from jaxrnn.dtypes import promote


class GRUCell(nn.GRUCell):
    """Flax's GRU cell, with the paper's reset gate as an option.

        r = sigmoid(W_ir x + b_ir + W_hr h)      z = sigmoid(W_iz x + b_iz + W_hz h)
        n = tanh(W_in x + b_in + r * (W_hn h + b_hn))         reset_after=True
        n = tanh(W_in x + b_in + W_hn (r * h))                reset_after=False
        h' = (1 - z) * n + z * h

    The gates are sown as intermediates, for `read_gates`.

    Source: Cho et al. (2014), eq. 5 to 8, which reset before the product, as TensorFlow 1 and, by
    default, ONNX do. Flax, PyTorch, cuDNN and Keras reset after it.

    Attributes:
      features: H.
      kernel_init, recurrent_kernel_init: initializers of each gate's [F, H] and [H, H] matrix:
        names in `INITIALIZERS`, or functions.
      bias_init: initializer of the biases, [H] each.
      reset_after: whether the reset gate acts after the recurrent product. If so, parameters and
        equations are those of `flax.linen.GRUCell`; if not, there is no b_hn.
      dtype: the type of products and gates; if None, that of inputs and parameters. The carry
        keeps `param_dtype`.
      param_dtype: the type of parameters and carry.

    >>> cell = GRUCell(4)
    >>> inputs = jax.numpy.ones((2, 3))  # [B, F]
    >>> carry = cell.initialize_carry(jax.random.key(0), inputs.shape)
    >>> (carry, outputs), variables = cell.init_with_output(jax.random.key(0), carry, inputs)
    >>> outputs.shape, sorted(variables["params"])
    ((2, 4), ['hn', 'hr', 'hz', 'in', 'ir', 'iz'])
    """

    kernel_init: str | Initializer = "glorot_uniform"
    recurrent_kernel_init: str | Initializer = "glorot_uniform"
    reset_after: bool = True

    @nn.compact
    def __call__(
        self, carry: jax.Array, inputs: jax.Array, hidden_mask: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """One step: carry [B, H], inputs [B, F] -> new carry, outputs [B, H].

        `hidden_mask` [B, H], if given, multiplies h in the matrix products (recurrent dropout),
        but not in z * h.
        """
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype, "bias_init": self.bias_init}
        dense = partial(nn.Dense, self.features, **types)
        from_input = partial(dense, kernel_init=initializer(self.kernel_init))
        from_hidden = partial(dense, kernel_init=initializer(self.recurrent_kernel_init))
        hidden = carry if hidden_mask is None else carry * hidden_mask
        r = from_input(name="ir")(inputs) + from_hidden(name="hr", use_bias=False)(hidden)
        z = from_input(name="iz")(inputs) + from_hidden(name="hz", use_bias=False)(hidden)
        r, z = self.gate_fn(r), self.gate_fn(z)
        n = from_input(name="in")(inputs)
        recurrent = from_hidden(name="hn", use_bias=self.reset_after)
        if self.reset_after:
            n = n + r * recurrent(hidden)
        else:
            reset, hidden = promote(r, hidden)
            n = n + recurrent(reset * hidden)
        n = self.activation_fn(n)
        kept, old, new = promote(z, carry, (1.0 - z) * n)  # the carry may be wider than the gates
        h = new + kept * old
        for name, value in {"r": r, "z": z, "n": n}.items():
            self.sow("intermediates", name, value)
        return h, h
