"""Formulas as MathML, which browsers draw themselves: an extension of Sphinx.

Pages with formulas need neither a script nor the network.
"""

from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def add_math(html: Any, node: Any, display: bool) -> None:
    """Write a formula, in the line or displayed, and skip its text."""
    try:
        html.body.append(tex2mathml(node.astext(), as_block=display))
    except MathError as error:
        raise ValueError(f"{node.source}:{node.line}: {error} in {node.astext()!r}") from error
    raise nodes.SkipNode


def setup(app: "Sphinx") -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_html_math_renderer(
        "mathml",
        (lambda html, node: add_math(html, node, display=False), None),
        (lambda html, node: add_math(html, node, display=True), None),
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
