"""Copy the code of the English chapters into the Korean ones: `python docs/tutorial/sync.py`.

The code has one source, the English page. A Korean page has the same blocks in the same order; what
is written in them is replaced. Code blocks are cells of the notebook, and Python in answers.
"""

import re
from pathlib import Path

HERE = Path(__file__).parent
BLOCK = re.compile(
    r"^```(?P<kind>\{code-cell\} ipython3|python)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)


def chapters(language: str) -> list[Path]:
    """The chapters of a language, `en` or `ko`, in order."""
    return sorted((HERE / language).glob("[0-9]-*.md"))


def blocks(page: str) -> list[tuple[str, str]]:
    """The code blocks of a page: what kind each one is, and its code."""
    return [(match["kind"], match["code"]) for match in BLOCK.finditer(page)]


def with_blocks(page: str, source: list[tuple[str, str]]) -> str:
    """The page with these blocks in place of its own.

    Raises:
      ValueError: if it has another number of blocks, or blocks of another kind.
    """
    kinds, wanted = [kind for kind, _ in blocks(page)], [kind for kind, _ in source]
    if kinds != wanted:
        raise ValueError(f"the page has the blocks {kinds}, not {wanted}")
    codes = iter(source)

    def replaced(match: re.Match[str]) -> str:
        kind, code = next(codes)
        return f"```{kind}\n{code}```"

    return BLOCK.sub(replaced, page)


def main() -> None:
    """Rewrite the Korean pages."""
    for english in chapters("en"):
        korean = HERE / "ko" / english.name
        if korean.exists():
            page = with_blocks(korean.read_text("utf-8"), blocks(english.read_text("utf-8")))
            korean.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
