"""Pictures: drawn for awkward texts, and honest about letters that no font has."""

import numpy as np
import pytest
from matplotlib import font_manager

from jaxrnn.analysis import fonts, plots


@pytest.fixture
def drawn(monkeypatch):
    """Collects each figure in place of writing it; to save it is still tried."""
    figures = []

    def write(figure, path):
        figure.savefig(path, dpi=40)
        figures.append(figure)

    monkeypatch.setattr(plots, "write", write)
    return figures


def images(figure):
    """The heat maps of a figure by their titles."""
    return {axes.get_title(): axes.images[0].get_array() for axes in figure.axes if axes.images}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("text", ["hihello", "a$b_c\t\n", "ab" * 40, "안녕하세요", "aa"])
def test_heat_maps_show_their_numbers(drawn, tmp_path, text):
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


def study(seeds, rows):
    """Steps and metrics with no two numbers alike."""
    draw = np.random.default_rng(seeds)
    metrics = {
        "grad_norm": draw.gamma(1.0, size=(seeds, rows)),
        "error": draw.normal(size=(seeds, rows)),
        "by_position": draw.normal(size=(seeds, rows, 3)),
        "loss": draw.gamma(2.0, size=(seeds, rows)),
        "accuracy": draw.random((seeds, rows)),
    }
    return 7 * np.arange(rows), metrics


def panels(figure):
    """The axes of a figure by their titles, in order."""
    return {axes.get_title(loc="left"): axes for axes in figure.axes if axes.axison}


def band_at(band, x):
    """The two edges of a filled band at x."""
    corners = band.get_paths()[0].vertices
    return sorted(set(corners[corners[:, 0] == x, 1]))


def test_curves_have_a_panel_per_metric(drawn, tmp_path):
    steps, metrics = study(7, 30)
    plots.curves(tmp_path / "curves.png", steps, metrics, 0.625, "adding")
    assert list(panels(drawn[0])) == ["loss", "error", "accuracy", "grad_norm"]
    for name, axes in panels(drawn[0]).items():
        curve = axes.lines[0]
        np.testing.assert_array_equal(curve.get_xdata(), steps)
        np.testing.assert_allclose(curve.get_ydata(), np.median(metrics[name], axis=0))
        bands = [band for band in axes.collections if band.get_label()[0] != "_"]
        for band, percents in zip(bands, ((5, 95), (25, 75)), strict=True):
            expected = np.percentile(metrics[name][:, 3], percents)
            np.testing.assert_allclose(band_at(band, 21), expected)
        assert axes.get_yscale() == ("log" if name in ("loss", "grad_norm") else "linear")
        level = [line for line in axes.lines if line.get_label() == "memoryless baseline"]
        assert [line.get_ydata()[0] for line in level] == [0.625] * (name == "loss")
    assert drawn[0].get_suptitle() == "adding"
    legend = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert legend == ["5% to 95% of seeds", "quartiles", "median", "memoryless baseline"]


def test_curves_of_one_seed_have_gaps_where_nothing_is_finite(drawn, tmp_path):
    steps, metrics = study(1, 30)
    metrics = {"loss": metrics["loss"], "error": np.full((1, 30), np.nan)}
    metrics["loss"][0, [5, 6, 8, 29]] = [np.nan, np.inf, np.nan, np.nan]
    plots.curves(tmp_path / "curves.png", steps, metrics, None, "adding")
    loss, error = panels(drawn[0]).values()
    expected = np.where(np.isfinite(metrics["loss"][0]), metrics["loss"][0], np.nan)
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), expected)
    np.testing.assert_array_equal(loss.lines[1].get_xdata(), [49])  # step 7 of 30, alone: a dot
    assert not loss.collections
    assert [text.get_text() for text in error.texts] == ["never finite"]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("seeds", [1, 4])
@pytest.mark.parametrize("rows", [0, 1, 2])
def test_few_rows_have_markers(drawn, tmp_path, seeds, rows):
    steps, metrics = study(seeds, rows)
    plots.curves(tmp_path / "curves.png", steps, metrics, 0.5, "adding")
    for axes in panels(drawn[0]).values():
        np.testing.assert_array_equal(axes.lines[1].get_xdata(), steps)
        assert axes.lines[1].get_marker() == "o"
    if seeds > 1 and rows == 1:  # where no band can be seen a bar stands for it
        bars = panels(drawn[0])["loss"].collections[1::2]
        for bar, percents in zip(bars, ((5, 95), (25, 75)), strict=True):
            expected = np.percentile(metrics["loss"], percents)
            np.testing.assert_allclose(bar.get_segments()[0][:, 1], expected)


def test_the_last_panel_of_each_column_labels_the_steps(drawn, tmp_path):
    steps, metrics = study(1, 3)
    metrics["perplexity"] = np.exp(metrics["loss"])
    plots.curves(tmp_path / "curves.png", steps, metrics, None, "adding")
    lowest = [
        name
        for name, axes in panels(drawn[0]).items()
        if axes.get_xlabel() and axes.xaxis.get_tick_params()["labelbottom"]
    ]
    assert lowest == ["perplexity", "grad_norm"]  # the fourth and the fifth, in two columns


@pytest.mark.parametrize("seeds", [1, 3])
def test_many_rows_share_points(drawn, tmp_path, seeds):
    rows = 2 * plots.MOST_POINTS + 10  # three rows to a point, the last of one alone
    steps, metrics = study(seeds, rows)
    metrics["loss"][:, 600:606] = np.nan
    plots.curves(tmp_path / "curves.png", steps, metrics, None, "adding")
    (axes, *_) = panels(drawn[0]).values()
    curve = axes.lines[0]
    points = [slice(start, start + 3) for start in range(0, rows, 3)]
    assert len(points) == len(curve.get_xdata()) <= plots.MOST_POINTS
    median = np.median(metrics["loss"], axis=0)
    expected = [np.median(median[rows]) for rows in points]
    np.testing.assert_allclose(curve.get_ydata(), expected)
    assert "3 rows" in panels(drawn[0])["grad_norm"].get_xlabel()
    x = curve.get_xdata()[11]
    assert x in steps[points[11]]
    edges = band_at(axes.collections[0], x)
    there = metrics["loss"][:, points[11]]
    if seeds == 1:  # so that no spike is lost
        np.testing.assert_allclose(edges, [there.min(), there.max()])
    else:
        low, high = np.median(np.percentile(there, [5, 95], axis=0), axis=1)
        np.testing.assert_allclose(edges, [low, high])


@pytest.mark.parametrize(("lowest", "scale"), [(0.0, "log"), (-0.1, "linear")])
def test_a_loss_below_zero_is_not_drawn_on_a_logarithmic_scale(drawn, tmp_path, lowest, scale):
    steps, metrics = study(2, 30)
    metrics["loss"][1, 3] = lowest
    plots.curves(tmp_path / "curves.png", steps, metrics, None, "adding")
    assert panels(drawn[0])["loss"].get_yscale() == scale


@pytest.mark.parametrize("spread", [1.001, 3, 50, 1e4, 1e30])
def test_a_logarithmic_scale_has_numbers_that_differ(drawn, tmp_path, spread):
    metrics = {"loss": np.geomspace(0.69, 0.69 / spread, 30)[None]}
    plots.curves(tmp_path / "curves.png", np.arange(30), metrics, None, "adding")
    axis = panels(drawn[0])["loss"].yaxis
    low, high = axis.get_view_interval()
    shown = [label.get_text() for label in axis.get_majorticklabels()]
    places = axis.get_majorticklocs()
    seen = [text for text, y in zip(shown, places, strict=True) if low <= y <= high]
    assert 2 <= len(seen) <= 12
    assert len(set(seen)) == len(seen)


def test_a_title_may_contain_any_characters(drawn, tmp_path):
    steps, metrics = study(1, 3)
    metrics["$err_안$"] = metrics.pop("error")
    plots.curves(
        tmp_path / "curves.png", steps, metrics, None, "안 $x_ {" + 20 * " longer" + "\x07"
    )
    title = drawn[0].get_suptitle()
    assert title.startswith("".join(fonts.labels("안")) + " $x_ {")
    assert title.endswith(fonts.labels("\x07")[0]) and "\x07" not in title
    assert "\n" in title


def test_characters_without_a_font_are_escaped(monkeypatch):
    base = [font for font in font_manager.fontManager.ttflist if font.name == fonts.BASE]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", base)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])
    assert fonts.families("h안") == [fonts.BASE]
    assert fonts.undrawable("h안 ") == {"안"}
    assert fonts.labels("h안") == ["h", "\\uc548"]


def test_a_font_with_the_characters_is_found():
    korean = [name for name in fonts.families("안녕") if name != fonts.BASE]
    if not korean:
        pytest.skip("no installed font has Hangul")
    assert fonts.undrawable("안녕") == set()
    assert fonts.labels("안") == ["안"]
    assert fonts.families("hi") == [fonts.BASE]
