"""Dates in several formats, to be written in the format of ISO 8601."""

import datetime
import math
import string
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import check_counts
from jaxrnn.errors import SettingError
from jaxrnn.tasks.sequence_to_sequence.base import END, SequenceToSequence, digits, left_align
from jaxrnn.types import Arrays

MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

FORMATS = (
    "{day} {month} {year}",
    "{day0} {mon} {year}",
    "{month} {day}, {year}",
    "{mon} {day}, {year}",
    "{weekday}, {day} {month} {year}",
    "{wday} {day} {mon} {year}",
    "{day}.{number}.{year}",
    "{number0}/{day0}/{year}",
)
"""The formats of `Dates`: a full stop separates day, month and year, a slash month, day and year.

day and number (of the month) have no leading zero, day0 and number0 two digits; mon and wday are
the first three letters of month and weekday.
"""

WORDS = {
    "month": MONTHS,
    "mon": tuple(name[:3] for name in MONTHS),
    "weekday": WEEKDAYS,
    "wday": tuple(name[:3] for name in WEEKDAYS),
}
NUMBERS = {"day": 2, "day0": 2, "number": 2, "number0": 2, "year": 4}
"""The parts of a format that are numbers, and their most digits."""


@dataclass(frozen=True)
class Dates(SequenceToSequence):
    """Read a date such as "thursday, 5 march 1998", and write 1998-03-05.

    The date is uniform among all days from `first_year` to `last_year`, its format among `formats`.

    Source: the task of many tutorials on attention; the dates and formats here are our own. The
    table of days is made by Python's `datetime`.

    Attributes:
      first_year: from 1000.
      last_year: to 9999.
      formats: templates of `str.format`, with the names that `FORMATS` explains.
      batch_size: B.
      validation_size: the rows of the validation set.
      memoryless_loss: ln(number of days) / 11 nats per token: a date has 10 characters and the end.

    Raises:
      SettingError: if a number is out of range or not an integer, or a format has an unknown name
        or does not determine the date.

    >>> task = Dates(batch_size=2)
    >>> batch = task.sample_batch(jax.random.key(1), 0, task.arrays())
    >>> for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
    ...     print(task.source_text(inputs[:28]), "->", task.target_text(targets[28:]))
    monday, 8 may 2028 -> 2028-05-08
    sunday, 5 january 1997 -> 1997-01-05
    """

    first_year: int = 1970
    last_year: int = 2069
    formats: tuple[str, ...] = FORMATS
    batch_size: int = 50
    validation_size: int = 1000

    target_vocabulary = (END, *"0123456789-")
    target_length = 11

    def __post_init__(self) -> None:
        check_counts(self, "first_year", "last_year", "batch_size", "validation_size")
        if not 1000 <= self.first_year <= self.last_year <= 9999:
            raise SettingError("the years must be from 1000 to 9999, the first one first")
        if not self.formats:
            raise SettingError("there must be a format")
        for template in self.formats:
            try:
                names = {name for _, name in _parse(template)}
            except (ValueError, KeyError) as error:
                raise SettingError(f"{template!r} is no format of a date: {error}") from None
            known = {"year"} & names, {"month", "mon", "number", "number0"} & names
            if not all((*known, {"day", "day0"} & names)):
                raise SettingError(f"the format {template!r} does not determine the date")

    @cached_property
    def source_vocabulary(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The characters of all formats, digits first."""
        words = "".join(name for names in WORDS.values() for name in names)
        literals = "".join(text for template in self.formats for text, _ in _parse(template))
        return (END, *"0123456789", *sorted({*words, *literals} - set("0123456789")))

    @cached_property
    def source_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """S, the length of the longest date."""
        widths = NUMBERS | {name: max(map(len, words)) for name, words in WORDS.items()}
        return max(
            sum(len(text) + widths.get(name, 0) for text, name in _parse(template))
            for template in self.formats
        )

    @property
    def memoryless_loss(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Nats per token of a decoder that does not see the source."""
        return math.log(len(self.arrays())) / self.target_length

    def arrays(self) -> np.ndarray:
        """Year, month, day of the month and weekday from 0, of each day: [days, 4] int32."""
        return self._table

    @cached_property
    def _table(self) -> np.ndarray:
        first = datetime.date(self.first_year, 1, 1).toordinal()
        last = datetime.date(self.last_year, 12, 31).toordinal()
        days = map(datetime.date.fromordinal, range(first, last + 1))
        table = [(day.year, day.month, day.day, day.weekday()) for day in days]
        return np.array(table, np.int32)

    def sample_pairs(
        self, key: jax.Array, rows: int, arrays: Arrays
    ) -> tuple[jax.Array, jax.Array]:
        """Sources [rows, S] and targets [rows, L], new for each key."""
        k_days, k_formats = jax.random.split(key)
        days = arrays[jax.random.randint(k_days, (rows,), 0, len(arrays))]  # [rows, 4]
        formats = jax.random.randint(k_formats, (rows,), 0, len(self.formats))
        return self.write(days, formats), _iso(days)

    def write(self, days: jax.Array, formats: jax.Array) -> jax.Array:
        """Days [B, 4], as in `arrays`, in the formats of these numbers [B]: source ids [B, S]."""
        year, month, day, weekday = jnp.moveaxis(jnp.asarray(days), -1, 0)  # [B] each
        numbers = {"day": day, "day0": day, "number": month, "number0": month, "year": year}
        places = {"month": month - 1, "mon": month - 1, "weekday": weekday, "wday": weekday}

        def part(name: str) -> jax.Array:  # [B, n], with zeros at any place
            if name in WORDS:
                width = max(map(len, WORDS[name]))
                table = [self._ids(word.ljust(width, "\0")) for word in WORDS[name]]
                return jnp.asarray(table, jnp.int32)[places[name]]
            ids = digits(numbers[name], NUMBERS[name])
            return jnp.maximum(ids, 1) if name.endswith("0") else ids

        def render(template: str) -> jax.Array:  # [B, S]
            columns = []
            for text, name in _parse(template):
                literal = jnp.asarray(self._ids(text), jnp.int32)
                columns.append(jnp.broadcast_to(literal[None], (len(year), len(text))))
                columns += [part(name)] if name else []
            ids = jnp.concatenate(columns, axis=1)
            return jnp.pad(ids, ((0, 0), (0, self.source_length - ids.shape[1])))

        rendered = jnp.stack([render(template) for template in self.formats], axis=1)  # [B, n, S]
        chosen = jnp.take_along_axis(rendered, formats[:, None, None], axis=1)
        return left_align(chosen[:, 0])

    def _ids(self, text: str) -> list[int]:
        """The ids of characters; 0 for a null character."""
        return [0 if token == "\0" else self.source_vocabulary.index(token) for token in text]


def _iso(days: jax.Array) -> jax.Array:
    """Days [B, 4] -> YYYY-MM-DD, target ids [B, L]."""
    year, month, day, _ = jnp.moveaxis(jnp.asarray(days), -1, 0)
    dash = jnp.full((len(year), 1), Dates.target_vocabulary.index("-"), jnp.int32)
    two = (jnp.maximum(digits(number, 2), 1) for number in (month, day))
    parts = [digits(year, 4), dash, next(two), dash, next(two), jnp.zeros_like(dash)]
    return jnp.concatenate(parts, axis=1)


def _parse(template: str) -> list[tuple[str, str]]:
    """A format as pairs of a literal text and the name after it, "" at the end."""
    parsed = []
    for text, name, how, conversion in string.Formatter().parse(template):
        if name is not None and (name not in WORDS | NUMBERS or how or conversion):
            raise KeyError(name)
        parsed.append((text, name or ""))
    return parsed
