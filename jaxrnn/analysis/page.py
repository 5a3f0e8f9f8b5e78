"""One web page that shows what a trained character model's cells do as it reads a text.

After Karpathy, Johnson and Li (2015), "Visualizing and Understanding Recurrent Networks", sections
4.1 and 4.2. The page is a single file, holds its own script and style, and fetches nothing.
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
from jaxrnn.checks import check_axes, check_kind
from jaxrnn.text.characters import escape_unprintable

MOST_BYTES = 16_000_000  # of activations in a page; a browser still opens it at once


class Layer(NamedTuple):
    """What one recurrent layer did at each of L units."""

    name: str  # such as "layer 1"
    activations: np.ndarray  # [L, H], -1..1: tanh of an LSTM's cell state, else the hidden state
    gates: Mapping[str, np.ndarray]  # by name, [L, H] each, 0..1


def make_page(
    title: str,
    units: Sequence[str],
    guesses: np.ndarray,
    probabilities: np.ndarray,
    names: Sequence[str],
    layers: Sequence[Layer],
    facts: Mapping[str, str],
) -> str:
    r"""A web page that shows a text through a model's cells, as UTF-8 text.

    Args:
      title: what the page is about.
      units: the L units that were read, most often characters; "\n" ends a line.
      guesses: [L, K] int, what the model expects after each unit, the likeliest first: places in
        `names`.
      probabilities: [L, K], of each guess.
      names: [V] the vocabulary, written as `units` are, so that a guess that comes true is known.
      layers: one or more.
      facts: shown in a small table.

    Raises:
      TypeError: if `guesses` are no integers.
      ValueError: if there are no units or layers, if the arrays do not fit each other, or if a
        number is not finite or is out of range.
    """
    units, names = list(units), list(names)
    _check(units, guesses, probabilities, names, layers)
    order = rank(np.concatenate([layer.activations for layer in layers], 1), features(units))
    sizes = [np.shape(layer.activations)[1] for layer in layers]
    places = [(at, cell) for at, size in enumerate(sizes) for cell in range(size)]
    kept = order[: max(1, MOST_BYTES // len(units))]
    cells = [(*places[match.cell], match.feature, round(match.r, 4)) for match in kept]
    symbols = list(dict.fromkeys(units + names))
    data = {
        "symbols": [[unit, shown(unit)] for unit in symbols],
        "text": _places(units, symbols),
        "syllables": _syllables(units),
        "guesses": np.array(_places(names, symbols))[np.asarray(guesses)].ravel().tolist(),
        "probabilities": np.round(np.asarray(probabilities, float), 4).ravel().tolist(),
        "layers": [_packed(layer, at, cells) for at, layer in enumerate(layers)],
        "cells": cells,
    }
    parts = {
        "title": escaped(title),
        "facts": "".join(
            f"<tr><th scope=row>{escaped(name)}<td>{escaped(fact)}" for name, fact in facts.items()
        ),
        "note": _note(len(kept), len(order)),
        "gates": "".join(plots(i + 1, layer.name, layer.gates) for i, layer in enumerate(layers)),
        # In JSON every "<" stands in a string; so written none can end the script element.
        "data": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    }
    template = files("jaxrnn.analysis").joinpath("page.html").read_text(encoding="utf-8")
    return re.sub(r"<!--(\w+)-->", lambda mark: parts[mark[1]], template)


def shown(unit: str) -> str:
    r"""A unit as it is written where it stands alone.

    A conjoining Hangul jamo, which would melt into its neighbours, becomes the letter; a mark that
    combines stands on a dotted circle; a control character has its picture.

    >>> [shown(unit) for unit in ("a", "\n", " ", "\x00", "\u0301", "\u11ab", "\u2028")]
    ['a', '↵', '␣', '␀', '◌́', 'ㄴ', '\\u2028']
    """
    return "".join(map(_shown, unit))


def _shown(character: str) -> str:
    fixed = {" ": "␣", "\n": "↵", "\t": "⇥", "\x7f": "␡"}
    if character in fixed:
        return fixed[character]
    if character < " ":
        return chr(0x2400 + ord(character))
    if unicodedata.category(character)[0] == "M":
        return "◌" + character
    if "\u1100" <= character <= "\u11ff":
        name = unicodedata.name(character)
        for part in ("CHOSEONG", "JUNGSEONG", "JONGSEONG"):
            name = name.replace(part, "LETTER")
        try:
            return unicodedata.lookup(name)
        except KeyError:  # of old spellings, which have no letter of their own
            return character
    return escape_unprintable(character)


def _check(
    units: list[str],
    guesses: np.ndarray,
    probabilities: np.ndarray,
    names: list[str],
    layers: Sequence[Layer],
) -> None:
    """Refuse what `make_page` cannot show."""
    if not units or not layers:
        raise ValueError("a page needs one unit and one layer or more")
    sizes = check_axes("guesses", guesses, "LK", L=len(units))
    check_axes("probabilities", probabilities, "LK", **sizes)
    check_kind("guesses", guesses, np.integer)
    _check_range("guesses", guesses, 0, len(names) - 1)
    _check_range("probabilities", probabilities, 0, 1)
    for layer in layers:
        name = f"the activations of {layer.name}"
        sizes = check_axes(name, layer.activations, "LH", L=len(units))
        _check_range(name, layer.activations, -1, 1)
        for gate, values in layer.gates.items():
            check_axes(f"the gate {gate} of {layer.name}", values, "LH", **sizes)
            _check_range(f"the gate {gate} of {layer.name}", values, 0, 1)


def _note(kept: int, cells: int) -> str:
    """What the page does not hold, if anything."""
    if kept == cells:
        return ""
    why = "a shorter text would leave room for more"
    return f"Only the {kept} most structured of {cells} cells are here: {why}."


def _check_range(name: str, values: np.ndarray, low: float, high: float) -> None:
    values, slack = np.asarray(values), 1e-5 * (np.asarray(values).dtype.kind == "f")  # rounding
    if not np.all((values >= low - slack) & (values <= high + slack)):  # nor is NaN
        raise ValueError(f"{name} must all be from {low} to {high}")


def _places(values: Sequence[str], symbols: Sequence[str]) -> list[int]:
    place = {symbol: i for i, symbol in enumerate(symbols)}
    return [place[value] for value in values]


def _syllables(units: list[str]) -> dict[int, int]:
    """Where decomposed Hangul syllables begin, and of how many jamo each is."""
    text = "".join(unit if len(unit) == 1 else " " for unit in units)
    return {match.start(): len(match[0]) for match in SYLLABLE.finditer(text)}


def _packed(layer: Layer, at: int, cells: Sequence[tuple[int, int, str, float]]) -> dict[str, Any]:
    """A layer's kept cells for the page: a row of L int8 each, 127 for 1, in base64.

    A row is padded to a multiple of three bytes, so that each can be decoded by itself.
    """
    kept = sorted(cell for its_layer, cell, *_ in cells if its_layer == at)
    rows = np.asarray(layer.activations)[:, kept].T
    rows = np.rint(127 * np.clip(rows, -1, 1)).astype(np.int8)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 3)))
    packed = base64.b64encode(rows.tobytes()).decode("ascii")
    return {"name": escape_unprintable(layer.name), "kept": kept, "packed": packed}
