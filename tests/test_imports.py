"""Imports go one way: each package reads only the packages below it."""

import ast
import sys
from pathlib import Path

import jaxrnn

PACKAGE = Path(jaxrnn.__file__).parent

BASE = {
    "types",
    "rng",
    "errors",
    "checks",
    "choices",
    "dtypes",
    "atomic",
    "package_data",
    "cgroups",
}
LAYERS = BASE | {"cells", "layers"}
MODELS = LAYERS | {"models", "losses"}
TRAINING = MODELS | {"text", "tasks", "training"}
ALLOWED = {
    "types": BASE,
    "rng": BASE,
    "errors": BASE,
    "checks": BASE,
    "choices": BASE,
    "dtypes": BASE,
    "atomic": BASE,
    "package_data": BASE,
    "cgroups": BASE,
    "cells": BASE,
    "layers": BASE | {"cells"},
    "losses": BASE,
    "text": BASE,
    "models": LAYERS,
    "tasks": BASE | {"losses", "text"},
    "training": MODELS | {"tasks"},
    "runs": TRAINING | {"interop"},
    "interop": LAYERS | {"models"},
    "analysis": TRAINING | {"runs", "interop"},
    "export": TRAINING | {"runs", "interop"},
    "cli": TRAINING | {"runs", "analysis", "export"},
}
"""The packages and modules of jaxrnn that each of them may import."""


def package_imports(source: str, package: Path) -> set[str]:
    """The packages of jaxrnn that a module imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".") for name in names if name.startswith("jaxrnn.")]
    present = {path.stem for path in package.iterdir()}
    return {part[1] for part in parts if part[1] in present}


def modules(package: Path) -> list[Path]:
    return sorted(path for path in package.rglob("*.py") if path.parent != package) + sorted(
        path for path in package.glob("[!_]*.py")
    )


def test_each_package_imports_only_those_below_it():
    wrong = []
    for module in modules(PACKAGE):
        own = module.relative_to(PACKAGE).parts[0].removesuffix(".py")
        above = package_imports(module.read_text("utf-8"), PACKAGE) - ALLOWED[own] - {own}
        wrong += [f"{module.relative_to(PACKAGE)} imports jaxrnn.{name}" for name in sorted(above)]
    assert not wrong, "\n".join(wrong)


def test_no_packages_import_each_other_in_a_circle():
    imported = {name: set[str]() for name in ALLOWED}
    for module in modules(PACKAGE):
        own = module.relative_to(PACKAGE).parts[0].removesuffix(".py")
        imported[own] |= package_imports(module.read_text("utf-8"), PACKAGE) - {own}
    while free := {name for name, below in imported.items() if not below}:
        imported = {name: below - free for name, below in imported.items() if name not in free}
    assert not imported, f"a circle among {sorted(imported)}"


def test_layers_import_jax_flax_and_numpy_alone():
    allowed = {"jax", "jaxlib", "flax", "numpy", "jaxrnn"} | sys.stdlib_module_names
    for name in ("cells", "layers"):
        for module in (PACKAGE / name).glob("*.py"):
            for node in ast.walk(ast.parse(module.read_text("utf-8"))):
                found: list[str] = []
                if isinstance(node, ast.Import):
                    found = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    found = [str(node.module)]
                outside = {one.split(".")[0] for one in found} - allowed
                assert not outside, f"{module.relative_to(PACKAGE)} imports {outside}"


def test_an_import_inside_a_function_counts():
    source = "def f():\n    from jaxrnn.training import loop\n    import jaxrnn.runs.files\n"
    assert package_imports(source, PACKAGE) == {"training", "runs"}
    assert package_imports("from jaxrnn import losses", PACKAGE) == {"losses"}
