"""What several cells share: dense layers, a zero carry, and recurrences that are linear."""

import contextlib
import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax import export
from jax.nn.initializers import Initializer

from jaxrnn.cells.initializers import initializer
from jaxrnn.choices import check_choice
from jaxrnn.dtypes import promote

CarryType = TypeVar("CarryType")


class Cell(nn.RNNCellBase):
    """Base class of cells that do not extend one of Flax's.

    Attributes:
      features: H.
      kernel_init: initializer of each [F, H] matrix: a name in `INITIALIZERS`, or a function.
      bias_init: initializer of the biases, [H] each.
      dtype: the type of products and gates; if None, that of inputs and parameters. The carry
        keeps `param_dtype`.
      param_dtype: the type of parameters and carry.
    """

    features: int
    kernel_init: str | Initializer = "glorot_uniform"
    bias_init: Initializer = nn.initializers.zeros
    dtype: jax.typing.DTypeLike | None = None
    param_dtype: jax.typing.DTypeLike = jnp.float32

    def _dense(self, name: str | None, **options: Any) -> nn.Dense:
        """A product with the input, [F] -> [H], unless `options` say otherwise."""
        options = {"kernel_init": self.kernel_init, "bias_init": self.bias_init} | options
        options["kernel_init"] = initializer(options["kernel_init"])
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        return nn.Dense(options.pop("features", self.features), name=name, **types, **options)

    def _sow(self, **values: jax.Array) -> None:
        """Show gates and states to `read_gates`; this costs nothing unless they are read."""
        for name, value in values.items():
            self.sow("intermediates", name, value)

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array | None, input_shape: tuple[int, ...]) -> Any:
        """The initial carry, zeros [..., H], for inputs of shape [..., F]; `rng` is not used."""
        return jnp.zeros((*input_shape[:-1], self.features), self.param_dtype)

    @property
    def num_feature_axes(self) -> int:
        """The number of feature axes of the inputs: one, F."""
        return 1


class LinearCell(Cell):
    """A recurrence that is linear in its state: `h' = decay * h + drive`, [B, H] each.

    The base class of such cells. A subclass defines `coefficients`, which computes decay and drive
    from the inputs alone. A layer can step through the cell like any other, or compute the
    coefficients of all T steps at once and combine them in O(log T) rounds of an associative scan
    (Blelloch 1990, section 1.4).

    The state may be complex: `to_state` and `to_carry` convert between it and the carry, whose
    arrays are real. `read_out` computes the outputs; without it they are the states. Other
    attributes as in `Cell`.

    >>> class Decay(LinearCell):
    ...     def coefficients(self, inputs):
    ...         return 0.5 * jnp.ones_like(inputs), inputs
    >>> carry, outputs = Decay(3).apply({}, jnp.ones((2, 3)), jnp.ones((2, 3)))
    >>> outputs[0].tolist()
    [1.5, 1.5, 1.5]
    """

    def coefficients(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Inputs [..., F] -> decay [..., H], drive [..., H]."""
        raise NotImplementedError(f"{type(self).__name__} must define coefficients(inputs)")

    def read_out(self, states: jax.Array, inputs: jax.Array) -> jax.Array:
        """States [..., H] after the step, inputs [..., F] -> outputs [..., H]."""
        del inputs
        return states

    @nn.nowrap
    def to_state(self, carry: Any) -> jax.Array:
        """The state as one array, real or complex."""
        return carry

    @nn.nowrap
    def to_carry(self, state: jax.Array) -> Any:
        """The carry of a state: its inverse."""
        return state

    def __call__(self, carry: Any, inputs: jax.Array) -> tuple[Any, jax.Array]:
        """One step: carry [B, H], inputs [B, F] -> new carry, outputs [B, H]."""
        decay, drive = self.coefficients(inputs)
        decay, state, drive = promote(decay, self.to_state(carry), drive)  # may be wider
        state = decay * state + drive
        return self.to_carry(state), self.read_out(state, inputs)


class BlockDense(nn.Module):
    """A dense layer whose matrix is block-diagonal: no block sees the others' units.

        y = concat(x_1 W_1, ..., x_K W_K) + b

    Attributes:
      features: H, the number of units after the layer; those before it are split in as many blocks.
      num_blocks: K; one block is a dense layer.
      kernel_init, bias_init: initializers of each block, and of b [H].
      use_bias: whether there is b.
      dtype, param_dtype: as in `nn.Dense`.

    >>> layer = BlockDense(6, num_blocks=2)
    >>> layer.init(jax.random.key(0), jnp.ones((1, 4)))["params"]["kernel"].shape
    (2, 2, 3)
    """

    features: int
    num_blocks: int = 1
    kernel_init: Initializer = nn.initializers.lecun_normal()
    bias_init: Initializer = nn.initializers.zeros
    use_bias: bool = True
    dtype: jax.typing.DTypeLike | None = None
    param_dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Inputs [..., I] -> [..., H]."""
        blocks = self.num_blocks
        shape = (blocks, inputs.shape[-1] // blocks, self.features // blocks)

        def each_block(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
            keys = jax.random.split(key, blocks)
            return jnp.stack([self.kernel_init(key, shape[1:], dtype) for key in keys])

        kernel, bias = self.param("kernel", each_block, shape, self.param_dtype), None
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        inputs, kernel, bias = promote_dtype(inputs, kernel, bias, dtype=self.dtype)
        parts = inputs.reshape(*inputs.shape[:-1], blocks, -1)
        outputs = jnp.einsum("...ki,kij->...kj", parts, kernel)
        outputs = outputs.reshape(*inputs.shape[:-1], self.features)
        return outputs if bias is None else outputs + jnp.expand_dims(bias, range(outputs.ndim - 1))


def check_heads(cell: Any) -> None:
    """Check that `num_heads` divides the cell's `features`.

    Raises:
      ValueError: if it does not.
    """
    heads, features = cell.num_heads, cell.features
    if type(heads) is not int or heads < 1 or (isinstance(features, int) and features % heads):
        raise ValueError(
            f"num_heads must be a whole number that divides features, {features}, not {heads!r}"
        )


def check_flags(cell: Any, *names: str) -> None:
    """Check that options are True or False; a ValueError says which is not."""
    for name in names:
        if not isinstance(value := getattr(cell, name), bool):
            raise ValueError(f"{name} must be True or False, not {value!r}")


def check_clip(cell: Any, name: str) -> None:
    """Check that a bound is a positive finite number or None, with a ValueError."""
    clip = getattr(cell, name)
    is_number = isinstance(clip, int | float) and not isinstance(clip, bool)
    if clip is not None and not (is_number and 0 < clip < math.inf):
        raise ValueError(f"{name} must be a positive finite number or None, not {clip!r}")


def check_forget_gate(cell: Any) -> None:
    """Check the option `forget_gate` of the xLSTM cells, with a ValueError."""
    check_choice("forget_gate", cell.forget_gate, ("sigmoid", "exp"))


def register_carry(cls: type[CarryType]) -> type[CarryType]:
    """Class decorator: let `jax.export` serialize functions that take or return this carry."""
    with contextlib.suppress(ValueError):  # registered already, if its module is reloaded
        export.register_namedtuple_serialization(cls, serialized_name=f"jaxrnn.{cls.__name__}")
    return cls


def at_least_32_bits(dtype: Any) -> Any:
    """A type to draw parameters in that are near a bound, which 16 bits would round to it."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype
