"""Sequences with labels from a file, such as the published MNIST-1D set."""

import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from jaxrnn.checks import check_seeds
from jaxrnn.errors import RunError
from jaxrnn.losses import entropy
from jaxrnn.tasks.classification import (
    Classification,
    Examples,
    check_examples,
    permutation,
)

NAMES = ("x", "y", "x_test", "y_test")


@dataclass(frozen=True)
class LabelledFile(Classification):
    """Name the class of each sequence of a file.

    Attributes:
      file: an .npz file with the arrays `x` [N, T] or [N, T, F] and `y` [N], whole numbers from 0,
        for training, and `x_test` and `y_test` for testing.
      permutation_seed: put the steps in a fixed random order, the same for all examples; None for
        their own.

    Raises:
      SettingError: if a setting is out of range.

    >>> import tempfile
    >>> import jax
    >>> file = Path(tempfile.mkdtemp()) / "signs.npz"
    >>> x = np.array([[1.0, 2.0], [-1.0, -2.0], [3.0, 4.0]])
    >>> np.savez(file, x=x, y=[1, 0, 1], x_test=-x, y_test=[0, 1, 0])
    >>> task = LabelledFile(batch_size=2, order="sequential", file=file)
    >>> batch = task.sample_batch(jax.random.key(0), 1, task.arrays())
    >>> batch.inputs[..., 0].tolist(), batch.targets.tolist(), task.output_size
    ([[3.0, 4.0], [1.0, 2.0]], [[1], [1]], 2)
    >>> round(task.memoryless_loss, 4)  # ln 3 - 2/3 ln 2
    0.6365
    """

    file: Path = field(kw_only=True)
    permutation_seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seeds(self, "permutation_seed")

    @property
    def files(self) -> tuple[Path, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The file."""
        return (self.file,)

    @property
    def output_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """V, one more than the largest label of the training set."""
        return int(self._arrays_of_file["y"].max()) + 1

    @property
    def memoryless_loss(self) -> float:
        """Nats of always predicting the frequencies of the training labels: their entropy."""
        train, _ = self.arrays()
        return entropy(np.bincount(train.labels))

    @cached_property
    def _arrays_of_file(self) -> dict[str, np.ndarray]:
        try:
            with self.file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                found = {name: archive[name] for name in NAMES}
        except (ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile):
            raise RunError(
                f"{self.file} must be an .npz file with the arrays {', '.join(NAMES)}"
            ) from None
        if not found["y"].size or not np.issubdtype(found["y"].dtype, np.integer):
            raise RunError(f"{self.file}: y must have whole numbers from 0 as labels")
        return found

    def load(self) -> tuple[Examples, Examples]:
        """The training set and the test set.

        Raises:
          RunError: if the file is no such .npz file, or its arrays do not fit each other.
          OSError: if it cannot be read.
        """
        train, test = (self._part(*names) for names in (NAMES[:2], NAMES[2:]))
        if train.inputs.shape[1:] != test.inputs.shape[1:]:
            raise RunError(f"{self.file}: x and x_test differ in [T, F]")
        return train, test

    def _part(self, x: str, y: str) -> Examples:
        inputs, labels = self._arrays_of_file[x], self._arrays_of_file[y]
        if not np.issubdtype(inputs.dtype, np.number) or np.iscomplexobj(inputs):
            raise RunError(f"{self.file}: {x} must have real numbers")
        inputs = inputs[..., None] if inputs.ndim == 2 else inputs
        name = f"{self.file}, {x} and {y},"
        checked = check_examples(name, Examples(inputs, labels), self.output_size)
        if self.permutation_seed is None:
            return checked
        order = permutation(self.permutation_seed, checked.inputs.shape[1])
        return checked._replace(inputs=checked.inputs[:, order])
