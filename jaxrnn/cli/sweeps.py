"""Options with several values: `--learning-rate 1e-3,3e-3` trains all combinations."""

import dataclasses
import itertools
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Union

from jaxrnn.errors import SettingError
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.processes import Processes

HELP = "An option that is a number takes several, as in 1e-3,3e-3: all combinations are trained."

SINGLE = {"seed", "seeds", "vmap_size"}
"""Numbers of which every run of a sweep has the same."""


class Swept(NamedTuple):
    """A command line with several values of some options."""

    names: tuple[str, ...]  # of the settings that have several
    arguments: list[list[str]]  # the command line of each combination


def numeric_fields(config_type: Any) -> Iterator[str]:
    """The fields of a script's config, and of its groups, that hold a number.

    >>> @dataclasses.dataclass
    ... class Config:
    ...     task: str = "adding"
    ...     delay: int | None = None
    ...     learning_rate: float = 0.1
    ...     seeds: int = 1
    >>> list(numeric_fields(Config))
    ['delay', 'learning_rate']
    """
    hints = typing.get_type_hints(config_type, include_extras=True)
    for field in dataclasses.fields(config_type):
        hint = hints[field.name]
        if typing.get_origin(hint) is Annotated:
            hint = typing.get_args(hint)[0]
        if dataclasses.is_dataclass(hint):
            if hint is not Processes:
                yield from numeric_fields(hint)
            continue
        is_union = typing.get_origin(hint) in (Union, types.UnionType)
        kinds = set(typing.get_args(hint)) if is_union else {hint}
        if field.name not in SINGLE and kinds - {type(None)} and kinds <= {int, float, type(None)}:
            yield field.name


def find(config_type: Any, arguments: Sequence[str]) -> Swept | None:
    """Find numeric options with several values; None if there are none.

    >>> @dataclasses.dataclass
    ... class Config:
    ...     text: str = ""
    ...     delay: int = 1
    >>> find(Config, ["--text", "a,b", "--delay", "3"])
    >>> find(Config, ["--text", "a,b", "--delay=3,5"]).arguments
    [['--text', 'a,b', '--delay=3'], ['--text', 'a,b', '--delay=5']]
    """
    if not any("," in each for each in arguments) or not dataclasses.is_dataclass(config_type):
        return None
    known = set(numeric_fields(config_type))
    choices: list[list[str]] = []
    names: list[str] = []
    option = ""
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if argument.startswith("--"):
            option = flag.removeprefix("--").replace("-", "_")
            start = f"{flag}="
        else:
            equals, value, start = "=", argument, ""
        if equals and option in known and "," in value:
            choices.append([start + each.strip() for each in value.split(",")])
            names.append(option)
        else:
            choices.append([argument])
        if not argument.startswith("--") or equals:
            option = ""
    if not names:
        return None
    if len(set(names)) < len(names):
        raise SettingError(f"--{max(names, key=names.count).replace('_', '-')} is given twice")
    return Swept(tuple(names), [list(each) for each in itertools.product(*choices)])


def value_of(config: Any, name: str) -> Any:
    """Return the value of a field of a config or of its groups."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == name:
            return value
        if dataclasses.is_dataclass(value) and name in {
            inner.name for inner in dataclasses.fields(value)
        }:
            return value_of(value, name)
    raise KeyError(name)


def run(
    names: Sequence[str],
    configs: Sequence[Any],
    make_config: Callable[[Any], ExperimentConfig],
    program: str,
) -> None:
    """Train all combinations, print the table, and plot the curves of each run.

    Args:
      names: the settings with several values.
      configs: the script's config of each combination.
      make_config: makes an experiment of it.
      program: the script's path; the sweep's directory is in `runs/<its name>`.
    """
    from jaxrnn.analysis import sweep_table
    from jaxrnn.runs import sweep

    settings = [{name: value_of(each, name) for name in names} for each in configs]
    options = getattr(configs[0], "run", configs[0])
    if getattr(options, "track", None):
        raise SettingError("--track is for a single run, not for a sweep")
    result = sweep.train_all(
        settings,
        [make_config(each) for each in configs],
        vmap_size=getattr(options, "vmap_size", None),
        run_dir=options.run_dir,
        name=Path(program).stem,
    )
    print(sweep_table.summarize(result))
    if not options.no_plots:
        from jaxrnn.analysis.plots import plot_run  # Matplotlib takes a second to import

        for each in result.combinations:
            plot_run(each.run_dir)
