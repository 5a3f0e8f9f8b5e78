"""Parse a command line with tyro, and report a mistake on one line."""

import contextlib
import io
import os
import re
import shutil
from typing import Any

import tyro

from jaxrnn.choices import check_choice, suggest
from jaxrnn.errors import SettingError

SHELLS = ("bash", "zsh", "fish")  # tyro needs another package for tcsh
HELP_COLUMNS = 60  # the least width of help; tyro needs about that


def parse(
    config_type: Any,
    prog: str | None,
    description: str | None,
    arguments: list[str],
    negations: bool = False,
) -> Any:
    """Parse arguments into `config_type`.

    tyro draws its message in a box as wide as the terminal. A wide terminal gives an unwrapped one.

    Args:
      config_type: a dataclass, or a union of dataclasses.
      prog: the program's name; None for the script's path.
      description: of the program; None for the docstring of `config_type`.
      arguments: the command line.
      negations: whether each flag also has its opposite, --no-NAME.

    Raises:
      SettingError: if they are wrong.
      SystemExit: after printing the help.
    """
    if len(arguments) > 1 and re.match("--tyro[-_](print|write)[-_]completion$", arguments[0]):
        check_choice("the shell", arguments[1], SHELLS)  # tyro would raise another error
    box, columns = io.StringIO(), os.environ.get("COLUMNS")
    if not {"-h", "--help"} & set(arguments):
        os.environ["COLUMNS"] = "10000"
    elif shutil.get_terminal_size().columns < HELP_COLUMNS:
        os.environ["COLUMNS"] = str(HELP_COLUMNS)
    try:
        with contextlib.redirect_stderr(box):
            flags = () if negations else (tyro.conf.FlagCreatePairsOff,)
            return tyro.cli(
                config_type, prog=prog, description=description, args=arguments, config=flags
            )
    except SystemExit as stop:
        if not stop.code:
            raise
    finally:
        os.environ.pop("COLUMNS", None)
        if columns is not None:
            os.environ["COLUMNS"] = columns
    raise SettingError(_one_line(box.getvalue())) from None


def completion(config_type: Any, prog: str, shell: str) -> str:
    """Return a shell's completion of a command line.

    Args:
      config_type: as for `parse`.
      prog: the program's name.
      shell: one of `SHELLS`.
    """
    script = io.StringIO()
    with contextlib.redirect_stdout(script), contextlib.suppress(SystemExit):
        parse(config_type, prog, None, ["--tyro-write-completion", shell, "-"])
    # By default bash completes no files where the script has nothing to offer.
    return script.getvalue().replace("complete -F", "complete -o default -F")


def _one_line(box: str) -> str:
    """Return the first paragraph of tyro's box, and the closest valid name.

    The paragraphs below it, between rules, name the commands or an option with a similar name.
    """
    lines = [line.strip("│ ") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    if "╭" not in box:  # stdout is ASCII, as with LC_ALL=C: a title and a rule replace the border
        lines = lines[2:]
    rule = next((i for i, line in enumerate(lines) if set(line) in ({"─"}, {"-"})), len(lines))
    message = re.sub(r"^Error parsing (?!--)\S+: ", "", " ".join(lines[:rule]))
    if found := re.match(r"invalid choice '(.*)' for .*\((.*)\)\.$", message):
        return message.rstrip(".") + suggest(found[1], re.findall(r"'([^']+)'", found[2]))
    if not message.startswith("Unrecognized options: "):
        return message
    words = message.partition(": ")[2].split(", ")
    below = "\n".join(lines[rule:])
    if commands := re.search(r"^Available subcommands: (.*)$", below, re.MULTILINE):
        names = commands[1].split(", ")
        ending = suggest(words[0], names) or f"; the commands are {', '.join(names)}"
        return f"there is no command {words[0]}{ending}"
    similar = re.findall(r"^(?:-\w, )?(--[\w-]+)", below, re.MULTILINE)
    unknown = [word.partition("=")[0] for word in words if word.startswith("-")]
    return message + next(filter(None, (suggest(word, similar) for word in unknown)), "")
