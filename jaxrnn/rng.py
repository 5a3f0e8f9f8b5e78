"""Every random number of a run comes from one seed, through named keys.

    seed -> root key -> child keys ("init", "data", "dropout", "sample") -> the key of step n

The key of step n is `jax.random.fold_in(child, n)`. No key is stored or split off another one, so
a run resumed at step n draws the same numbers as one that was never interrupted. Generated
validation sets have keys of their own, the same for every seed: `validation_key`.
"""

import jax

STREAMS = ("init", "data", "dropout", "sample", "validation")
"""The names of the child keys. Append only: a name's position determines its random numbers."""

MAX_SEED = 2**32 - 1
"""The largest seed. JAX ignores higher bits, so larger seeds would repeat smaller ones."""


def root_key(seed: jax.typing.ArrayLike) -> jax.Array:
    """The root key of a run. It is always a Threefry key, whatever JAX's default generator is.

    Args:
      seed: [] int in 0..MAX_SEED.

    Returns:
      [] PRNG key.
    """
    return jax.random.key(seed, impl="threefry2x32")


def child_key(root: jax.Array, stream: str) -> jax.Array:
    """The key for one named use of randomness.

    Args:
      root: [] PRNG key, from `root_key`.
      stream: "init" for parameters, "data" for batches, "dropout", "sample" or "validation".

    Returns:
      [] PRNG key.

    Raises:
      ValueError: if `stream` is not in `STREAMS`.

    >>> data_key = child_key(root_key(0), "data")
    >>> step_key = jax.random.fold_in(data_key, 100)
    """
    if stream not in STREAMS:
        raise ValueError(f"unknown stream {stream!r}; choose from {', '.join(STREAMS)}")
    return jax.random.fold_in(root, STREAMS.index(stream))


def validation_key(n: jax.typing.ArrayLike) -> jax.Array:
    """The key of batch n of a generated validation set. It depends on no seed.

    Args:
      n: [] int.

    Returns:
      [] PRNG key, different from the keys of all training batches.
    """
    return jax.random.fold_in(child_key(root_key(0), "validation"), n)
