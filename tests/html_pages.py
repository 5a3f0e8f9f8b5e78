"""Reading web pages in tests, also with a real browser."""

import json
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


class Parsed(HTMLParser):
    """The tags of a page with their attributes, and the text of each by its id."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.place = [], {}, None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.place = dict(attrs).get("id") or tag

    def handle_data(self, data):
        self.texts[self.place] = self.texts.get(self.place, "") + data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def data(self):
        return json.loads(self.texts["data"])


def browse(folder, made, script="", hash=""):
    """Open a page in a browser, run a script in it; returns what that said, and the page's end."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    keep = "const seen = {}; addEventListener('error', e => seen.error = e.message);"
    keep += f"{script}; document.body.dataset.seen = JSON.stringify(seen);"
    path = folder / "page.html"
    path.write_text(made.replace("</body>", f"<script>{keep}</script></body>"), "utf-8")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
        " --disable-background-networking --disable-component-update --disable-sync"
        f" --virtual-time-budget=2000 --dump-dom --user-data-dir={folder / 'profile'}"
    )
    ran = subprocess.run(
        [CHROMIUM, *flags.split(), path.as_uri() + hash],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    parsed = Parsed(ran.stdout)
    [body] = parsed.all("body")
    assert "data-seen" in body, ran.stderr
    return json.loads(body["data-seen"]), parsed
