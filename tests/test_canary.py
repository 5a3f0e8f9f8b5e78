"""A canary for compilers that give wrong numbers: it died of jaxlib 0.10.2 on the CPU."""

import jax
import jax.numpy as jnp
import numpy as np


def test_jit_agrees_with_eager():
    """jax issue 39103: the last of 32769 rows came out as 1071645696."""
    index = jnp.arange(32769, dtype=jnp.float32)
    rows = jnp.stack((index, jnp.zeros_like(index), jnp.zeros_like(index)), axis=1)
    matrix = jnp.eye(3)

    def squares(rows):
        return jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2))(rows)

    expected = np.arange(32769, dtype=np.float32) ** 2
    np.testing.assert_array_equal(squares(rows), expected)
    np.testing.assert_array_equal(jax.jit(squares)(rows), expected)
