"""English and Korean pages: an extension of Sphinx.

Sphinx finds a word as it stands between spaces. A Korean word carries its particles: 신경망은,
신경망을. So that a search for 신경망 finds both, the index has every part of a Korean word.
"""

import re
import unicodedata
from typing import TYPE_CHECKING, Any

from sphinx.search.en import SearchEnglish

if TYPE_CHECKING:
    from sphinx.application import Sphinx

WORD = re.compile(r"[가-힣]+|(?:(?![가-힣])\w)+")  # LSTM은 is two words
NAMES = {"en": "English", "ko": "한국어"}
PAGE = re.compile(r"tutorial/(en|ko)/(.*)")


def parts(word: str) -> set[str]:
    """Return the parts of a Korean word that a search finds: two syllables or more, or the first.

    >>> sorted(parts("기억은"))
    ['기', '기억', '기억은', '억은']
    """
    ends = range(2, len(word) + 1)
    return {word[:1], *(word[start:end] for end in ends for start in range(end - 1))}


class Search(SearchEnglish):
    """The search of English words by their stems, and of Korean words by their parts."""

    js_splitter_code = r"""
var splitQuery = (query) =>
  query.normalize("NFC").match(/[가-힣]+|(?:(?![가-힣])[\p{L}\p{N}_])+/gu) || [];
"""

    def split(self, input: str) -> list[str]:
        """Return the words and parts of words in a text."""
        words = WORD.findall(unicodedata.normalize("NFC", input))
        korean = [word for word in words if re.match("[가-힣]", word)]
        return [*words, *(part for word in korean for part in parts(word))]


def add_languages(app: Any, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Tell the browser the language of a page, and the template where its translation is."""
    if not (found := PAGE.fullmatch(page)):
        return
    language, rest = found.groups()
    other = "en" if language == "ko" else "ko"
    context["language"] = language
    if f"tutorial/{other}/{rest}" in app.env.found_docs:
        context["translation"] = (other, NAMES[other], f"tutorial/{other}/{rest}")


def setup(app: "Sphinx") -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_search_language(Search)
    app.connect("html-page-context", add_languages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
