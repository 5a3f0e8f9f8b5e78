"""Pages of the public names, and links to them: an extension of Sphinx.

The table in docs/api.md groups the names. Each group becomes a page, docs/api/GROUP.md, written
when the site is built.
"""

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jaxrnn

if TYPE_CHECKING:
    from sphinx.application import Sphinx

AXES = re.compile(r"(?<![\w`])\[(?:[BTFHVNSGKLXY]\d?(?:[+*-]1)?(?:, )?)+\](?!\w)")


def groups(table: str) -> dict[str, tuple[list[str], str]]:
    """Return the names and the guide of each group, from the table in docs/api.md."""
    rows = re.findall(r"^\| ([a-z, ]+) \| (`.*`) \| (.*?) ?\|$", table, re.MULTILINE)
    return {group: (re.findall(r"`(\w+)`", names), guide) for group, names, guide in rows}


def file_name(group: str) -> str:
    """Return the name of a group's page, without its suffix."""
    return group.replace(",", "").replace(" ", "-")


def page(group: str, names: list[str], guide: str) -> str:
    """Return a group's page in MyST Markdown."""
    lines = [f"# {group.capitalize()}", ""]
    if guide:
        lines += [f"Guide: {guide.replace('](', '](../')}.", ""]
    lines += ["```{eval-rst}", ".. currentmodule:: jaxrnn", ""]
    return "\n".join([*lines, *map(description, names), "```", ""])


def description(name: str) -> str:
    """Return what makes autodoc describe a public name."""
    value = getattr(jaxrnn, name)
    if inspect.isclass(value):
        options = "   :members:\n   :special-members: __call__\n"
        hidden = ["setup", *vars(value).get("__annotations__", ())]  # Flax's, and the attributes
        for base in value.__mro__[1:]:  # a task's page need not repeat what every task has
            if base.__name__ in jaxrnn.__all__:
                hidden += (member for member in vars(value) if hasattr(base, member))
        options += f"   :exclude-members: {', '.join(dict.fromkeys(hidden))}\n"
        return f".. autoclass:: {name}\n{options}"
    if callable(value):
        return f".. autofunction:: {name}\n"
    lines = [f".. data:: {name}", "", "   What each name stands for:", ""]
    for key, entry in value.items():
        options = getattr(entry, "keywords", {})
        given = ", ".join(f"{option}={text(setting)}" for option, setting in options.items())
        made = getattr(entry, "func", entry).__name__
        lines.append(f'   - ``"{key}"``: `{made}`' + (f" with ``{given}``" if given else ""))
    return "\n".join([*lines, ""])


def text(setting: Any) -> str:
    """Return a setting as it is written in code."""
    return getattr(setting, "__name__", None) or repr(setting)


def write_pages(app: "Sphinx") -> None:
    """Write the groups' pages, those only that have changed."""
    source = Path(app.srcdir)
    folder = source / "api"
    folder.mkdir(exist_ok=True)
    pages = {
        f"{file_name(group)}.md": page(group, names, guide)
        for group, (names, guide) in groups((source / "api.md").read_text("utf-8")).items()
    }
    for old in folder.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def plain_text(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Keep what docstrings write plainly from being markup, and link shapes such as [B, T, F].

    They are text for a terminal: `|u|` is an absolute value. Shapes link to the axis letters.
    """
    for i, line in enumerate(lines):
        if line.lstrip().startswith((">>>", "...")):
            continue
        parts = re.split("(`+[^`]*`+)", line)  # text, code, text, ...
        text = (re.sub(r"(?<!\\)([|*])", r"\\\1", part) for part in parts[::2])
        parts[::2] = (AXES.sub(r":ref:`\g<0> <axis-letters>`", part) for part in text)
        lines[i] = "".join(parts)


class Named:
    """A default value that is shown by its name: `tanh`, not `<function tanh at 0x7f...>`."""

    def __init__(self, value: Any) -> None:
        name = getattr(value, "__name__", "")
        self.name = name if name.isidentifier() else "..."

    def __repr__(self) -> str:
        """Return the name."""
        return self.name


def short_signature(
    app: Any, what: str, name: str, value: Any, options: Any, signature: str, returns: str
) -> tuple[str, str] | None:
    """Return a class's signature without what only Flax sets, and with readable defaults."""
    if what != "class" or not signature:
        return None
    from sphinx.util.inspect import stringify_signature

    shown = inspect.signature(value)
    flax = {"name", "parent"} <= shown.parameters.keys()
    kept = []
    for each in shown.parameters.values():
        if each.default is not each.empty and repr(each.default).startswith("<"):
            each = each.replace(default=Named(each.default))
        if not (flax and each.name in {"name", "parent"}):
            kept.append(each)
    shown = shown.replace(parameters=kept, return_annotation=inspect.Signature.empty)
    return stringify_signature(shown, unqualified_typehints=True), ""


def setup(app: "Sphinx") -> dict[str, bool]:
    """Register with Sphinx."""
    from sphinx.domains.python import PythonDomain

    directive: Any = PythonDomain.directives["class"]
    for field in directive.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"  # as in the docstrings
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", plain_text)
    app.connect("autodoc-process-signature", short_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
