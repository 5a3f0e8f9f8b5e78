"""The tab in which the network writes: its weights, and what a browser computes from them."""

import base64
import json
import re
from functools import partial
from importlib.resources import files

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from html_pages import Parsed
from variants import randomised

from jaxrnn.analysis.page import Layer, make_page
from jaxrnn.analysis.writer import pack_network
from jaxrnn.cells import CELLS, ElmanCell, GRUCell, LSTMCell, MinLSTMCell
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Stack
from jaxrnn.models import LanguageModel
from jaxrnn.text.tokenizer import detokenize, tokenize

TEXT = "Say, 한국말 ㅋㅋ, café </script> 값\n\n가나다"
STRANGE = ["한\r\n값\r", "\u1112\u1161\u11ab가\u11ab", "cafe\u0301", "\u1100\u11a8", "ㅋㅋ", ""]

STACK = (
    partial(LSTMCell, 6, peepholes=True, coupled_gates=True, cell_clip=0.3, projection_size=5),
    partial(GRUCell, 5, reset_after=False),
    partial(LSTMCell, 5, peepholes=True),
    partial(ElmanCell, 5, activation_fn=nn.relu),
    partial(nn.OptimizedLSTMCell, 5),
)
CASES = {
    "stack": (
        "jamo",
        lambda size: LanguageModel(
            Stack(tuple(Recurrent(cell()) for cell in STACK), residual=True, dropout=0.2),
            size,
            embedding_size=5,
            tie_embeddings=True,
        ),
    ),
    "lstm": ("characters", lambda size: LanguageModel(Recurrent(LSTMCell(7)), size)),
    "gru": ("jamo", lambda size: LanguageModel(Recurrent(GRUCell(7)), size, embedding_size=4)),
    "rnn": ("bytes", lambda size: LanguageModel(Stack((Recurrent(ElmanCell(7)),)), size)),
}


def trained(model, seed=0):
    """Random parameters, small enough that no activation is saturated."""
    key = jax.random.key(seed)
    shapes = jax.eval_shape(model.init, key, jnp.zeros((1, 1), jnp.int32))
    return jax.tree.map(lambda leaf: 0.6 * leaf, randomised(shapes["params"], key))


def page_of(model, params, tokenizer, vocabulary, prompt=""):
    """A page whose first tab shows next to nothing."""
    network = pack_network(model, params)
    network |= {"tokenizer": tokenizer, "vocabulary": vocabulary, "prompt": prompt}
    layer = Layer("layer 1", np.zeros((1, 2), np.float32), {})
    first = (["a"], np.zeros((1, 1), int), np.ones((1, 1)), vocabulary, [layer])
    return make_page("a", *first, {}, network)


def case(name):
    tokenizer, make = CASES[name]
    vocabulary = sorted(set(tokenize(TEXT, tokenizer)))
    model = make(len(vocabulary))
    return model, trained(model), tokenizer, vocabulary


def ids_of(text, tokenizer, vocabulary):
    return [vocabulary.index(token) for token in tokenize(text, tokenizer)]


def unpacked(packed, *shape):
    return np.frombuffer(base64.b64decode(packed["float32"]), "<f4").reshape(shape)


def test_the_script_is_short_and_loads_nothing():
    script = files("jaxrnn.analysis").joinpath("writer.js").read_text("utf-8")
    assert sum(1 for line in script.splitlines() if line.strip()) < 150
    assert max(map(len, script.splitlines())) <= 120
    html = files("jaxrnn.analysis").joinpath("writer.html").read_text("utf-8")
    for part in ("http:", "https:", "src=", "href=", "import", "fetch(", "url(", "innerHTML"):
        assert part not in script + html
    for word in ("eval(", "XMLHttpRequest", "WebSocket", "document.write"):
        assert word not in script


@pytest.mark.parametrize("name", CASES)
def test_the_page_has_the_weights(name):
    model, params, tokenizer, vocabulary = case(name)
    parsed = Parsed(page_of(model, params, tokenizer, vocabulary, TEXT))
    network = json.loads(parsed.texts["network"])
    assert network["vocabulary"] == vocabulary and network["prompt"] == TEXT
    assert [tag.get("id") for tag in parsed.all("script")] == ["data", None, "network", None]
    size, own = len(vocabulary), params["recurrent"]
    bias = params["bias"] if name == "stack" else params["readout"]["bias"]
    np.testing.assert_array_equal(unpacked(network["readout_bias"], size), bias)
    if name == "stack":
        embedding = params["embedding"]["embedding"]
        np.testing.assert_array_equal(unpacked(network["readout"], 5, size), embedding.T)
        np.testing.assert_array_equal(unpacked(network["embedding"], size, 5), embedding)
        own = own["layers_2"]
        assert [layer["residual"] for layer in network["layers"]] == [False] + 4 * [True]
    if name in ("lstm", "stack"):
        layer = network["layers"][2 if name == "stack" else 0]
        units = layer["units"]
        kernel = unpacked(layer["hidden"], units, 4, units)
        for n, gate in enumerate("ifgo"):
            np.testing.assert_array_equal(kernel[:, n], own["cell"]["h" + gate]["kernel"])
        peephole = own["cell"]["pf"] if name == "stack" else np.zeros(units)
        np.testing.assert_array_equal(unpacked(layer["pf"], units), peephole)


PROBABILITIES = """
  seen.read = given.texts.map(encode);
  seen.written = seen.read.map(decode);
  seen.probabilities = [];
  let now = start;
  for (const id of given.ids) {
    now = step(now, id);
    seen.probabilities.push(Array.from(chances(now, 1)));
  }
"""


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", CASES)
def test_a_browser_computes_the_probabilities(browse, name):
    model, params, tokenizer, vocabulary = case(name)
    known = [TEXT, *(text for text in STRANGE if set(tokenize(text, tokenizer)) <= set(vocabulary))]
    assert len(known) >= 3
    ids = ids_of(TEXT, tokenizer, vocabulary)
    given = json.dumps({"ids": ids, "texts": known}).replace("<", "\\u003c")
    made = page_of(model, params, tokenizer, vocabulary)
    seen, _ = browse(made, f"const given = {given};" + PROBABILITIES)
    logits, _ = model.apply({"params": params}, jnp.array([ids]))
    expected = np.asarray(jax.nn.softmax(logits[0]))
    assert np.ptp(expected, axis=0).max() > 0.05, "what was read matters"
    np.testing.assert_allclose(seen["probabilities"], expected, atol=1e-5)
    assert seen["read"] == [ids_of(text, tokenizer, vocabulary) for text in known]
    written = [detokenize(tokenize(text, tokenizer), tokenizer) for text in known]
    assert seen["written"] == [re.sub("\r\n?", "\n", text) for text in written]
    assert "error" not in seen


WRITING = """
  const typed = text => { box.value = text; box.dispatchEvent(new InputEvent("input")); };
  const log = name => seen[name] = [box.value, by("write").textContent, by("said").textContent];
  const shown = () => [...document.querySelectorAll("figure[data-name]")]
    .filter(figure => figure.checkVisibility()).map(figure => figure.dataset.name).join("");
  seen.tabs = [box.checkVisibility(), by("text").checkVisibility()];
  by("writes").click();
  seen.tabs.push(box.checkVisibility(), by("text").checkVisibility());
  log("prompt");
  seen.bars = bars.map(bar => [bar.textContent, bar.dataset.share]);
  seen.gates = [shown()];
  typed("Sax, q값"); log("refused");
  const compose = (text, event) => { box.value = text; box.dispatchEvent(event); };
  compose("Say, ㅎ", new InputEvent("input", {isComposing: true})); log("composing");
  compose("Say, 한", new CompositionEvent("compositionend")); log("composed");
  seen.composed.push(decode(ids));
  by("reset").click(); log("reset"); seen.gates.push(shown(), bars[0].checkVisibility());
  typed("Say"); typed("Say, "); log("typed");
  by("heat").value = 0; by("write").click(); log("writing");
  const painted = canvas => new Set(canvas.getContext("2d").getImageData(0, 0, 99, 11).data).size;
  seen.painted = painted(document.querySelector('figure[data-name="f"] canvas'));
  setTimeout(() => { by("write").click(); log("stopped"); bars[0].click(); log("clicked");
    document.body.dataset.later = JSON.stringify(seen); }, 1000);
"""


@pytest.mark.slow
def test_the_reader_and_the_network_take_turns(browse):
    model, params, tokenizer, vocabulary = case("lstm")
    made = page_of(model, params, tokenizer, vocabulary, "Say, 한")
    _, parsed = browse(made, WRITING)
    seen = json.loads(parsed.all("body")[0]["data-later"])
    assert seen["tabs"] == [False, True, True, False]
    assert seen["prompt"] == ["Say, 한", "Write", ""]

    def after(text):
        ids = jnp.array([ids_of(text, tokenizer, vocabulary)])
        return np.asarray(jax.nn.softmax(model.apply({"params": params}, ids)[0][0, -1]))

    expected = after("Say, 한")
    for (name, share), id in zip(seen["bars"], np.argsort(-expected), strict=False):
        assert name == {" ": "␣", "\n": "↵"}.get(vocabulary[id], vocabulary[id])
        assert abs(float(share.removesuffix("%")) / 100 - expected[id]) < 0.006
    assert len(seen["bars"]) == 10
    assert seen["gates"] == ["ifogch", "", False]
    assert seen["refused"] == ["Sa, 값", "Write", 'Not in the vocabulary, so left out: "x" "q"']
    assert seen["composing"] == ["Say, ㅎ", "Write", seen["refused"][2]]
    assert seen["composed"] == ["Say, 한", "Write", "", "Say, 한"]
    assert seen["reset"] == ["", "Write", ""]
    assert seen["typed"] == ["Say, ", "Write", ""]
    assert seen["writing"][1] == "Stop" and seen["painted"] > 5
    text, button, _ = seen["stopped"]
    assert button == "Write" and len(text) > len("Say, ") + 10
    for n in range(len("Say, "), len(text)):
        assert text[n] == vocabulary[after(text[:n]).argmax()]
    assert seen["clicked"][0] == text + vocabulary[after(text).argmax()]
    assert "error" not in seen


@pytest.mark.parametrize(
    ("recurrent", "reason"),
    [
        (lambda: Recurrent(MinLSTMCell(4)), "the page's script has no MinLSTMCell"),
        (lambda: Recurrent(CELLS["lstm"](4, layer_norm=True)), "has no LSTMCell with layer_norm"),
        (lambda: Recurrent(LSTMCell(4, dtype=jnp.bfloat16)), "in float32, but the network in bfl"),
        (
            lambda: Stack((Stack((Recurrent(GRUCell(4)), Recurrent(GRUCell(4)))),)),
            "the page's script has no Stack inside another",
        ),
        (lambda: Recurrent(GRUCell(1000)), "the network has 3,0.* parameters, and a page at most"),
    ],
)
def test_what_the_script_cannot_compute_is_refused(recurrent, reason):
    model = LanguageModel(recurrent(), 3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    with pytest.raises(SettingError, match=reason):
        pack_network(model, shapes["params"])


def test_a_page_without_a_network_has_one_tab():
    layer = Layer("layer 1", np.zeros((1, 2), np.float32), {})
    text = make_page("a", ["a"], np.zeros((1, 1), int), np.ones((1, 1)), ["a"], [layer], {})
    parsed = Parsed(text)
    assert not {"box", "network", "reads"} & {tag.get("id") for _, tag in parsed.tags}
