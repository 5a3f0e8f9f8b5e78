"""Weight initializers, by name."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import initializers
from jax.nn.initializers import Initializer

from jaxrnn.choices import check_choice


def _identity(key: jax.Array, shape: Any, dtype: Any = None, out_sharding: Any = None) -> jax.Array:
    """Ones on the diagonal. The other arguments are what JAX passes to any initializer."""
    del key, out_sharding
    return jnp.eye(*shape, dtype=dtype)


INITIALIZERS: dict[str, Initializer] = {
    "glorot_uniform": initializers.glorot_uniform(),  # Glorot and Bengio (2010), eq. 16
    "glorot_normal": initializers.glorot_normal(),
    "lecun_uniform": initializers.lecun_uniform(),  # LeCun et al. (1998), section 4.6
    "lecun_normal": initializers.lecun_normal(),
    "he_uniform": initializers.he_uniform(),  # He et al. (2015), section 2.2
    "he_normal": initializers.he_normal(),
    "orthogonal": initializers.orthogonal(),  # Saxe et al. (2014)
    "identity": _identity,  # Le, Jaitly and Hinton (2015), the recurrent weights
    "normal_0.001": initializers.normal(0.001),  # the same paper, the input weights
    "uniform_0_1": initializers.uniform(1.0),  # Li et al. (2018), the recurrent weights
    "zeros": initializers.zeros,
}
"""Initializers by name. Cells with the same name are equal, so JAX compiles them only once."""


def initializer(choice: str | Initializer) -> Initializer:
    """Look up an initializer by name; a function is returned unchanged.

    Args:
      choice: a key of `INITIALIZERS`, or a function `(key, shape, dtype) -> array`.

    Returns:
      the initializer.

    Raises:
      ValueError: if the name is unknown.

    >>> initializer("identity")(jax.random.key(0), (2, 2), jnp.int32).tolist()
    [[1, 0], [0, 1]]
    """
    if not isinstance(choice, str):
        return choice
    check_choice("initializer", choice, INITIALIZERS)
    return INITIALIZERS[choice]
