"""Arrays of several dtypes in one equation, such as gates in bfloat16 and a float32 carry."""

import jax
import jax.numpy as jnp


def promote(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Cast arrays to the dtype that JAX's operators promote them to.

    So an equation of several dtypes also works with `jax_numpy_dtype_promotion="strict"`.

    >>> gate, state = promote(jnp.ones(2, jnp.bfloat16), jnp.ones(2, jnp.float32))
    >>> gate.dtype.name, state.dtype.name
    ('float32', 'float32')
    """
    with jax.numpy_dtype_promotion("standard"):  # "strict" knows no common dtype
        dtype = jnp.result_type(*arrays)
    return tuple(array.astype(dtype) for array in arrays)
