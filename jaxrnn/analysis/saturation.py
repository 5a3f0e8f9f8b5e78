"""How often each gate is nearly closed or nearly open: numbers, and their plots for a web page.

After Karpathy, Johnson and Li (2015), "Visualizing and Understanding Recurrent Networks", section
4.2 and figure 2.
"""

import html
from collections.abc import Mapping

import numpy as np

from jaxrnn.text.characters import escape_unprintable

LOW, HIGH = 0.1, 0.9  # a gate is left-saturated below and right-saturated above
OFTEN = 0.9  # fraction of the tokens
GATES = {"i": "input", "f": "forget", "o": "output", "r": "reset", "z": "update"}
SIDE, MARGIN = 150, 42  # of a plot, in SVG units


def saturation(gate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the fractions of tokens at which each unit of a gate is saturated.

    Karpathy, Johnson and Li (2015), section 4.2.

    Args:
      gate: [L, H], 0..1.

    Returns:
      the fractions at which it is left-saturated (below 0.1), and right-saturated (above 0.9), [H]
      each.

    >>> left, right = saturation(np.array([[0.05, 0.5], [0.95, 0.1], [0.99, 0.9], [0.92, 0.0]]))
    >>> left.tolist(), right.tolist()
    ([0.25, 0.25], [0.75, 0.0])
    """
    return np.mean(gate < LOW, axis=0), np.mean(gate > HIGH, axis=0)


def escaped(text: str) -> str:
    """Escape a text for HTML, in an element or a quoted attribute."""
    return html.escape(escape_unprintable(text))


def plots(number: int, layer: str, gates: Mapping[str, np.ndarray]) -> str:
    """Return HTML with a scatter plot for each gate: right against left saturation of its units.

    Args:
      number: of the layer, from 1; it marks each unit's dot, as in `data-cell="1.37"`.
      layer: its name.
      gates: by name, [L, H] each, 0..1; the result is empty if there are none.
    """
    figures = []
    for name, gate in gates.items():
        full = f"{GATES[name]} gate" if name in GATES else f"gate {name}"
        left, right = saturation(np.asarray(gate))
        label = f"{escaped(full)}, {escaped(layer)}"
        dots = "".join(
            f'<circle cx="{SIDE * x:.1f}" cy="{SIDE * (1 - y):.1f}" r="3"'
            f' data-cell="{number}.{cell}"><title>cell {cell}: below {LOW} {y:.0%} of the time,'
            f" above {HIGH} {x:.0%}</title></circle>"
            for cell, (y, x) in enumerate(zip(left, right, strict=True))
        )
        figures.append(
            f"<figure><figcaption>{label}</figcaption>"
            f'<svg viewBox="-{MARGIN} -8 {SIDE + MARGIN + 12} {SIDE + MARGIN + 4}" role="img"'
            f' aria-label="{label}: left against right saturation of each unit">'
            f'<path d="M0 0V{SIDE}H{SIDE}"/><path class="edge" d="M0 0L{SIDE} {SIDE}"/>'
            f"{_ticks()}{dots}</svg>"
            f"<p>{_often(full, left, right)}</p><p class=of-cell data-layer={number}></p></figure>"
        )
    return f"<div class=gates>{''.join(figures)}</div>" if figures else ""


def _ticks() -> str:
    """Return the ticks and labels of a scatter plot's axes."""
    middle, low = SIDE / 2, SIDE + 15
    return (
        f'<text x="0" y="{low}">0</text><text x="{middle}" y="{low}">0.5</text>'
        f'<text x="{SIDE}" y="{low}">1</text><text class="y" x="-5" y="{SIDE + 4}">0</text>'
        f'<text class="y" x="-5" y="{middle + 4}">0.5</text><text class="y" x="-5" y="4">1</text>'
        f'<text x="{middle}" y="{low + 15}">time above {HIGH} (right-saturated)</text>'
        f'<text transform="translate(-30 {middle}) rotate(-90)">time below {LOW} (left)</text>'
    )


def _often(name: str, left: np.ndarray, right: np.ndarray) -> str:
    """Say how many units of a gate are nearly always saturated.

    >>> _often("forget gate", np.array([0.0, 0.91, 0.2]), np.array([0.95, 0.0, 0.6]))
    'forget gate: 1 of 3 units is right-saturated more than 90% of the time, 1 left-saturated'
    """
    shut, opened = int(np.sum(left > OFTEN)), int(np.sum(right > OFTEN))
    return (
        f"{escaped(name)}: {opened} of {len(left)} units {'is' if opened == 1 else 'are'}"
        f" right-saturated more than {OFTEN:.0%} of the time, {shut} left-saturated"
    )
