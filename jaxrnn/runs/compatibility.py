"""Whether an experiment can start from another one's networks: its model, and its vocabularies.

Parameters of the same shapes are not enough: an Elman cell with tanh and one with relu have the
same, as have two texts of five characters each.
"""

import re
from collections.abc import Iterator
from typing import Any, TypeGuard

from jaxrnn.errors import SettingError
from jaxrnn.runs import config_json
from jaxrnn.tasks.language import Language
from jaxrnn.training.config import ExperimentConfig

MAY_DIFFER = re.compile(
    r".*dropout"
    r"|.*(?<!carry)_init|forget_bias.*|(min|max)_radius|max_phase"  # of fresh parameters
    r"|dtype|implementation|remat_chunk_size"  # how it is computed
    r"|(output|vocabulary|source)_size|source_length"  # of the task
)
"""The fields of modules that may differ. That parameters fit in shape and type is checked, too."""

VOCABULARIES = ("characters", "source_vocabulary", "target_vocabulary")
"""The attributes of tasks, besides `Language`, that say what the ids of tokens mean."""

MOST_TOKENS = 20  # of a vocabulary, in a message


def check_model(new: ExperimentConfig, old: ExperimentConfig, run: str) -> None:
    """Check that two models compute the same with the same parameters.

    Args:
      new: the experiment.
      old: the one whose networks it starts from.
      run: the old one's run, for the message.

    Raises:
      SettingError: if a module or one of its options differs; it names the first one.
    """
    here, there = (config_json.to_json(config.model, "model") for config in (new, old))
    for where, own, given in _differences(here, there, "model"):
        raise SettingError(
            f"the parameters of the run to start from do not fit: {where} is {given} in {run}, and"
            f" {own} in this model"
        )


def check_vocabularies(new: ExperimentConfig, old: ExperimentConfig) -> None:
    """Check that token ids mean the same to two tasks; texts of `Language` have a check of theirs.

    Raises:
      SettingError: if they have other vocabularies.
    """
    if isinstance(new.task, Language) or isinstance(old.task, Language):
        return
    for name in VOCABULARIES:
        own, given = (getattr(config.task, name, None) for config in (new, old))
        if own is not None and given is not None and own != given:
            raise SettingError(
                f"the {name.replace('_', ' ')} must be {_list(given)}, those of the run to start"
                f" from, not {_list(own)}"
            )


def _differences(own: Any, given: Any, where: str) -> Iterator[tuple[str, str, str]]:
    """Compare what `config_json.to_json` returned: where they differ, and the two values."""
    if isinstance(own, list) and isinstance(given, list) and len(own) == len(given):
        for n, parts in enumerate(zip(own, given, strict=True)):
            yield from _differences(*parts, f"{where}[{n}]")
    elif _has_fields(own) and _has_fields(given) and _kind(own) == _kind(given):
        for name in sorted((own.keys() | given.keys()) - {"type"}):
            if not MAY_DIFFER.fullmatch(name):
                parts = own.get(name), given.get(name)
                yield from _differences(*parts, f"{where}.{name}")
    elif _text(own) != _text(given):
        yield where, _text(own), _text(given)


def _has_fields(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a value is a module, a dataclass or a dict."""
    return isinstance(value, dict) and not (len(value) == 1 and config_json.MARKS.issuperset(value))


def _kind(value: dict[str, Any]) -> str | None:
    """The name of a class, without its module: a script's is `__main__` only while it runs."""
    return value["type"].partition(":")[2] if isinstance(value.get("type"), str) else None


def _text(value: Any) -> str:
    """A short description of a value: of a module or function its name."""
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if not isinstance(value, dict):
        return repr(value)
    if (kind := _kind(value)) is not None:
        return kind
    names = [part for mark, part in value.items() if mark in config_json.NAMES]
    return str(names[0]).partition(":")[2] if names else repr(value)


def _list(tokens: tuple[str, ...]) -> str:
    more = ", ..." if len(tokens) > MOST_TOKENS else ""
    return ", ".join(map(repr, tokens[:MOST_TOKENS])) + more
