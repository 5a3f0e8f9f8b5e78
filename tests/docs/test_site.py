"""The documentation site: every page and public name is on it, and Korean words are found."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import public_names
import pytest

import jaxrnn

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(
    str(page.relative_to(DOCS).with_suffix(""))
    for folder in (DOCS, DOCS / "results", *DOCS.glob("tutorial/*"))
    for page in folder.glob("*.md")
)
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def toctree(page: str) -> list[str]:
    """The pages in the toctrees of a page."""
    found = []
    for body in re.findall(
        r"```\{toctree\}\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL
    ):
        for line in body.splitlines():
            if line and not line.startswith(":"):
                name = line.partition("<")[2].rstrip(">") or line
                path = (DOCS / page).parent / f"{name}.md"
                beside = path.parent.glob(path.name) if "*" in name else [path]
                found += [str(each.relative_to(DOCS).with_suffix("")) for each in beside]
    return found


def test_every_page_is_in_a_toctree():
    listed = {name for page in PAGES for name in toctree(f"{page}.md")}
    assert set(PAGES) - {"index"} <= listed


def test_every_public_name_is_on_one_page():
    groups = public_names.groups((DOCS / "api.md").read_text("utf-8"))
    names = [name for names, _ in groups.values() for name in names]
    assert sorted(names) == sorted(jaxrnn.__all__)
    assert toctree("api.md") == [f"api/{public_names.file_name(group)}" for group in groups]
    for group, (names, guide) in groups.items():
        page = public_names.page(group, names, guide)
        assert re.findall(r"^\.\. auto\w+:: (\w+)|^\.\. data:: (\w+)", page, re.MULTILINE) == [
            ("", name) if isinstance(getattr(jaxrnn, name), dict) else (name, "") for name in names
        ]


def test_docstrings_link_to_the_axis_letters():
    lines = ["inputs: [B, T, F], |u| * [H] and `x[B]`, list[T]", ">>> f([B, T])", "[B, T+1]s"]
    public_names.plain_text(None, "function", "f", None, None, lines)
    link = ":ref:`[{}] <axis-letters>`".format
    assert lines == [
        rf"inputs: {link('B, T, F')}, \|u\| \* {link('H')} and `x[B]`, list[T]",
        ">>> f([B, T])",
        "[B, T+1]s",
    ]


def test_korean_words_are_found_by_their_parts():
    pytest.importorskip("sphinx")
    import two_languages

    words = two_languages.Search({}).split("LSTM은 순환신경망입니다. \u1112\u1161\u11ab")
    assert {"LSTM", "은", "순환신경망입니다", "신경망", "순환", "순", "한"} <= set(words)
    assert not {"LSTM은", "망", "신"} & set(words)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    pytest.importorskip("sphinx")
    built = tmp_path_factory.mktemp("site") / "html"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "docs", str(built)]
    result = subprocess.run(
        command, cwd=DOCS.parent, capture_output=True, text=True, timeout=900, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    return built


@pytest.mark.slow
def test_the_site_is_built_without_warnings(site):
    index = (site / "searchindex.js").read_text("utf-8")
    found = json.loads(index.removeprefix("Search.setIndex(").removesuffix(")"))
    for word in ("한국어", "신경망", "순환"):
        assert word in found["terms"] or word in found["titleterms"]
    for page in PAGES:
        text = (site / f"{page}.html").read_text("utf-8")
        assert f'lang="{"ko" if page.startswith("tutorial/ko") else "en"}"' in text
    assert "<math" in (site / "tutorial/ko/2-step.html").read_text("utf-8")
    for name in jaxrnn.__all__:
        assert f"jaxrnn.{name}" in (site / "genindex.html").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("한국어", "index.html"),
        ("신경망", "tutorial/ko/2-step.html"),  # in the words 신경망은 and 신경망이
        ("순환", "tutorial/ko/2-step.html"),
        ("LSTM은", "tutorial/ko/4-forgetting.html"),
        ("Recurrent", "api/layers.html"),
    ],
)
def test_a_browser_finds_korean_and_english(site, query, found, tmp_path):
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path}", "--virtual-time-budget=5000"]
    page = f"{(site / 'search.html').as_uri()}?q={query}"
    result = subprocess.run([*command, page], capture_output=True, text=True, timeout=100)
    links = re.findall(r'<li[^>]*><a href="([^"?#]*)', result.stdout)
    assert found in links
