"""What the site adds to pages that are written for GitHub: an extension of Sphinx."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx import addnodes

import jaxrnn

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def improve(app: Any, tree: nodes.document) -> None:
    """Link public names to their descriptions, and cut the blank line that ends a doctest.

    Names such as `run` and `lstm` are other things, too, and only linked in docs/api.md.
    """
    page = app.env.docname
    names = {name for name in jaxrnn.__all__ if page == "api" or not name.islower() or "_" in name}
    names |= {f"jaxrnn.{name}" for name in jaxrnn.__all__}
    for block in tree.findall(nodes.literal_block):
        text = block.astext()
        if text.startswith(">>> "):
            block.rawsource = text.rstrip("\n")
            block[:] = [nodes.Text(block.rawsource)]
    for code in list(tree.findall(nodes.literal)):
        name = code.astext()
        linked = isinstance(code.parent, nodes.reference | nodes.title | addnodes.pending_xref)
        if name in names and not linked:
            target = f"jaxrnn.{name.removeprefix('jaxrnn.')}"
            link = addnodes.pending_xref(
                refdomain="py", reftype="obj", reftarget=target, refdoc=page
            )
            code.replace_self(link)
            link += code


def name_pages(app: Any, tree: nodes.document, page: str) -> None:
    """Call linked pages by their titles, not by their files' names."""
    for link in tree.findall(nodes.reference):
        text = link.astext()
        if text.endswith(".md") and not text.startswith("http"):
            target = (Path("/", page).parent / link["refuri"].partition("#")[0]).resolve()
            title = app.env.titles.get(str(target.relative_to("/")).removesuffix(".html"))
            if title is not None:
                link[:] = [nodes.inline("", title.astext())]


def setup(app: "Sphinx") -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("doctree-read", improve)
    app.connect("doctree-resolved", name_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
