"""The gated recurrent unit, its reset gate before or after the recurrent product."""

from functools import partial

import jax
from flax import linen as nn
from jax.nn.initializers import Initializer

from jaxrnn.cells.initializers import initializer


class GRUCell(nn.GRUCell):
    """Flax's GRU cell, and the one of the paper.

        r = sigmoid(W_ir x + b_ir + W_hr h)      z = sigmoid(W_iz x + b_iz + W_hz h)
        n = tanh(W_in x + b_in + r * (W_hn h + b_hn))         reset after the product
        n = tanh(W_in x + b_in + W_hn (r * h))                reset before it
        h' = (1 - z) * n + z * h

    The gates are sown as intermediates, for `gates.read_gates`.

    Sources: Cho et al. (2014), eq. 5 to 8, reset before the product, as TensorFlow 1 and ONNX do
    by default; after it is what Flax, PyTorch, cuDNN and Keras do.

    Attributes:
      features: H.
      kernel_init, recurrent_kernel_init: names in `INITIALIZERS`, or initialisers; each gate's
        matrix is made by itself.
      reset_after: whether the reset gate acts after the recurrent product. If so, parameters and
        equations are those of `flax.linen.GRUCell`; if not, there is no b_hn.
      dtype: of products and gates; None: that of inputs and parameters. The carry keeps
        `param_dtype`.
      param_dtype: of parameters and carry.
    """

    kernel_init: str | Initializer = "glorot_uniform"
    recurrent_kernel_init: str | Initializer = "glorot_uniform"
    reset_after: bool = True

    @nn.compact
    def __call__(
        self, carry: jax.Array, inputs: jax.Array, hidden_mask: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """One step: carry [B, H], inputs [B, F] -> new carry, outputs [B, H].

        `hidden_mask` [B, H], if any, multiplies the h of the products (recurrent dropout); the h
        that z keeps stays whole.
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
        n = n + (r * recurrent(hidden) if self.reset_after else recurrent(r * hidden))
        n = self.activation_fn(n)
        h = (1.0 - z) * n + z * carry
        for name, value in {"r": r, "z": z, "n": n}.items():
            self.sow("intermediates", name, value)
        return h, h
