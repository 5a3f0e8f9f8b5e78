"""Names to choose from, and messages that suggest the closest one."""

import difflib
from collections.abc import Iterable

from jaxrnn.errors import SettingError


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Check that a setting is one of some names.

    Args:
      name: the setting's name, for the message.
      value: what was given.
      choices: the valid names.

    Raises:
      SettingError: if it is none of them; the message lists them and suggests the closest one.

    >>> check_choice("--cell", "lstn", ["lstm", "gru", "rnn"])
    Traceback (most recent call last):
    jaxrnn.errors.SettingError: --cell must be lstm, gru or rnn, not 'lstn'; did you mean lstm?
    """
    names = list(choices)
    if not isinstance(value, str) or value not in names:
        raise SettingError(f"{name} must be {listed(names)}, not {value!r}{suggest(value, names)}")


def listed(names: list[str]) -> str:
    """List names to choose from.

    >>> listed(["sum", "1997"]), listed(["onnx", "torch", "stablehlo", "safetensors"])
    ('sum or 1997', 'one of onnx, torch, stablehlo, safetensors')
    """
    if len(names) > 3:
        return f"one of {', '.join(names)}"
    return " or ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def suggest(value: object, names: Iterable[str]) -> str:
    """Return the end of a message: the closest name, or nothing if none is close.

    Capitals, hyphens and underscores do not count, and a part of a name from its start is close.

    >>> suggest("Hidden-Sizes", ["hidden_size", "layers"]), suggest("x", ["layers"])
    ('; did you mean hidden_size?', '')
    """
    found = closest(value, names)
    return "" if found is None else f"; did you mean {found}?"


def closest(value: object, names: Iterable[str]) -> str | None:
    """Return the name that is most like a value; None if none is close.

    >>> closest("add", ["addition", "sort"])
    'addition'
    """
    plain = {_plain(name): name for name in names}
    given = _plain(str(value))
    begun = [each for each in plain if given and each.startswith(given)]
    matches = difflib.get_close_matches(given, plain, 1) or begun
    return plain[matches[0]] if matches else None


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-").lstrip("-")
