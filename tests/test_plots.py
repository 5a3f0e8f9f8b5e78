"""Pictures: drawn for awkward texts, and honest about letters that no font has."""

import numpy as np
import pytest
from matplotlib import font_manager

from jaxrnn import fonts, plots


@pytest.fixture
def drawn(monkeypatch):
    """Collects each figure in place of writing it; to save it is still tried."""
    figures = []

    def write(figure, path):
        figure.savefig(path, dpi=40)
        figures.append(figure)

    monkeypatch.setattr(plots, "_write", write)
    return figures


def images(figure):
    """The heat maps of a figure by their titles."""
    return {axes.get_title(): axes.images[0].get_array() for axes in figure.axes if axes.images}


@pytest.mark.parametrize("text", ["hihello", "a$b_c\t\n", "ab" * 40, "안녕하세요", "aa"])
def test_heat_maps_show_the_numbers_they_are_given(drawn, tmp_path, text):
    characters = tuple(dict.fromkeys(text))
    inputs = [characters.index(c) for c in text[:-1]]
    targets = [characters.index(c) for c in text[1:]]
    shown = min(len(inputs), plots.MOST_POSITIONS)
    draw = np.random.default_rng(0)
    probability = draw.dirichlet(np.ones(len(characters)), (9, len(inputs)))
    plots.probabilities(tmp_path / "p.png", probability, characters, inputs, targets, "net")
    maps, names = images(drawn[0]), fonts.labels(characters)
    assert len(maps) == shown
    for t in range(shown):
        title = f"{t + 1}. {names[inputs[t]]} → {names[targets[t]]}"
        np.testing.assert_array_equal(maps[title], probability[:, t].T)

    panels = {
        "input gate": draw.random((len(inputs), 5)),
        "cell state": 3 * draw.normal(size=(len(inputs), 5)),
    }
    plots.states(tmp_path / "s.png", panels, characters, inputs, targets, "net")
    maps = images(drawn[1])
    for name, values in panels.items():
        np.testing.assert_array_equal(maps[name], values[:shown].T)
    ticks = [tick.get_text() for tick in drawn[1].axes[0].get_xticklabels()]
    said = zip(inputs[:shown], targets[:shown], strict=True)
    assert ticks == [f"{names[read]}\n{names[say]}" for read, say in said]


def test_a_loss_curve_is_the_median_and_its_bands(drawn, tmp_path):
    loss = np.random.default_rng(0).gamma(2.0, size=(7, 20))
    plots.loss_curve(tmp_path / "loss.png", loss, np.arange(7) + 14)
    curve, histogram = drawn[0].axes
    np.testing.assert_allclose(curve.lines[0].get_ydata(), np.median(loss, axis=0))
    for band, (low, high) in zip(curve.collections, ((5, 95), (25, 75)), strict=True):
        corners = band.get_paths()[0].vertices
        at_step_3 = corners[corners[:, 0] == 3, 1]
        expected = np.percentile(loss[:, 3], [low, high])
        np.testing.assert_allclose(sorted(set(at_step_3)), expected)
    assert histogram.get_title() == "6 of 7 seeds learned it"
    assert sum(bar.get_height() for bar in histogram.patches) == 6


@pytest.mark.parametrize("steps", [1, 20])
def test_a_loss_curve_of_one_seed(drawn, tmp_path, steps):
    loss = np.exp(-np.arange(steps))[None]
    loss[0, steps // 2 :] = np.nan
    plots.loss_curve(tmp_path / "loss.png", loss, np.array([steps - 1]))
    (axes,) = drawn[0].axes
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), loss[0])
    assert axes.lines[1].get_xdata()[0] == steps - 1


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
