"""The page that looks inside a model: what it holds, and what a real browser makes of it."""

import base64
import unicodedata

import numpy as np
import pytest
from html_pages import Parsed

from jaxrnn.analysis import page, saturation, text_features
from jaxrnn.analysis.page import Layer, display_text, make_page

TEXT = 'Old:\n\n  "Say, (no)\n  more."\nA:\n\n  "Then (go) on."\n'
NASTY = [
    *"</script><script>document.body.dataset.hit=1</script><!--data--><!--",
    "<img src=x onerror=document.body.dataset.hit=1>",
    *"\"'&lt;\u0301\u2028\u2029\x00\x7f\ud800\u202e\t\\\r\n",
    "",
    "${1}",
    *"가\u1112\u1161\u11ab\u1161😀",
]


def pieces(text=TEXT, sizes=(7, 4), guesses=3, seed=0):
    """What a page is made from, all of it random: tokens, guesses, probabilities, names, layers."""
    draw = np.random.default_rng(seed)
    tokens, names = list(text), sorted(set(text), reverse=True)
    ids = draw.permuted(np.tile(np.arange(len(names)), (len(tokens), 1)), axis=1)[:, :guesses]
    probabilities = -np.sort(-draw.dirichlet(np.ones(guesses + 1), len(tokens)))[:, :guesses]
    layers = [
        Layer(
            f"layer {i + 1}",
            draw.uniform(-1, 1, (len(tokens), size)).astype(np.float32),
            {name: draw.beta(0.2, 0.2, (len(tokens), size)) for name in gates},
        )
        for i, (size, gates) in enumerate(zip(sizes, ("ifo", "zx"), strict=False))
    ]
    # One cell of the last layer follows the brackets, but for a little noise.
    depth = text_features.features(tokens)["bracket depth"]
    layers[-1].activations[:, 2] = -0.8 * depth + 0.05 * draw.normal(size=len(tokens))
    return tokens, ids, probabilities, names, layers


def test_the_page_is_self_contained():
    parsed = Parsed(text := make_page("A title", *pieces(), {"bits a character": "1.5"}))
    [policy] = [tag["content"] for tag in parsed.all("meta") if "http-equiv" in tag]
    assert "default-src 'none'" in policy and "http" not in policy and "*" not in policy
    outside = {"src", "href", "action", "data", "srcset", "poster", "background"}
    assert not [tag for tag, attributes in parsed.tags if outside & attributes.keys()]
    assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in parsed.tags}
    for part in ("http:", "https:", "url(", "@import", "fetch(", "localStorage", "innerHTML"):
        assert part not in text
    assert parsed.texts["title"].splitlines()[0] == "A title" == parsed.texts["h1"].strip()
    assert parsed.texts["th"] == "bits a character" and parsed.texts["td"].strip() == "1.5"
    assert parsed.texts["note"].strip() == ""
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("length", [1, 2, 3, len(TEXT)])
def test_the_page_contains_the_numbers(length):
    tokens, ids, probabilities, names, layers = pieces(TEXT[-length:], guesses=1)
    data = Parsed(make_page("a", tokens, ids, probabilities, names, layers, {})).data
    assert [data["symbols"][i] for i in data["text"]] == [
        [token, display_text(token)] for token in tokens
    ]
    guessed = [data["symbols"][i][0] for i in data["guesses"]]
    assert guessed == [names[i] for i in ids.ravel()]
    np.testing.assert_allclose(data["probabilities"], probabilities.ravel(), atol=5e-5)
    for layer, packed in zip(layers, data["layers"], strict=True):
        rows = np.frombuffer(base64.b64decode(packed["packed"]), np.int8)
        rows = rows.reshape(layer.activations.shape[1], -1)
        assert rows.shape[1] - length == -length % 3
        np.testing.assert_allclose(rows[:, :length].T / 127, layer.activations, atol=0.5001 / 127)
        assert (packed["name"], packed["kept"]) == (layer.name, list(range(len(rows))))
    cells = [tuple(cell[:2]) for cell in data["cells"]]
    assert sorted(cells) == [(0, i) for i in range(7)] + [(1, i) for i in range(4)]


def test_cells_with_the_highest_correlations_come_first_and_are_kept(monkeypatch):
    tokens, *_, layers = arguments = pieces()
    whole = Parsed(make_page("a", *arguments, {})).data["cells"]
    assert whole[0][:3] == [1, 2, "bracket depth"] and whole[0][3] < -0.9
    r = [abs(cell[3]) for cell in whole]
    assert r == sorted(r, reverse=True)
    monkeypatch.setattr(page, "MOST_BYTES", 3 * len(tokens) + 1)
    parsed = Parsed(make_page("a", *arguments, {}))
    assert parsed.data["cells"] == whole[:3]
    assert "Only the 3 of 11 cells with the highest correlations are shown" in parsed.texts["note"]
    for i, (layer, packed) in enumerate(zip(layers, parsed.data["layers"], strict=True)):
        assert packed["kept"] == sorted(cell for at, cell, *_ in whole[:3] if at == i)
        rows = np.frombuffer(base64.b64decode(packed["packed"]), np.int8)
        rows = rows.reshape(len(packed["kept"]), -1)[:, : len(tokens)]
        kept = layer.activations[:, packed["kept"]].T
        np.testing.assert_allclose(rows / 127, kept, atol=0.5001 / 127)
    assert len(parsed.all("circle")) == 3 * 7 + 2 * 4, "gates are of all cells"


def test_saturation_equals_a_plain_loop():
    gate = np.random.default_rng(0).beta(0.2, 0.3, (40, 6))
    gate[:2, :] = [[0.1], [0.9]]  # neither below nor above
    left, right = saturation.saturation(gate)
    for h in range(6):
        assert left[h] == pytest.approx(sum(float(g) < 0.1 for g in gate[:, h]) / 40)
        assert right[h] == pytest.approx(sum(float(g) > 0.9 for g in gate[:, h]) / 40)
    assert np.ptp(left) > 0 and not np.allclose(left, right)


def test_each_unit_and_gate_has_a_dot():
    *_, layers = pieces()
    parsed = Parsed(make_page("a", *pieces(), {}))
    dots = iter(parsed.all("circle"))
    for i, layer in enumerate(layers):
        for gate in layer.gates.values():
            left, right = saturation.saturation(gate)
            for h in range(gate.shape[1]):
                dot = next(dots)
                assert dot["data-cell"] == f"{i + 1}.{h}"
                assert float(dot["cx"]) == pytest.approx(saturation.SIDE * right[h], abs=0.06)
                assert float(dot["cy"]) == pytest.approx(saturation.SIDE * (1 - left[h]), abs=0.06)
    assert next(dots, None) is None
    names = [tag["aria-label"].partition(":")[0] for tag in parsed.all("svg")]
    assert names[:3] == ["input gate, layer 1", "forget gate, layer 1", "output gate, layer 1"]
    assert names[3:] == ["update gate, layer 2", "gate x, layer 2"]


def test_gates_are_described_in_words():
    gate = np.full((10, 4), 0.5)
    gate[:, 0], gate[:, 1], gate[:9, 2], gate[:, 3] = 0.95, 0.92, 0.99, 0.01  # the third 90% only
    said = saturation.plots(1, "layer 1", {"f": gate})
    assert "forget gate: 2 of 4 units are right-saturated more than 90% of the time, 1 left" in said
    assert saturation.plots(1, "layer 1", {}) == ""


def nasty_page():
    text = "".join(map(str, NASTY))
    _, ids, probabilities, _, layers = pieces("a" * len(NASTY), guesses=1)
    layers[0] = Layer(text, layers[0].activations, {text: layers[0].gates["i"]})
    return make_page(text, NASTY, ids, probabilities, NASTY, layers, {text: text})


def test_text_cannot_inject_html():
    made = nasty_page()
    plain = Parsed(make_page("a", *pieces("aa", guesses=1), {"b": "c"}))
    parsed = Parsed(made)
    assert [tag.get("id") for tag in parsed.all("script")] == ["data", None]
    assert {tag for tag, _ in parsed.tags} == {tag for tag, _ in plain.tags}
    assert [parsed.data["symbols"][i][0] for i in parsed.data["text"]] == NASTY
    assert parsed.texts["script"] == plain.texts["script"]
    assert "<img src=x onerror" in parsed.texts["h1"] and "\\u202e" in parsed.texts["h1"]
    assert "\x00" not in made and made.encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": []}, "a page needs at least one token and one layer"),
        ({"layers": []}, "a page needs at least one token and one layer"),
        ({"guesses": np.zeros((3, 5), int)}, r"guesses must be \[L, K\] with L = 50"),
        ({"guesses": np.full((50, 3), 99)}, "guesses must all be from 0 to"),
        ({"guesses": np.full((50, 3), -1)}, "guesses must all be from 0 to"),
        ({"probabilities": np.zeros((50, 2))}, r"probabilities must be \[L, K\] with K = 3"),
        ({"probabilities": np.full((50, 3), np.nan)}, "probabilities must all be from 0 to 1"),
        ({"layers": [Layer("a", np.full((50, 2), 1.5), {})]}, "activations of a must all be from"),
        ({"layers": [Layer("a", np.zeros((9, 2)), {})]}, r"activations of a must be \[L, H\]"),
        (
            {"layers": [Layer("a", np.zeros((50, 2)), {"f": np.zeros((50, 3))})]},
            r"the gate f of a must be \[L, H\] with H = 2",
        ),
        (
            {"layers": [Layer("a", np.zeros((50, 2)), {"f": np.full((50, 2), -0.1)})]},
            "the gate f of a must all be from 0 to 1",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, message):
    assert len(TEXT) == 50
    names = ("tokens", "guesses", "probabilities", "vocabulary", "layers")
    arguments = dict(zip(names, pieces(), strict=True)) | change
    with pytest.raises(ValueError, match=message):
        make_page(title="a", facts={}, **arguments)


def test_guesses_must_be_integers():
    tokens, ids, probabilities, names, layers = pieces()
    with pytest.raises(TypeError, match="guesses must be integer"):
        make_page("a", tokens, ids.astype(float), probabilities, names, layers, {})


def test_a_single_jamo_is_shown_as_its_letter():
    finals = "ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"
    assert "".join(display_text(chr(0x11A8 + i)) for i in range(27)) == finals
    for jamo in (*range(0x1100, 0x1113), *range(0x1161, 0x1176)):
        assert display_text(chr(jamo)) != chr(jamo)
        assert unicodedata.normalize("NFKD", display_text(chr(jamo))) == chr(jamo)
    assert display_text("한") == "한" and display_text("0xEA") == "0xEA"


def classes(parsed, name):
    """Each element of one class, with all its classes."""
    found = [attributes.get("class") or "" for _, attributes in parsed.tags]
    return [names.split() for names in found if name in names.split()]


def levels(parsed):
    """The color of each token, -20 to 20."""
    return [
        next(int(name[1:]) for name in names if name[0] == "l" and name != "line")
        for names in classes(parsed, "token")
    ]


COLOURS = """
  seen.colors = tokens.map(token => getComputedStyle(token).backgroundColor);
  seen.texts = tokens.map(token => token.textContent);
"""


def test_a_browser_colors_the_text_by_the_first_cell(browse):
    tokens, ids, _, names, layers = arguments = pieces()
    seen, parsed = browse(make_page("a", *arguments, {}), COLOURS)
    assert parsed.texts["chosen"].startswith("cell 2 of layer 2 - bracket depth, r = −0.9")
    assert seen["texts"] == [token if token == " " else display_text(token) for token in tokens]
    cell = layers[1].activations[:, 2]
    np.testing.assert_allclose(np.array(levels(parsed)) / 20, cell, atol=0.03)
    assert len(set(seen["colors"])) == len(set(levels(parsed))), "each level has its own color"
    assert len(classes(parsed, "line")) == TEXT.count("\n")
    assert len(classes(parsed, "guess")) == ids.size
    came = sum(names[i] == tokens[t + 1] for t in range(len(tokens) - 1) for i in ids[t])
    assert len(classes(parsed, "true")) == came > 0
    assert [tag["data-cell"] for tag in parsed.all("circle") if tag.get("class")] == ["2.2"] * 2
    options = parsed.all("option")
    assert len(options) == 3 + 11


def test_the_url_selects_the_cell(browse):
    *_, layers = arguments = pieces()
    made = make_page("a", *arguments, {})
    _, parsed = browse(made, hash="#cell=1.5")
    assert parsed.texts["chosen"].startswith("cell 5 of layer 1 - ")
    cell = layers[0].activations[:, 5]
    np.testing.assert_allclose(np.array(levels(parsed)) / 20, cell, atol=0.03)
    _, parsed = browse(made, hash="#cell=3.5")
    assert parsed.texts["chosen"].strip() == "There is no cell 5 of layer 3 on this page."


CONTROLS = """
  const key = (key, shiftKey = false) =>
    document.body.dispatchEvent(new KeyboardEvent("keydown", {key, shiftKey, bubbles: true}));
  const set = (id, value, event) => {
    by(id).value = value;
    by(id).dispatchEvent(new Event(event, {bubbles: true}));
  };
  const cell = () => data.cells.indexOf(offered[place]);
  const log = what => seen[what] = [cell(), by("chosen").textContent];
  key("ArrowRight"); log("right");
  key("j"); key("j"); log("j");
  key("k"); log("k");
  for (let i = 0; i < 20; i++) key("ArrowLeft");
  log("left");
  set("slider", 6, "input"); log("slider");
  by("list").selectedIndex = 8; by("list").dispatchEvent(new Event("change")); log("list");
  by("back").click(); log("back");
  goTo(0, 1); set("number", 4, "change"); log("number");
  set("number", 77, "change"); seen.missing = by("chosen").textContent;
  set("layer", "1", "change"); log("layer");
  seen.offered = [...by("list").options].map(option => option.textContent);
  seen.most = by("slider").max;
  const dot = document.querySelector('circle[data-cell="1.3"]');
  dot.dispatchEvent(new Event("click", {bubbles: true}));
  log("dot");
  key("ArrowRight", true); key("ArrowRight", true); seen.exact = by("exact").textContent;
  tokens[5].dispatchEvent(new Event("pointerover", {bubbles: true}));
  seen.pointed = by("exact").textContent;
  const visible = () => document.querySelectorAll(".guess")[0].checkVisibility();
  seen.guesses = [visible()]; by("guesses").click(); seen.guesses.push(visible());
  const paper = () => getComputedStyle(document.body).backgroundColor;
  seen.paper = [paper()]; by("theme").click(); seen.paper.push(paper());
  by("theme").click(); seen.paper.push(paper());
  setTimeout(() => { document.body.dataset.hash = location.hash; }, 500);
"""


def test_every_control_moves_the_cell(browse):
    tokens, ids, probabilities, names, layers = arguments = pieces()
    made = make_page("a", *arguments, {})
    order = [tuple(cell[:2]) for cell in Parsed(made).data["cells"]]
    seen, parsed = browse(made, CONTROLS)
    places = {"right": 1, "j": 3, "k": 2, "left": 0, "slider": 5, "list": 8, "back": 7}
    places |= {"number": order.index((0, 4)), "dot": order.index((0, 3))}
    places |= {"layer": next(i for i, (layer, _) in enumerate(order) if layer == 1)}
    for name, place in places.items():
        layer, cell = order[place]
        assert seen[name][0] == place, name
        assert seen[name][1].startswith(f"cell {cell} of layer {layer + 1} - "), name
    assert seen["missing"] == "There is no cell 77 of layer 1 on this page."
    assert [line.split()[1] for line in seen["offered"]] == [str(i) for at, i in order if at == 1]
    assert seen["most"] == "4"
    for name, t in {"exact": 1, "pointed": 5}.items():
        value = f"{layers[0].activations[t, 3]:.2f}".replace("-", "−")
        assert seen[name].startswith(f"{display_text(tokens[t])} at {t}: {value[:-1]}")
        best = f"{display_text(names[ids[t, 0]])} {100 * probabilities[t, 0]:.0f}%"
        assert f"expected next: {best} · " in seen[name]
    assert seen["guesses"] == [True, False]
    assert seen["paper"][0] == seen["paper"][2] != seen["paper"][1]
    assert parsed.all("body")[0]["data-hash"] == "#cell=1.3"
    assert "error" not in seen


def test_a_nasty_text_is_harmless_in_a_browser(browse):
    seen, parsed = browse(nasty_page(), COLOURS)
    [body] = parsed.all("body")
    assert "data-hit" not in body and "error" not in seen
    assert seen["texts"] == [display_text(token) for token in NASTY]
    [syllable] = [tag for tag in parsed.all("span") if "data-whole" in tag]
    assert syllable["data-whole"] == "한"
