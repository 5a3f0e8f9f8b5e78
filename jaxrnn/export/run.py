"""Write the trained network of a run to a file that other programs read."""

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jaxrnn
from jaxrnn import atomic
from jaxrnn.choices import check_choice
from jaxrnn.errors import RunError, SettingError
from jaxrnn.export.documents import as_json, readme, vocabularies
from jaxrnn.export.interface import describe
from jaxrnn.export.onnx import onnx_model
from jaxrnn.export.stablehlo import stablehlo
from jaxrnn.export.torch import is_torch_module, torch_module
from jaxrnn.interop.files import pack_params
from jaxrnn.runs import compilation_cache
from jaxrnn.runs.config_json import to_json
from jaxrnn.runs.files import write_json
from jaxrnn.runs.loading import input_shape, load

FOLDER = "export"
FORMATS = {
    "onnx": "model.onnx",
    "stablehlo": "model.stablehlo",
    "safetensors": "model.safetensors",
    "torch": "torch_model.safetensors",
}
"""The file of each format in a run's folder `export`."""


def export_run(
    run_dir: Path | str,
    to: str,
    out: Path | str | None = None,
    *,
    model_seed: int | None = None,
    final: bool = False,
) -> list[Path]:
    """Write the network of a run in another format, with a README and a description as JSON.

    The README is `FILE.README.md`; the description, with the vocabulary, is `FILE.json`. Existing
    files are replaced.

    Args:
      run_dir: the run's directory.
      to: "onnx", "stablehlo", "safetensors" or "torch".
      out: the file; None for one in `RUN_DIR/export`. PyTorch's must be called `NAME.safetensors`,
        and its module is `NAME.py`.
      model_seed: as for `load`.
      final: as for `load`.

    Returns:
      the files, the main one first.

    Raises:
      SettingError: if there is no such format, it cannot express the network, or as for `load`.
      RunError: if a package is missing, or as for `load`.
      OSError: if a file cannot be written, or as for `load`.

    >>> export_run("runs/char_lm/0001", "onnx")  # doctest: +SKIP
    """
    check_choice("--to", to, FORMATS)
    file = Path(run_dir) / FOLDER / FORMATS[to] if out is None else Path(out)
    if file.is_dir():
        raise IsADirectoryError(errno.EISDIR, "the file cannot be a directory", str(file))
    if to == "torch":
        _check_names(file)
    compilation_cache.enable()
    trained = load(run_dir, model_seed=model_seed, final=final)
    network = trained.model, trained.params, input_shape(trained.config)
    interface, tokens = describe(*network), vocabularies(trained.config.task)
    facts: dict[str, Any] = tokens | {
        "model": to_json(trained.model),
        "run": str(run_dir),
        "seed": trained.seed,
        "updates": trained.updates,
        "validation_loss": trained.validation_loss,
        "jaxrnn": jaxrnn.__version__,
    }
    metadata = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in tokens.items()
    }
    contents = _contents(to, file, network, metadata)
    if out is None:
        file.parent.mkdir(exist_ok=True)
    for path, content in contents.items():
        atomic.write(path, content)
    description = file.with_name(file.name + ".json")
    write_json(description, as_json(to, file.name, interface, facts))
    read_me = file.with_name(file.name + ".README.md")
    listed = trained.params if to == "safetensors" else None
    text = readme(to, file.name, interface, facts, listed)
    atomic.write(read_me, text.encode("utf-8", "backslashreplace"))
    return [*contents, description, read_me]


def _contents(
    to: str, file: Path, network: tuple[Any, Any, Any], metadata: Mapping[str, str]
) -> dict[Path, bytes]:
    """Return the contents of the network's files, the main one first."""
    try:
        if to == "onnx":
            return {file: onnx_model(*network, metadata).SerializeToString()}
        if to == "stablehlo":
            return {file: bytes(stablehlo(*network).serialize())}
        if to == "torch":
            module = torch_module(*network)
            source = file.with_suffix(".py")
            return {file: pack_params(module.state_dict, metadata), source: module.source.encode()}
        return {file: pack_params(network[1], metadata)}
    except SettingError as error:
        raise SettingError(f"{error}; --to stablehlo takes any network") from None


def _check_names(file: Path) -> None:
    """Check that a module of the same name can be written beside PyTorch's file, and imported."""
    module = file.with_suffix(".py")
    if file.suffix != ".safetensors" or not file.stem.isidentifier():
        raise SettingError(
            f"--out must be NAME.safetensors, with a module NAME.py, not {file.name}"
        )
    if file.stem in ("torch", "safetensors"):
        raise SettingError(f"a module named {module.name} would hide the package {file.stem}")
    if module.exists() and not is_torch_module(module):
        raise RunError(f"{module} exists and is not from an export: choose another --out")
