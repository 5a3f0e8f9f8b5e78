"""A web page that shows what the cells of a trained character model do as it reads a text.

After Karpathy, Johnson and Li (2015), "Visualizing and Understanding Recurrent Networks", sections
4.1 and 4.2. The page is a single file with its own script and style, and it loads nothing else.
"""

import base64
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from jaxrnn.analysis.saturation import escaped, plots
from jaxrnn.analysis.text_features import SYLLABLE, features, rank
from jaxrnn.analysis.writer import tab
from jaxrnn.checks import check_axes, check_kind
from jaxrnn.text.characters import display, escape_unprintable

MOST_BYTES = 16_000_000  # of activations in a page; browsers open it without delay


class Layer(NamedTuple):
    """What one recurrent layer did at each of L tokens."""

    name: str  # such as "layer 1"
    activations: np.ndarray  # [L, H], -1..1: tanh of an LSTM's cell state, else the hidden state
    gates: Mapping[str, np.ndarray]  # by name, [L, H] each, 0..1


def make_page(
    title: str,
    tokens: Sequence[str],
    guesses: np.ndarray,
    probabilities: np.ndarray,
    vocabulary: Sequence[str],
    layers: Sequence[Layer],
    facts: Mapping[str, str],
    network: Mapping[str, Any] | None = None,
) -> str:
    r"""Return a web page (HTML) that shows how a model's cells read a text.

    Args:
      title: the page's title.
      tokens: the L tokens that were read, most often characters; "\n" ends a line.
      guesses: [L, K] int, the most likely next tokens after each one, most likely first: indices
        into `vocabulary`.
      probabilities: [L, K], the probability of each guess.
      vocabulary: V tokens, in the same form as `tokens`.
      layers: one or more.
      facts: for a small table.
      network: for a tab in which the network writes; see `writer.tab`.

    Raises:
      TypeError: if `guesses` are not integers.
      ValueError: if there are no tokens or layers, the arrays' shapes do not match, or a number is
        not finite or out of range.
    """
    tokens, vocabulary = list(tokens), list(vocabulary)
    _check(tokens, guesses, probabilities, vocabulary, layers)
    order = rank(np.concatenate([layer.activations for layer in layers], 1), features(tokens))
    sizes = [np.shape(layer.activations)[1] for layer in layers]
    places = [(at, cell) for at, size in enumerate(sizes) for cell in range(size)]
    kept = order[: max(1, MOST_BYTES // len(tokens))]
    cells = [(*places[match.cell], match.feature, round(match.r, 4)) for match in kept]
    symbols = list(dict.fromkeys(tokens + vocabulary))
    data = {
        "symbols": [[token, display_text(token)] for token in symbols],
        "text": _places(tokens, symbols),
        "syllables": _syllables(tokens),
        "guesses": np.array(_places(vocabulary, symbols))[np.asarray(guesses)].ravel().tolist(),
        "probabilities": np.round(np.asarray(probabilities, float), 4).ravel().tolist(),
        "layers": [_pack(layer, at, cells) for at, layer in enumerate(layers)],
        "cells": cells,
    }
    parts = {
        "title": escaped(title),
        "facts": "".join(
            f"<tr><th scope=row>{escaped(name)}<td>{escaped(fact)}" for name, fact in facts.items()
        ),
        "note": _note(len(kept), len(order)),
        "gates": "".join(plots(i + 1, layer.name, layer.gates) for i, layer in enumerate(layers)),
        # In JSON every "<" is inside a string; escaped, none can end the script element.
        "data": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        **tab(network, [display_text(token) for token in vocabulary]),
    }
    template = files("jaxrnn.analysis").joinpath("page.html").read_text(encoding="utf-8")
    return re.sub(r"<!--(\w+)-->", lambda mark: parts[mark[1]], template)


def display_text(token: str) -> str:
    """Return a token of any length as it is displayed on its own."""
    return "".join(display(_letter(character)) for character in token)


def _letter(character: str) -> str:
    """Replace a conjoining Hangul jamo, which merges with its neighbors, by the letter."""
    if not "\u1100" <= character <= "\u11ff":
        return character
    name = unicodedata.name(character)
    for part in ("CHOSEONG", "JUNGSEONG", "JONGSEONG"):
        name = name.replace(part, "LETTER")
    try:
        return unicodedata.lookup(name)
    except KeyError:  # some old jamo have no letter
        return character


def _check(
    tokens: list[str],
    guesses: np.ndarray,
    probabilities: np.ndarray,
    vocabulary: list[str],
    layers: Sequence[Layer],
) -> None:
    """Check the arguments of `make_page`."""
    if not tokens or not layers:
        raise ValueError("a page needs at least one token and one layer")
    sizes = check_axes("guesses", guesses, "LK", L=len(tokens))
    check_axes("probabilities", probabilities, "LK", **sizes)
    check_kind("guesses", guesses, np.integer)
    _check_range("guesses", guesses, 0, len(vocabulary) - 1)
    _check_range("probabilities", probabilities, 0, 1)
    for layer in layers:
        name = f"the activations of {layer.name}"
        sizes = check_axes(name, layer.activations, "LH", L=len(tokens))
        _check_range(name, layer.activations, -1, 1)
        for gate, values in layer.gates.items():
            check_axes(f"the gate {gate} of {layer.name}", values, "LH", **sizes)
            _check_range(f"the gate {gate} of {layer.name}", values, 0, 1)


def _note(kept: int, cells: int) -> str:
    """Say which cells the page leaves out, if any."""
    if kept == cells:
        return ""
    return (
        f"Only the {kept} of {cells} cells with the highest correlations are shown; a shorter text"
        " leaves room for more."
    )


def _check_range(name: str, values: np.ndarray, low: float, high: float) -> None:
    values, slack = (
        np.asarray(values),
        1e-5 * (np.asarray(values).dtype.kind == "f"),
    )  # for rounding
    if not np.all((values >= low - slack) & (values <= high + slack)):  # also if NaN
        raise ValueError(f"{name} must all be from {low} to {high}")


def _places(values: Sequence[str], symbols: Sequence[str]) -> list[int]:
    place = {symbol: i for i, symbol in enumerate(symbols)}
    return [place[value] for value in values]


def _syllables(tokens: list[str]) -> dict[int, int]:
    """Map the start of each decomposed Hangul syllable to its number of jamo."""
    text = "".join(token if len(token) == 1 else " " for token in tokens)
    return {match.start(): len(match[0]) for match in SYLLABLE.finditer(text)}


def _pack(layer: Layer, at: int, cells: Sequence[tuple[int, int, str, float]]) -> dict[str, Any]:
    """Pack the activations of a layer's kept cells: a row of L int8 each, 127 for 1, in base64.

    Rows are padded to a multiple of three bytes, so that each can be decoded alone.
    """
    kept = sorted(cell for its_layer, cell, *_ in cells if its_layer == at)
    rows = np.asarray(layer.activations)[:, kept].T
    rows = np.rint(127 * np.clip(rows, -1, 1)).astype(np.int8)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 3)))
    packed = base64.b64encode(rows.tobytes()).decode("ascii")
    return {"name": escape_unprintable(layer.name), "kept": kept, "packed": packed}
