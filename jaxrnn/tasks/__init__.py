"""Tasks: pure functions of a key that make batches, one task per file.

`TASKS` maps names to task classes, for command lines; `register_task` adds to it. A task that is
passed to `run` as an object does not need a name. `NextCharacter` and `Language` are built from a
text.
"""

from collections.abc import Callable

from jaxrnn.errors import SettingError
from jaxrnn.tasks.adding import Adding
from jaxrnn.tasks.base import Task
from jaxrnn.tasks.classification import Classification
from jaxrnn.tasks.copy_memory import CopyMemory
from jaxrnn.tasks.digits import Digits
from jaxrnn.tasks.forecasting import Forecasting
from jaxrnn.tasks.grammars import ContinualReber, Counting, Dyck, EmbeddedReber
from jaxrnn.tasks.japanese_vowels import JapaneseVowels
from jaxrnn.tasks.labelled_file import LabelledFile
from jaxrnn.tasks.language import Language
from jaxrnn.tasks.lorenz import Lorenz
from jaxrnn.tasks.mackey_glass import MackeyGlass
from jaxrnn.tasks.measured_series import MeasuredSeries
from jaxrnn.tasks.mnist1d import MNIST1D
from jaxrnn.tasks.music import Music
from jaxrnn.tasks.next_character import NextCharacter
from jaxrnn.tasks.regular import (
    CycleNavigation,
    EvenPairs,
    ModularArithmetic,
    Parity,
    Permutations,
)
from jaxrnn.tasks.selective_copy import SelectiveCopy
from jaxrnn.tasks.sequence_to_sequence import Addition, Dates, Pronunciation, Reverse, Sort
from jaxrnn.tasks.sine import Sine
from jaxrnn.tasks.temporal_order import TemporalOrder

__all__ = [
    "MNIST1D",
    "TASKS",
    "Adding",
    "Classification",
    "CopyMemory",
    "Digits",
    "Forecasting",
    "JapaneseVowels",
    "LabelledFile",
    "Language",
    "Lorenz",
    "MackeyGlass",
    "MeasuredSeries",
    "Music",
    "NextCharacter",
    "SelectiveCopy",
    "Sine",
    "Task",
    "TemporalOrder",
    "register_task",
]

TASKS: dict[str, Callable[..., Task]] = {
    "adding": Adding,
    "copy": CopyMemory,
    "selective-copy": SelectiveCopy,
    "temporal-order": TemporalOrder,
    "parity": Parity,
    "even-pairs": EvenPairs,
    "cycle-navigation": CycleNavigation,
    "modular-arithmetic": ModularArithmetic,
    "permutations": Permutations,
    "embedded-reber": EmbeddedReber,
    "continual-reber": ContinualReber,
    "counting": Counting,
    "dyck": Dyck,
    "addition": Addition,
    "reverse": Reverse,
    "sort": Sort,
    "dates": Dates,
    "pronunciation": Pronunciation,
}
"""Task classes by name; their settings are keyword arguments, such as `batch_size=`."""


def register_task(name: str, cls: type[Task]) -> None:
    """Add a task class to `TASKS`, so that scripts can select it by name.

    Args:
      name: a new name.
      cls: a frozen dataclass that inherits from `Task`.

    Raises:
      SettingError: if another task has that name, or `cls` is not a `Task`.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class LongAdding(Adding):
    ...     sequence_length: int = 1000
    >>> register_task("long adding", LongAdding)
    >>> TASKS["long adding"](batch_size=10).sequence_length
    1000
    >>> del TASKS["long adding"]
    """
    if not (isinstance(cls, type) and issubclass(cls, Task)):
        raise SettingError(f"a task must be a class that inherits from Task, not {cls!r}")
    if TASKS.get(name, cls) is not cls:
        raise SettingError(f"there is already a task named {name!r}; choose another name")
    TASKS[name] = cls
