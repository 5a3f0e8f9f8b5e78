"""The option --config of scripts: options from a file, such as the config.json of a run.

A run that a script starts keeps the script's options in its config.json, as
`ExperimentConfig.options`. A file with nothing but options works, too: {"hidden_size": 64}.
"""

import contextlib
import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from jaxrnn.choices import suggest
from jaxrnn.errors import RunError, SettingError
from jaxrnn.runs import config_json
from jaxrnn.runs.files import read_json
from jaxrnn.runs.progress import note
from jaxrnn.training.processes import Processes

NAME = "config"
NOT_KEPT = {NAME, "run_dir", "track", "no_plots", "quiet"}
"""Options that say nothing about the experiment."""


class Given(typing.NamedTuple):
    """The options of a file."""

    file: Path
    arguments: list[str]  # the same options as a command line
    experiment: Mapping[str, Any] | None  # what the run recorded; None if the file has only options


def options_of(config: Any) -> dict[str, Any]:
    """Return the options of a script's config and its groups that describe the experiment.

    >>> @dataclasses.dataclass
    ... class Config:
    ...     task: str = "adding"
    ...     run_dir: Path | None = None
    >>> options_of(Config())
    {'task': 'adding'}
    """
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, Processes) or field.name in NOT_KEPT:
            continue
        found |= options_of(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return found


def find(config_type: Any, command: Sequence[str]) -> Given | None:
    """Read the file that --config names; None without that option.

    Args:
      config_type: the script's config.
      command: the script's path, and the command line.

    Raises:
      SettingError: if the file is not for this script, or names an option that it lacks.
      OSError: if it cannot be read.
    """
    program, *arguments = command
    files = [
        value or next(iter(arguments[n + 1 :]), "")
        for n, argument in enumerate(arguments)
        for name, _, value in [argument.partition("=")]
        if name == f"--{NAME}"
    ]
    if not files or not dataclasses.is_dataclass(config_type):
        return None
    fields = {field.name: field for field in _fields(config_type)}
    if NAME not in fields or not files[-1]:
        return None  # a mistake, which the parser reports
    file = Path(files[-1])
    options, experiment = _read(file, program)
    words: list[str] = []
    for given, value in options.items():
        name = given.replace("-", "_")
        if name not in fields or name == NAME:
            names = [each for each in fields if each != NAME]
            raise SettingError(f"{file}: there is no option {given!r}{suggest(given, names)}")
        words += _arguments(name, value, fields[name].default)
    return Given(file, words, experiment)


def check(
    given: Given, parse: Callable[[list[str]], Any], make_config: Callable[[Any], Any]
) -> None:
    """Tell if the options of a run no longer give the experiment that it recorded.

    Args:
      given: what `find` returned.
      parse: makes a config of a command line.
      make_config: makes an experiment of a config.
    """
    if given.experiment is None:
        return
    with contextlib.suppress(SettingError, RunError, OSError):  # others given may mend it
        made = config_json.to_json(make_config(parse(given.arguments)))
        for name in ("task", "model", "train"):
            if where := _difference(made[name], given.experiment.get(name), name):
                note(f"the options in {given.file} now give another experiment: {where}")
                return


def _read(file: Path, program: str) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
    """Return the options in a file, and the experiment beside them."""
    try:
        content = read_json(file)
    except ValueError as error:
        raise SettingError(str(error)) from None
    if not isinstance(content, dict):
        raise SettingError(f"{file} must be a JSON object of options, or the config.json of a run")
    if "runs" in content and "experiments" in content:
        raise SettingError(f"{file} is of a sweep; take the config.json of one of its runs")
    experiment = content.get("experiment")
    if not isinstance(experiment, dict):
        return {name: config_json.from_json(value) for name, value in content.items()}, None
    script, own = Path(content.get("script") or program).name, Path(program).name
    if script != own:
        raise SettingError(f"{file} is of a run of {script}, not of {own}")
    options = experiment.get("options")
    if not isinstance(options, dict):
        raise SettingError(f"{file} has no options: the command line of no script started this run")
    return {name: config_json.from_json(value) for name, value in options.items()}, experiment


def _fields(config_type: Any) -> Iterator[dataclasses.Field[Any]]:
    """Yield the fields of a config and of its groups."""
    hints = typing.get_type_hints(config_type, include_extras=True)
    for field in dataclasses.fields(config_type):
        hint = hints[field.name]
        if typing.get_origin(hint) is Annotated:
            hint = typing.get_args(hint)[0]
        if not dataclasses.is_dataclass(hint):
            yield field
        elif hint is not Processes:
            yield from _fields(hint)


def _arguments(name: str, value: Any, default: Any) -> list[str]:
    """Return an option as words of a command line."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if isinstance(value, tuple | list):
        return [f"--{flag}", *map(str, value)]
    return [] if value is None and default is None else [f"--{flag}={value}"]


def _difference(made: Any, recorded: Any, where: str) -> str:
    """Name the first part of two experiments, as JSON, that differs; empty if there is none."""
    if isinstance(made, dict) and isinstance(recorded, dict) and made.keys() == recorded.keys():
        parts = (_difference(made[key], recorded[key], f"{where}.{key}") for key in made)
        return next(filter(None, parts), "")
    return "" if made == recorded else where
