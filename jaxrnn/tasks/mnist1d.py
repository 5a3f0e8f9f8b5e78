"""MNIST-1D: ten shapes of 12 points, moved, stretched and hidden in noise."""

from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import check_counts, check_seeds
from jaxrnn.errors import SettingError
from jaxrnn.rng import child_key, root_key
from jaxrnn.tasks.classification import (
    Classification,
    Examples,
    permutation,
)
from jaxrnn.types import Arrays, Batch

STEPS = 40  # T
CANVAS = 72  # points before subsampling: a template of 12 and up to 60 of padding
TEMPLATES = np.array(
    [
        [5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5],
        [5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5],
        [5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5],
        [5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5],
        [5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5],
        [5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5],
        [5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5],
        [5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5],
        [5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5],
    ]
)
"""The shapes of the digits 0 to 9: the published `mnist1d.data.get_templates`."""

MEAN, STD = -0.0060, 0.1547
"""Of all points before standardizing, over 200,000 examples; the published set: 0.1547."""


@dataclass(frozen=True)
class MNIST1D(Classification):
    """Name the digit, of ten, whose shape is hidden in a sequence of 40 numbers; T=40, F=1.

    The published procedure makes an example from a template in these steps. Pad it with p zeros,
    p uniform in 36..60, and stretch it to 72 points by linear interpolation. Multiply by
    1 + 0.4 u, and rotate by up to 47 points. Replace the padding by Gaussian noise of standard
    deviation 0.25, smoothed by a Gaussian of width 2 points; add Gaussian noise of 0.02 everywhere.
    Subtract a line of slope 0.75 u from -1/2 to 1/2. Subsample to 40 points by linear
    interpolation. Each u is uniform in [-1/2, 1/2). Templates are standardized, then moved to
    start at 0 and divided by 6.

    Example i is a pure function of `set_seed` and i, made inside the compiled program: a set needs
    no memory. Examples 0 to train_size - 1 are the training set, the next ones the test set. The
    digit of example i is i modulo 10. The published set is shuffled, standardized by its own mean
    and standard deviation, and split after that; here these are those of the distribution.

    Source: Greydanus and Kobak (2024), "Scaling down deep learning with MNIST-1D", ICML; and the
    authors' code, github.com/greydanus/mnist1d. Its published accuracy: logistic regression 32%,
    multilayer perceptron 68%, GRU 91%, convolutions 94%, people 96%. `LabelledFile` reads the
    published set from a file.

    Attributes:
      train_size: the size of the training set; None to draw new examples for every batch.
      test_size: the size of the test set.
      set_seed: another number makes other sets.
      permutation_seed: put the steps in a fixed random order, the same for all examples; None for
        their own.

    Raises:
      SettingError: if a setting is out of range.

    >>> batch = jax.jit(MNIST1D(batch_size=1).sample_batch)(jax.random.key(0), 0)
    >>> print(np.asarray(batch.inputs[0, :, 0]).round(1), batch.targets[0])
    [-1.2 -0.9 -0.1 -0.1 -0.1  0.   0.5  0.3  0.3  0.1 -0.3  0.2  0.3  0.3
      0.1 -0.3 -0.8 -1.  -0.6  0.1 -0.3 -0.6  0.3 -2.  -2.2 -0.9 -0.1  0.1
     -0.7 -0.4 -0.2 -0.4  0.   0.6  0.6  0.2 -0.2 -0.6 -0.2  0.1] [9]
    """

    train_size: int | None = 4000
    test_size: int = 1000
    set_seed: int = 0
    permutation_seed: int | None = None

    output_size = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "test_size", *(["train_size"] if self.train_size is not None else []))
        check_seeds(self, "set_seed", "permutation_seed")
        if self.train_size is None and self.order == "sequential":
            raise SettingError(
                "order sequential needs a training set, but every batch has new examples"
            )

    def arrays(self) -> Arrays:
        """None: the examples are generated."""
        return None

    def sizes(self, arrays: Arrays) -> tuple[int, int]:
        """The number of sequences in the training set and in the test set."""
        return self.train_size or 0, self.test_size

    def take(self, part: int, ids: jax.Array, arrays: Arrays) -> Examples:
        """The sequences ids [B] of the training set (part 0) or the test set (part 1)."""
        ids = ids + part * (self.train_size or 0)
        key = child_key(root_key(self.set_seed), "validation")
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, ids)
        return self._examples(keys, ids % 10)

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """Inputs [B, 40, 1], targets [B, 1], weights [B, 1]."""
        if self.train_size is not None:
            return super().sample_batch(key, step, arrays)
        k_digits, k_examples = jax.random.split(key)
        digits = jax.random.randint(k_digits, (self.batch_size,), 0, 10, jnp.int32)
        inputs, labels, _ = self._examples(jax.random.split(k_examples, self.batch_size), digits)
        return Batch(inputs, labels[:, None], jnp.ones((self.batch_size, 1), jnp.float32))

    def _examples(self, keys: jax.Array, digits: jax.Array) -> Examples:
        inputs = jax.vmap(make_example)(keys, digits)[..., None]  # [B, T, 1]
        if self.permutation_seed is not None:
            inputs = inputs[:, permutation(self.permutation_seed, STEPS)]
        return Examples(inputs, digits.astype(jnp.int32))


def make_example(key: jax.Array, digit: jax.Array) -> jax.Array:
    """One example [40] of a digit [], standardized."""
    k_padding, k_scale, k_shift, k_smooth, k_noise, k_shear = jax.random.split(key, 6)
    templates, smoothing, subsampling = map(jnp.asarray, _constants())
    points = jnp.arange(CANVAS, dtype=jnp.float32)

    size = 12 + jax.random.randint(k_padding, (), 36, 61, jnp.int32).astype(jnp.float32)
    places = points * (size - 1) / (CANVAS - 1)  # in the padded template
    shape = jnp.interp(places, points[:12], templates[digit], right=0.0)  # both ends are 0
    shape *= 1 + 0.4 * _centered(k_scale)
    smooth = smoothing @ (0.25 * jax.random.normal(k_smooth, (CANVAS,), jnp.float32))
    shift = jax.random.randint(k_shift, (), 0, 48, jnp.int32)
    inside = jnp.roll(places < 12, shift)  # where the template, or its line down to 0, is
    signal = jnp.where(inside, jnp.roll(shape, shift), smooth)
    signal += 0.02 * jax.random.normal(k_noise, (CANVAS,), jnp.float32)
    signal -= 0.75 * _centered(k_shear) * (points / (CANVAS - 1) - 0.5)
    return (subsampling @ signal - MEAN) / STD


def _centered(key: jax.Array) -> jax.Array:
    """A number [] uniform in [-1/2, 1/2)."""
    return jax.random.uniform(key, (), jnp.float32, -0.5, 0.5)


@cache
def _constants() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The templates [10, 12], and the matrices that smooth [72, 72] and subsample [40, 72]."""
    shapes = TEMPLATES - TEMPLATES.mean(axis=1, keepdims=True)
    shapes /= shapes.std(axis=1, keepdims=True)
    shapes = (shapes - shapes[:, :1]) / 6
    reach = np.arange(-8, 9)  # four standard deviations of 2
    kernel = np.exp(-(reach**2) / 8)
    kernel /= kernel.sum()
    padded = np.pad(np.eye(CANVAS), ((8, 8), (0, 0)), mode="symmetric")  # reflect at the edges
    shifted = [w * padded[8 + r :][:CANVAS] for w, r in zip(kernel, reach, strict=True)]
    smoothing = np.sum(shifted, axis=0)
    places, points = np.linspace(0, CANVAS - 1, STEPS), np.arange(CANVAS)
    subsampling = np.stack([np.interp(places, points, row) for row in np.eye(CANVAS)], axis=1)
    return shapes.astype(np.float32), smoothing.astype(np.float32), subsampling.astype(np.float32)
