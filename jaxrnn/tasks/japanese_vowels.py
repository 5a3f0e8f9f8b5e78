"""Japanese Vowels: name the speaker, of nine, of a short utterance."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxrnn.errors import RunError
from jaxrnn.package_data import package_file
from jaxrnn.tasks.classification import Classification, Examples, check_examples

STEPS, FEATURES, SPEAKERS = 29, 12, 9
PARTS = ("JapaneseVowels_TRAIN.ts", "JapaneseVowels_TEST.ts")


@dataclass(frozen=True)
class JapaneseVowels(Classification):
    r"""Twelve cepstral coefficients of each of 7 to 29 frames of the vowels /ae/; T=29, F=12.

    Nine men spoke them: 30 utterances of each for training, and 370 for testing, 24 to 88 of each.
    Shorter utterances are padded with zeros at the end, and batches have `lengths`.

    The files come with the wheel of aeon (`pip install 'jaxrnn[data]'`), or from a folder.

    Source: Kudo, Toyama and Shimbo (1999), "Multidimensional curve classification using
    passing-through regions", Pattern Recognition Letters 20; UCI machine learning repository,
    CC BY 4.0.

    Attributes:
      folder: with JapaneseVowels_TRAIN.ts and JapaneseVowels_TEST.ts; None for aeon's.

    Raises:
      SettingError: if a setting is out of range.

    Two short utterances in files of the same form, of speakers 3 and 9:

    >>> import tempfile
    >>> import jax
    >>> folder = Path(tempfile.mkdtemp())
    >>> lines = "@data", ":".join(["0.5,0.6"] * 12 + ["3"]), ":".join(["1.5,1.6,1.7"] * 12 + ["9"])
    >>> for name in PARTS:
    ...     _ = (folder / name).write_text("\n".join(lines))
    >>> task = JapaneseVowels(batch_size=2, order="sequential", folder=folder)
    >>> batch = task.sample_batch(jax.random.key(0), 0, task.arrays())
    >>> print(batch.inputs[:, :4, 0])  # the first coefficient in the first 4 of T=29 steps
    [[0.5 0.6 0.  0. ]
     [1.5 1.6 1.7 0. ]]
    >>> batch.lengths.tolist(), batch.targets.tolist()
    ([2, 3], [[2], [8]])
    """

    folder: Path | None = None

    output_size = SPEAKERS
    target_accuracy = 0.95
    length_groups = (10, 15, 20, 25, STEPS)

    @property
    def files(self) -> tuple[Path, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The two files.

        Raises:
          RunError: if they should come from aeon, but are not there.
        """
        if self.folder is not None:
            return tuple(self.folder / name for name in PARTS)
        inside = "datasets/data/JapaneseVowels/"
        missing = "aeon is not installed: pip install 'jaxrnn[data]'"
        return tuple(package_file("aeon", inside + name, missing) for name in PARTS)

    def load(self) -> tuple[Examples, Examples]:
        """The training set and the test set.

        Raises:
          RunError: if a file is not as expected.
          OSError: if it cannot be read.
        """
        train, test = (read_ts(file, STEPS, FEATURES, SPEAKERS) for file in self.files)
        return train, test


def read_ts(file: Path, steps: int, features: int, classes: int) -> Examples:
    """Read sequences in the .ts format of the UEA archive (timeseriesclassification.com).

    After a line `@data`, each line is a sequence: its features, separated by colons, each a list of
    numbers separated by commas; then the label, a whole number from 1.

    Args:
      file: the file.
      steps: T, the most steps of a sequence; shorter ones are padded with zeros.
      features: F.
      classes: V; the labels are 1 to V in the file, and 0 to V - 1 here.

    Raises:
      RunError: if a line is not of that form.
      OSError: if the file cannot be read.
    """
    try:
        lines = file.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        raise RunError(f"{file} is not a .ts file: it is not UTF-8") from None
    heads = [n for n, line in enumerate(lines) if line.strip().lower() == "@data"]
    if not heads:
        raise RunError(f"{file} is not a .ts file: it has no line @data")
    inputs, labels, lengths = [], [], []
    for n, line in enumerate(lines[heads[0] + 1 :], heads[0] + 2):
        if not line.strip():
            continue
        *columns, label = line.split(":")
        try:
            rows = np.array([column.split(",") for column in columns], np.float32)  # [F, length]
            labels.append(int(label) - 1)
        except ValueError:
            raise RunError(f"{file}, line {n}, is not a sequence and its label") from None
        if rows.ndim != 2 or len(rows) != features or not 0 < rows.shape[1] <= steps:
            raise RunError(f"{file}, line {n}, must have {features} features of 1 to {steps} steps")
        inputs.append(np.pad(rows.T, ((0, steps - rows.shape[1]), (0, 0))))
        lengths.append(rows.shape[1])
    if not inputs:
        raise RunError(f"{file} has no sequences")
    found = Examples(np.stack(inputs), np.array(labels), np.array(lengths, np.int32))
    return check_examples(str(file), found, classes)
