"""Every random number of a run comes from one seed, through named keys.

    seed -> root key -> child keys ("init", "data", ...) -> the key of step n

The key of step n is folded from its number, never split off a key that was stored: a run that
resumes at step n draws what it would have drawn.
"""

import jax

STREAMS = ("init", "data", "dropout", "sample")
"""The names of the child keys. Append only: a name's position decides the numbers it draws."""

MAX_SEED = 2**32 - 1
"""The largest seed. JAX drops the higher bits of a larger one, so two seeds would share a run."""


def root_key(seed: jax.typing.ArrayLike) -> jax.Array:
    """The root key of a run: Threefry, whatever JAX's default generator is set to.

    Args:
      seed: [] int in 0..MAX_SEED.

    Returns:
      [] PRNG key.
    """
    return jax.random.key(seed, impl="threefry2x32")


def child_key(root: jax.Array, stream: str) -> jax.Array:
    """The key of one of a run's named streams of randomness.

    Args:
      root: [] PRNG key, from `root_key`.
      stream: one of `STREAMS`.

    Returns:
      [] PRNG key.

    Raises:
      ValueError: if `stream` is not in `STREAMS`.
    """
    if stream not in STREAMS:
        raise ValueError(f"no stream {stream!r}; there are {', '.join(STREAMS)}")
    return jax.random.fold_in(root, STREAMS.index(stream))
