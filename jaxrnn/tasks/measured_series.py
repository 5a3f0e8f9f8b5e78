"""Forecast a measured series from a file, such as sunspots or the intensity of a laser."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.errors import RunError
from jaxrnn.package_data import package_file
from jaxrnn.tasks.forecasting import Forecasting
from jaxrnn.text.corpus import check_fractions
from jaxrnn.types import Arrays, Batch

BUNDLED = {
    "sunspots": ("statsmodels", "datasets/sunspots/sunspots.csv"),
    "laser": ("reservoirpy", "datasets/santafe_laser.npy"),
}
"""Series that come with a package: its name, and the file in it.

sunspots: the yearly sunspot numbers of 1700 to 2008, public domain.
laser: 10,093 intensities of a far-infrared laser in a chaotic state, data set A of the Santa Fe
competition (Weigend and Gershenfeld 1994) with its continuation.
"""


@dataclass(frozen=True)
class MeasuredSeries(Forecasting):
    r"""Windows of one series, split in time: the training part, then the validation part.

    A training window starts at a random place. In validation, each value of the validation part is
    predicted exactly once, from at least `warmup` values before it; the first ones come from the
    training part. The series is standardized by the mean and standard deviation of the training
    part, so that predicting its mean has an RMSE of 1 there.

    Attributes:
      file: a .npy file with [N] or [N, 1] numbers, or text with a number in each line, after the
        last comma if there are any; the first line may be a header.
      val_fraction: the fraction of the series, at its end, to validate on; 0 for none.

    Raises:
      SettingError: if a setting is out of range.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "years.csv"
    >>> _ = file.write_text("year,count\n" + "".join(f"{n},{n % 7}\n" for n in range(1900, 2000)))
    >>> task = MeasuredSeries(file=file, sequence_length=10, warmup=5)
    >>> task.values.shape, task.num_training
    ((100,), 80)
    >>> task.validation_batch(jnp.int32(0), task.arrays()).targets.shape  # 20 values, 5 in a row
    (4, 10)
    """

    file: Path = field(kw_only=True)
    val_fraction: float = 0.2

    def __post_init__(self) -> None:
        check_fractions(self.val_fraction, 0.0)
        super().__post_init__()

    @property
    def files(self) -> tuple[Path, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The file."""
        return (self.file,)

    @cached_property
    def values(self) -> np.ndarray:
        """The numbers of the file, [N] float64.

        Raises:
          RunError: if they cannot be used.
          OSError: if the file cannot be read.
        """
        values = read(self.file)
        train = len(values) - round(self.val_fraction * len(values))
        needed = self.sequence_length + self.horizon
        if train < needed:
            raise RunError(
                f"the training part of {self.file} has {train} values, but one window needs"
                f" {needed}: use a shorter sequence length"
            )
        if not values[:train].std() > 0:
            raise RunError(f"the training part of {self.file} is constant: nothing to forecast")
        return values

    @property
    def num_training(self) -> int:
        """How many values the training part has."""
        return len(self.values) - round(self.val_fraction * len(self.values))

    def arrays(self) -> Arrays:
        """The standardized values: of training [M], and all of them [N]."""
        train = self.values[: self.num_training]
        values = ((self.values - train.mean()) / train.std()).astype(np.float32)
        return {"train": values[: len(train)], "all": values}

    def sample_batch(
        self, key: jax.Array, step: jax.typing.ArrayLike, arrays: Arrays = None
    ) -> Batch:
        """Inputs [B, T, 1], targets [B, T] and weights [B, T]: windows at random places."""
        del step
        length = self.sequence_length + self.horizon
        last = arrays["train"].size - length
        starts = jax.random.randint(key, (self.batch_size,), 0, last + 1)
        window = lambda start: jax.lax.dynamic_slice_in_dim(arrays["train"], start, length)  # noqa: E731
        return self.windows(jax.vmap(window)(starts))

    def num_validation_batches(self, arrays: Arrays) -> int:
        """One, if there is a validation part."""
        return int(arrays["all"].size > arrays["train"].size)

    def validation_batch(self, n: jax.Array, arrays: Arrays) -> Batch:
        """All of the validation part: each row scores the next T - warmup values of it."""
        del n
        series, train = arrays["all"], arrays["train"].size
        scored = self.sequence_length - self.warmup
        rows = -(-(series.size - train) // scored)
        start = train + scored * jnp.arange(rows)[:, None] - self.warmup - self.horizon  # [rows, 1]
        place = start + jnp.arange(self.sequence_length + self.horizon)[None]
        batch = self.windows(jnp.take(series, place, mode="clip"))
        exists = place[:, self.horizon :] < series.size
        return batch._replace(weights=jnp.where(exists, batch.weights, 0.0))

    def solved(self, metrics: dict) -> None:
        """None: nobody knows how well a measured series can be predicted."""
        del metrics

    def format_loss(self, validation_loss: float) -> str:
        """The RMSE, in standard deviations and in the file's unit."""
        rmse, unit = math.sqrt(validation_loss), self.values[: self.num_training].std()
        return f" (RMSE {rmse:.4g} standard deviations, {rmse * unit:.4g} in the file's unit)"


def bundled(name: str) -> Path:
    """The file of a series that comes with a package; the package is not imported.

    Args:
      name: "sunspots" or "laser".

    Raises:
      RunError: if the package is not installed, or no longer has the file.
    """
    package, inside = BUNDLED[name]
    missing = f"{name} comes with the package {package}: pip install {package}, or jaxrnn[series]"
    return package_file(package, inside, missing)


def read(file: Path) -> np.ndarray:
    """Read a series: see `MeasuredSeries.file`.

    Returns:
      [N] float64.

    Raises:
      RunError: if the file has something else than numbers, or is empty.
      OSError: if it cannot be read.
    """
    values = _read_npy(file) if file.suffix == ".npy" else _read_text(file)
    if not values.size:
        raise RunError(f"{file} has no numbers")
    if wrong := np.flatnonzero(~np.isfinite(values)).tolist():
        raise RunError(f"number {wrong[0] + 1} of {file} is not finite")
    return values


def _read_npy(file: Path) -> np.ndarray:
    try:
        array = np.load(file, allow_pickle=False)
        values = np.asarray(array, np.float64)
    except (ValueError, TypeError, EOFError) as error:
        raise RunError(f"{file} is not a .npy file with numbers") from error
    if values.size != max(values.shape, default=0):
        raise RunError(
            f"{file} must have one series, [N] or [N, 1], but its shape is {values.shape}"
        )
    return values.reshape(-1)


def _read_text(file: Path) -> np.ndarray:
    try:
        lines = file.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        raise RunError(f"{file} is neither text in UTF-8 nor a .npy file") from None
    numbers = []
    for n, line in enumerate(lines, 1):
        word = line.rpartition(",")[2].strip()
        try:
            numbers.append(float(word))
        except ValueError:
            if word and n > 1:  # the first line may be a header, and others empty
                raise RunError(f"line {n} of {file} ends in {word[:20]!r}, not a number") from None
    return np.array(numbers)
