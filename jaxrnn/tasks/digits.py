"""Handwritten digits of 8x8 pixels as sequences: row by row, or pixel by pixel."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from jaxrnn.checks import check_seeds
from jaxrnn.choices import check_choice
from jaxrnn.errors import RunError
from jaxrnn.package_data import package_file
from jaxrnn.tasks.classification import (
    Classification,
    Examples,
    check_examples,
    permutation,
)

NUM_TRAIN = 1437  # of 1797, as near to 80% as possible


@dataclass(frozen=True)
class Digits(Classification):
    """Name the digit of an 8x8 image that is read as a sequence, from scikit-learn's wheel.

    `pip install 'jaxrnn[data]'` installs it. The first 1437 images of the file are for training,
    the last 360 for testing. The images are grouped by writer, so most of the test set's writers
    are new. Pixels, from 0 to 16, are divided by 16.

    Source: Alpaydin and Kaynak (1998), "Optical recognition of handwritten digits", UCI machine
    learning repository, CC BY 4.0. As sequences, after Le, Jaitly and Hinton (2015), section 4.2,
    who read MNIST pixel by pixel, also in a fixed random order.

    Attributes:
      view: "rows" for T=8, F=8; "pixels" for T=64, F=1.
      permutation_seed: put the steps in a fixed random order, the same for all images; None for
        their own.

    Raises:
      SettingError: if a setting is out of range.

    An image of a one, drawn here instead of read from the file, as it would be in a batch:

    >>> import jax
    >>> rows = "...#.... ..##.... .#.#.... ...#.... ...#.... ...#.... ...#.... ..###..."
    >>> image = np.array([[pixel == "#" for pixel in row] for row in rows.split()], np.float32)
    >>> part = Examples(image[None], np.array([1]))
    >>> batch = Digits(batch_size=1).sample_batch(jax.random.key(0), 0, (part, part))
    >>> print(batch.inputs[0, :3].astype(int), batch.targets[0])  # the first 3 of T=8 steps
    [[0 0 0 1 0 0 0 0]
     [0 0 1 1 0 0 0 0]
     [0 1 0 1 0 0 0 0]] [1]
    """

    view: Literal["rows", "pixels"] = "rows"
    permutation_seed: int | None = None

    output_size = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seeds(self, "permutation_seed")
        check_choice("view", self.view, ("rows", "pixels"))

    @property
    def files(self) -> tuple[Path, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The file of scikit-learn.

        Raises:
          RunError: if it is not there.
        """
        missing = "scikit-learn is not installed: pip install 'jaxrnn[data]'"
        return (package_file("sklearn", "datasets/data/digits.csv.gz", missing),)

    def load(self) -> tuple[Examples, Examples]:
        """The training set and the test set.

        Raises:
          RunError: if the file is not the expected one.
          OSError: if it cannot be read.
        """
        [file] = self.files
        try:
            table = np.loadtxt(file, delimiter=",")  # [N, 65], the last column is the digit
            labels = table[:, 64].astype(int)
            images = table[:, :64].reshape(-1, *((8, 8) if self.view == "rows" else (64, 1))) / 16
        except (ValueError, IndexError, EOFError) as error:
            raise RunError(f"{file} does not have rows of 64 pixels and a digit") from error
        if self.permutation_seed is not None:
            images = images[:, permutation(self.permutation_seed, images.shape[1])]
        whole = check_examples(str(file), Examples(images, labels), 10)
        if len(labels) <= NUM_TRAIN:
            raise RunError(f"{file} has {len(labels)} images, which is not more than {NUM_TRAIN}")
        return (
            Examples(whole.inputs[:NUM_TRAIN], whole.labels[:NUM_TRAIN]),
            Examples(whole.inputs[NUM_TRAIN:], whole.labels[NUM_TRAIN:]),
        )
