"""What the site adds to pages that are written for GitHub: an extension of Sphinx."""

from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx import addnodes

import jaxrnn

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def improve(app: Any, tree: nodes.document) -> None:
    """Link public names to their descriptions, and cut the blank line that ends a doctest."""
    names = {name for name in jaxrnn.__all__ if not name.isalpha() or not name.islower()}
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
                refdomain="py", reftype="obj", reftarget=target, refdoc=app.env.docname
            )
            code.replace_self(link)
            link += code


def setup(app: "Sphinx") -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("doctree-read", improve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
