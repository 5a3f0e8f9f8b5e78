"""The linear recurrent unit: a complex diagonal recurrence, stable at any length."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer

from jaxrnn.cells.base import LinearCell, at_least_32_bits, register_carry
from jaxrnn.cells.initializers import initializer
from jaxrnn.dtypes import promote


@register_carry
class LRUCarry(NamedTuple):
    """The carry of an LRU: its complex state as two real arrays.

    >>> LRUCarry(*LRUCell(4).initialize_carry(None, (2, 3))).im.shape
    (2, 4)
    """

    re: jax.Array  # [B, N]: the real part
    im: jax.Array  # [B, N]: the imaginary part


class LRUCell(LinearCell):
    """The LRU: a linear recurrence with a complex decay for each state, and a linear output.

        s' = lambda * s + gamma * (B x)          lambda = exp(-exp(nu_log) + i exp(theta_log))
        h' = Re(C s') + D x                      gamma = exp(gamma_log)

    The exponentials keep |lambda| < 1 in training, so that the recurrence cannot explode. There is
    no nonlinearity: put one between layers, as its paper does with gated linear units. All time
    steps can be computed at once, with `implementation="associative_scan"`. The state's parts re
    and im are sown as intermediates, for `read_gates`.

    Source: Orvieto et al. (2023), "Resurrecting Recurrent Neural Networks for Long Sequences":
    eq. 5 and 6 with lambda as in section 3.3 and gamma as in section 3.4, eq. 7 and 8.

    Attributes:
      features, dtype, param_dtype: as in `Cell`.
      state_size: N, the number of complex states; None for H.
      kernel_init: initializer of D [F, H], of the real and the imaginary part of C [N, H], and,
        divided by the square root of 2, of B's [F, N].
      min_radius, max_radius, max_phase: lambda starts uniformly distributed over the part of the
        ring between these radii with phases from 0 to `max_phase`: lemma 3.2 of the paper. gamma
        starts at sqrt(1 - |lambda|^2), which keeps the states' size that of the inputs. For tasks
        that need long memory the paper raises `min_radius` and lowers `max_phase`.

    >>> cell = LRUCell(4, state_size=6, min_radius=0.9)
    >>> inputs = jnp.ones((2, 3))  # [B, F]
    >>> carry = cell.initialize_carry(None, inputs.shape)
    >>> (carry, outputs), variables = cell.init_with_output(jax.random.key(0), carry, inputs)
    >>> outputs.shape, carry.re.shape
    ((2, 4), (2, 6))
    """

    kernel_init: str | Initializer = "lecun_normal"
    state_size: int | None = None
    min_radius: float = 0.0
    max_radius: float = 1.0
    max_phase: float = 2 * math.pi

    def __post_init__(self) -> None:
        """Check the options."""
        if not 0 <= self.min_radius < self.max_radius <= 1:
            raise ValueError(
                "min_radius and max_radius must be from 0 to 1, the smaller first, not"
                f" {self.min_radius!r} and {self.max_radius!r}"
            )
        if not 0 < self.max_phase < math.inf:
            raise ValueError(f"max_phase must be a positive finite number, not {self.max_phase!r}")
        size = self.state_size
        if size is not None and not (type(size) is int and size > 0):
            raise ValueError(f"state_size must be a whole number from 1 or None, not {size!r}")
        super().__post_init__()

    @property
    def _states(self) -> int:
        return self.state_size or self.features

    def setup(self) -> None:
        """Make the parameters."""
        shape = (self._states,)
        self.nu_log = self.param("nu_log", self._init_nu, shape, self.param_dtype)
        self.theta_log = self.param("theta_log", self._init_theta, shape, self.param_dtype)
        self.gamma_log = self.param("gamma_log", _init_gamma, self.nu_log)

        def matrix(size: int, init: Initializer) -> nn.Dense:
            return self._dense(None, features=size, use_bias=False, kernel_init=init)

        init = initializer(self.kernel_init)
        self.ib_re, self.ib_im = (matrix(self._states, self._init_b) for _ in range(2))
        self.c_re, self.c_im = (matrix(self.features, init) for _ in range(2))
        self.id = matrix(self.features, init)

    def coefficients(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Inputs [..., F] -> decay lambda [..., N], drive gamma * B x [..., N], both complex."""
        wide = at_least_32_bits(self.param_dtype)  # the state's; 16 bits round a decay to 1
        nu_log, theta_log = self.nu_log.astype(wide), self.theta_log.astype(wide)
        size, phase = jnp.exp(-jnp.exp(nu_log)), jnp.exp(theta_log)
        decay = _complex(size * jnp.cos(phase), size * jnp.sin(phase))
        re, im, gamma = promote(self.ib_re(inputs), self.ib_im(inputs), jnp.exp(self.gamma_log))
        gamma = jnp.expand_dims(gamma, range(re.ndim - 1))
        drive = _complex(gamma * re, gamma * im)
        return jnp.broadcast_to(decay, drive.shape), drive

    def read_out(self, states: jax.Array, inputs: jax.Array) -> jax.Array:
        """States [..., N], complex, inputs [..., F] -> outputs Re(C s) + D x [..., H]."""
        self._sow(re=states.real, im=states.imag)
        with jax.numpy_dtype_promotion("standard"):  # Flax needs it: states have 32 bits or more
            re, im = self.c_re(states.real), self.c_im(states.imag)
        re, im, direct = promote(re, im, self.id(inputs))
        return re - im + direct

    @nn.nowrap
    def to_state(self, carry: LRUCarry) -> jax.Array:
        """The complex state [B, N]."""
        return _complex(carry.re, carry.im)

    @nn.nowrap
    def to_carry(self, state: jax.Array) -> LRUCarry:
        """The state's two parts; rounded if the carry has 16 bits, as no complex type has."""
        narrow = jnp.dtype(self.param_dtype).itemsize < 4
        dtype = self.param_dtype if narrow else state.real.dtype
        return LRUCarry(state.real.astype(dtype), state.imag.astype(dtype))

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array | None, input_shape: tuple[int, ...]) -> LRUCarry:
        """The initial carry, zeros [..., N] each, for inputs of shape [..., F]."""
        del rng
        zeros = jnp.zeros((*input_shape[:-1], self._states), self.param_dtype)
        return LRUCarry(zeros, zeros)

    def _init_nu(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        """log(-log|lambda|), with |lambda|^2 uniform: so is lambda over the ring's area."""
        low, high = self.min_radius**2, self.max_radius**2
        wide = at_least_32_bits(dtype)
        u = _positive_uniform(key, shape, wide)
        below_1 = 1 - jnp.finfo(wide).epsneg  # rounded to 1, its logarithm would be 0
        squared = jnp.minimum(u * (high - low) + low, below_1)
        return jnp.log(-0.5 * jnp.log(squared)).astype(dtype)

    def _init_theta(self, key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        u = _positive_uniform(key, shape, at_least_32_bits(dtype))
        return jnp.log(self.max_phase * u).astype(dtype)

    def _init_b(
        self, key: jax.Array, shape: Any, dtype: Any = None, out_sharding: Any = None
    ) -> jax.Array:
        return initializer(self.kernel_init)(key, shape, dtype, out_sharding) * 0.5**0.5


def _init_gamma(key: jax.Array, nu_log: jax.Array) -> jax.Array:
    """log(sqrt(1 - |lambda|^2)), exact also for |lambda| near 1."""
    del key
    wide = nu_log.astype(at_least_32_bits(nu_log.dtype))
    return (0.5 * jnp.log(-jnp.expm1(-2 * jnp.exp(wide)))).astype(nu_log.dtype)


def _positive_uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Uniform from 0 to 1, without 0, whose logarithm is infinite."""
    return jax.random.uniform(key, shape, dtype, minval=jnp.finfo(dtype).tiny)


def _complex(re: jax.Array, im: jax.Array) -> jax.Array:
    """A complex array of at least 2x32 bits, the fewest there are."""
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.promote_types(re.dtype, jnp.float32)
    return jax.lax.complex(re.astype(dtype), im.astype(dtype))
