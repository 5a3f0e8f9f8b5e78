"""Pictures: drawn for awkward texts, and honest about letters that no font has."""

import numpy as np
import pytest
from matplotlib import font_manager, image

from jaxrnn import fonts, plots


def has_ink(path):
    return np.ptp(image.imread(path)) > 0.5


@pytest.mark.parametrize("text", ["hihello", "a$b_c\t\n", "ab" * 40, "안녕하세요", "aa"])
def test_every_text_can_be_drawn(tmp_path, text, key):
    characters = tuple(dict.fromkeys(text))
    inputs = [characters.index(c) for c in text[:-1]]
    targets = [characters.index(c) for c in text[1:]]
    steps = np.random.default_rng(0)
    probability = steps.dirichlet(np.ones(len(characters)), (9, len(inputs)))
    plots.probabilities(tmp_path / "p.png", probability, characters, inputs, targets, "net")
    panels = {
        "input gate": steps.random((len(inputs), 5)),
        "cell state": steps.normal(size=(len(inputs), 5)),
    }
    plots.states(tmp_path / "s.png", panels, characters, inputs, targets, "net")
    assert has_ink(tmp_path / "p.png")
    assert has_ink(tmp_path / "s.png")


@pytest.mark.parametrize("seeds", [1, 7])
def test_loss_curves(tmp_path, seeds):
    loss = np.exp(-np.linspace(0, 5, 20)) * np.arange(1, seeds + 1)[:, None]
    loss[0, 3] = np.nan
    plots.loss_curve(tmp_path / "loss.png", loss, np.arange(seeds) + 14)
    assert has_ink(tmp_path / "loss.png")


def test_letters_that_no_font_has_stand_as_code_points(monkeypatch):
    base = [font for font in font_manager.fontManager.ttflist if font.name == fonts.BASE]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", base)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])
    assert fonts.families("h안") == [fonts.BASE]
    assert fonts.undrawable("h안 ") == {"안"}
    assert fonts.labels("h안") == ["h", "U+C548"]


def test_a_font_that_has_the_letters_is_found():
    korean = [name for name in fonts.families("안녕") if name != fonts.BASE]
    if not korean:
        pytest.skip("no installed font has Hangul")
    assert fonts.undrawable("안녕") == set()
    assert fonts.labels("안") == ["안"]
    assert fonts.families("hi") == [fonts.BASE]
