"""Draw `images/packages.svg`: the packages of jaxrnn, and which imports which.

    python docs/packages.py

Arrows that follow from others are left out: if cli imports runs and runs imports training, there is
no arrow from cli to training.
"""

import ast
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent / "jaxrnn"
BASE = (  # drawn as one box
    *("types", "dtypes", "rng", "errors", "choices", "checks"),
    *("atomic", "cgroups", "package_data"),
)
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 132, 44, 24, 56, 16
INK, SOFT, FILL = "#22313f", "#8795a1", "#f4f6f8"


def package_of(module: str) -> str:
    """Return the box of a module name such as "jaxrnn.runs.metrics"."""
    name = module.split(".")[1]
    return "base" if name in BASE else name


def imports(root: Path) -> tuple[dict[str, set[str]], dict[str, int]]:
    """Return which packages each package imports, and its lines of code."""
    imported: dict[str, set[str]] = {}
    lines: dict[str, int] = {}
    for file in sorted(root.rglob("*.py")):
        if file.parent == root and file.name.startswith("__"):
            continue
        own = package_of("jaxrnn." + file.relative_to(root).parts[0].removesuffix(".py"))
        source = file.read_text("utf-8")
        lines[own] = lines.get(own, 0) + source.count("\n")
        for node in ast.walk(ast.parse(source)):
            names: list[str] = []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            found = {package_of(name) for name in names if name.startswith("jaxrnn.")}
            imported.setdefault(own, set()).update(found - {own})
    return {name: below & set(imported) for name, below in imported.items()}, lines


def levels(imported: Mapping[str, set[str]]) -> dict[str, int]:
    """Return how many packages each package stands above, at the longest."""
    level: dict[str, int] = {}

    def of(name: str) -> int:
        if name not in level:
            level[name] = 1 + max(map(of, imported[name]), default=-1)
        return level[name]

    for name in imported:
        of(name)
    return level


def direct(imported: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """Return the imports that do not follow from others."""

    def all_below(name: str) -> set[str]:
        return imported[name].union(*(all_below(below) for below in imported[name]))

    return [
        (name, below)
        for name in imported
        for below in sorted(imported[name])
        if not any(below in all_below(other) for other in imported[name] - {below})
    ]


def draw(imported: Mapping[str, set[str]], lines: Mapping[str, int]) -> str:
    """Return the picture as SVG, lower packages at the bottom."""
    level = levels(imported)
    rows = [
        sorted(name for name in level if level[name] == n) for n in range(max(level.values()) + 1)
    ]
    width = max(len(row) for row in rows) * (WIDTH + GAP_X) - GAP_X + 2 * MARGIN
    height = len(rows) * (HEIGHT + GAP_Y) - GAP_Y + 2 * MARGIN
    place = {}
    for n, row in enumerate(rows):
        left = (width - len(row) * (WIDTH + GAP_X) + GAP_X) / 2
        top = height - MARGIN - HEIGHT - n * (HEIGHT + GAP_Y)
        place |= {name: (left + i * (WIDTH + GAP_X), top) for i, name in enumerate(row)}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        ' aria-label="The packages of jaxrnn and their imports">',
        f"<style>text {{ font: 14px system-ui, sans-serif; text-anchor: middle; fill: {INK} }}"
        f" .lines {{ font-size: 11px; fill: {SOFT} }} rect {{ fill: {FILL}; stroke: {SOFT} }}"
        f" path {{ fill: none; stroke: {SOFT}; stroke-width: 1.4 }}</style>",
        f'<rect width="{width}" height="{height}" style="fill: white; stroke: none"/>',
        '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7"'
        f' markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" style="fill: {SOFT}"/>'
        "</marker></defs>",
    ]
    for name, below in direct(imported):
        (x1, y1), (x2, y2) = place[name], place[below]
        x1, y1, x2 = x1 + WIDTH / 2, y1 + HEIGHT, x2 + WIDTH / 2
        bend = min(60.0, (y2 - y1) / 2)
        parts.append(
            f'<path marker-end="url(#head)" d="M{x1:g} {y1:g}C{x1:g} {y1 + bend:g}'
            f' {x2:g} {y2 - bend:g} {x2:g} {y2:g}"/>'
        )
    for name, (x, y) in place.items():
        label = "types, rng, ..." if name == "base" else name
        parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
            f'<text x="{x + WIDTH / 2:g}" y="{y + 19:g}">{label}</text>'
            f'<text class="lines" x="{x + WIDTH / 2:g}" y="{y + 35:g}">{lines[name]} lines</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    path = Path(__file__).parent / "images" / "packages.svg"
    path.write_text(draw(*imports(ROOT)), "utf-8")
    print(path)
