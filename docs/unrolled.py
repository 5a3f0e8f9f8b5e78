"""Draw `images/unrolled.svg`: the network that learns `hihello`, folded and unrolled over time."""

from itertools import pairwise
from pathlib import Path

INPUTS, TARGETS = "hihell", "ihello"
INK, SOFT, ACCENT = "#22313f", "#8795a1", "#c8553d"  # as in jaxrnn/analysis/plots.py
FOLDED, FIRST, STEP = 58, 332, 96  # x of the folded network, of t = 0, from each t to the next
PREDICTION, READOUT, CELL, INPUT, TIME = 50, 124, 204, 288, 329  # y of the rows
BOX, CELL_WIDTH, CELL_HEIGHT, READOUT_HEIGHT = 36, 52, 56, 32  # sizes
HEAD = 8  # length of an arrowhead
ZERO, BAND = 252, (296, 936)  # x of the initial carry, of the ends of the band behind the cells

TITLE = f"An LSTM that reads {INPUTS} and predicts {TARGETS}, folded and unrolled over time"
DESC = f"""Left: the folded network. The input x_t goes into one LSTM cell, an arrow loops from the
cell back to itself with the carry (c, h), and a dense readout gives the prediction y_t. Right: the
same network unrolled over time, t = 0 to 5. Six copies of the cell, which share one set of weights,
are in a row; the carry starts at zero and passes from each to the next. The inputs are
{", ".join(INPUTS)}; the predicted next characters are {", ".join(TARGETS)}."""
STYLE = f"""
text {{ font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #52616e }}
text {{ text-anchor: middle }} .start {{ text-anchor: start }} .end {{ text-anchor: end }}
text.character {{ font: 19px ui-monospace, Menlo, Consolas, monospace; fill: {INK} }}
text.variable {{ font-size: 19px; font-style: italic; fill: {INK} }} tspan {{ font-size: 13px }}
text.cell, text.readout {{ font-size: 14px; fill: {INK} }} rect.cell {{ fill: {INK} }}
text.cell {{ font-weight: 600; fill: white }} text.predicted {{ font-weight: 600; fill: {ACCENT} }}
rect.input, rect.readout {{ fill: #f4f6f8; stroke: {SOFT}; stroke-width: 1.5 }}
rect.predicted {{ fill: white; stroke: {ACCENT}; stroke-width: 1.5 }}
.card {{ fill: white; stroke: #d9dfe4 }} .band {{ fill: #fbeee9 }} .unroll {{ fill: {SOFT} }}
.arrow {{ fill: none; stroke: {INK}; stroke-width: 1.8 }} #head {{ fill: {INK} }}
"""


def text(x: float, y: float, content: str, look: str = "") -> str:
    """Text centred on y, in one line or several."""
    lines = content.split("\n")
    rows = [(y + 16 * n - 8 * (len(lines) - 1), line) for n, line in enumerate(lines)]
    start = f'<text class="{look}" x="{x:g}" dy=".35em"'
    return "\n".join(f'{start} y="{row:g}">{line}</text>' for row, line in rows)


def box(x: float, y: float, width: int, height: int, look: str, label: str = "") -> str:
    """A rounded box centred on (x, y), with its label."""
    place = f'x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width}" height="{height}"'
    return f'<rect class="{look}" {place} rx="7"/>' + (text(x, y, label, look) if label else "")


def arrow(path: str) -> str:
    """An arrow along a path, which must stop HEAD before the tip."""
    return f'<path class="arrow" d="{path}" marker-end="url(#head)"/>'


def column(x: int, shown: str, predicted: str, look: str) -> list[str]:
    """The network at one time: input, cell, readout and prediction, from below to above."""
    rows = [
        (INPUT, BOX, BOX, "input " + look, shown),
        (CELL, CELL_WIDTH, CELL_HEIGHT, "cell", "LSTM"),
        (READOUT, CELL_WIDTH, READOUT_HEIGHT, "readout", "dense"),
        (PREDICTION, BOX, BOX, "predicted " + look, predicted),
    ]
    gaps = [(a[0] - a[2] / 2 - 2, b[0] + b[2] / 2 + 2 + HEAD) for a, b in pairwise(rows)]
    return [box(x, *row) for row in rows] + [arrow(f"M{x} {a:g}V{b:g}") for a, b in gaps]


def folded() -> list[str]:
    """The network as it is written: one cell whose carry comes back to it."""
    x, y = FOLDED + CELL_WIDTH // 2 + 2, CELL
    subscript = '<tspan dy="4">t</tspan>'
    rows = {INPUT: "input", READOUT: "readout", PREDICTION: "prediction"}
    return [
        *column(FOLDED, f"x{subscript}", f"y{subscript}", "variable"),
        arrow(f"M{x} {y - 14}C{x + 36} {y - 28} {x + 36} {y + 24} {x + HEAD - 0.5} {y + 15.5}"),
        text(x + 34, CELL, "(c, h)", "start"),
        *[text(x + 8, row, label, "start") for row, label in rows.items()],
    ]


def unrolled() -> list[str]:
    """A copy of the network for each character, the carry going from each to the next."""
    last, half = FIRST + STEP * (len(INPUTS) - 1), CELL_WIDTH // 2
    parts = [
        f'<path class="unroll" d="M167 {CELL - 2.5}h38v-5.5l14 8l-14 8v-5.5h-38z"/>',
        text(193, CELL - 28, "unrolled\nover time"),
        box(sum(BAND) / 2, CELL, BAND[1] - BAND[0], 80, "band"),
        text(last + half + 12, CELL, "all six\ncells share\none set of\nweights", "start"),
        box(ZERO, CELL, 28, 28, "readout", "0"),
        text(ZERO, CELL + 29, "initial (c, h)"),
        text(FIRST - 30, PREDICTION, "predicted\nnext character", "end"),
        text(FIRST - 30, INPUT, "input\ncharacter", "end"),
        arrow(f"M{FIRST - 18} {TIME}H{last + 50}"),
        text(last + 66, TIME, "time", "start"),
    ]
    for t, (shown, predicted) in enumerate(zip(INPUTS, TARGETS, strict=True)):
        x = FIRST + STEP * t
        parts += column(x, shown, predicted, "character")
        parts += [arrow(f"M{x - STEP + half + 2 if t else ZERO + 16} {CELL}H{x - half - 2 - HEAD}")]
        parts += [text(x - STEP / 2, CELL - 15, "(c, h)")] if t else []
        parts += [f'<path class="arrow" d="M{x} {TIME - 4}v8"/>', text(x, TIME + 18, f"t = {t}")]
    return parts


def draw() -> str:
    """The whole picture."""
    names = 'xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="title desc"'
    marker = f'viewBox="0 -5 {HEAD} 10" refX="0.5" markerWidth="{HEAD}" markerHeight="10"'
    parts = [
        f'<svg {names} width="960" height="380" viewBox="0 0 960 380">',
        f'<title id="title">{TITLE}</title>\n<desc id="desc">{DESC}</desc>\n<style>{STYLE}</style>',
        f'<marker id="head" {marker} markerUnits="userSpaceOnUse" orient="auto">',
        f'<path d="M0 -4.5L{HEAD} 0L0 4.5z"/></marker>',
        '<rect class="card" x="1" y="1" width="958" height="378" rx="14"/>',
    ]
    return "\n".join([*parts, *folded(), *unrolled(), "</svg>\n"])


if __name__ == "__main__":
    target = Path(__file__).parent / "images" / "unrolled.svg"
    target.parent.mkdir(exist_ok=True)
    target.write_text(draw(), "utf-8", newline="\n")
