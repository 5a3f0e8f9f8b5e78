"""The public face: every name is documented, and importing the package is cheap."""

import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import jaxrnn

ROOT = Path(jaxrnn.__file__).parents[1]
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
DOCS = "\n".join(page.read_text("utf-8") for page in PAGES)


@pytest.mark.parametrize("name", jaxrnn.__all__)
def test_every_public_name_is_documented_with_a_working_example(name):
    """The examples are doctests, which this suite runs."""
    value = getattr(jaxrnn, name)
    examples = [line for line in DOCS.splitlines() if line.startswith((">>> ", "... "))]
    docstring = inspect.getdoc(value) or ""
    word = re.compile(rf"\b{name}\b")
    assert f"`{name}`" in DOCS, "docs/api.md must list it"
    if callable(value):
        assert len(docstring.splitlines()[0]) > 10
        hints = str(typing.get_type_hints(value) if inspect.isfunction(value) else "")
        if "jax.Array" in hints:
            assert "[" in docstring, "arrays need shapes"
    own = [line for line in docstring.splitlines() if line.startswith((">>> ", "... "))]
    assert any(map(word.search, own)) or any(map(word.search, examples))


def test_importing_the_package_imports_nothing_large():
    large = ("jax", "flax", "numpy")
    code = f"import sys, jaxrnn; print([name for name in {large} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        jaxrnn.nothing  # noqa: B018
