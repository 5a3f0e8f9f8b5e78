"""What `jaxrnn visualize` does: a page that shows a text through a trained language model."""

import codecs
import errno
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.analysis.page import Layer, make_page
from jaxrnn.analysis.saturation import GATES
from jaxrnn.errors import RunError, SettingError
from jaxrnn.layers.gates import read_gates
from jaxrnn.runs import compilation_cache
from jaxrnn.runs.files import write_text
from jaxrnn.runs.loading import TrainedModel, load
from jaxrnn.runs.progress import note
from jaxrnn.runs.text_generation import language_of
from jaxrnn.text.corpus import encode_tokens
from jaxrnn.text.tokenizer import display_token, tokenize

PAGE = "visualize.html"
GUESSES = 5  # as in Karpathy's figures
MOST_BYTES = 16  # that make a unit: a syllable that is not composed takes up to nine


def visualize(
    run_dir: Path | str,
    text: str,
    max_tokens: int = 2000,
    out: Path | None = None,
    *,
    model_seed: int | None = None,
    final: bool = False,
) -> Path:
    """Write a page that shows a text through the cells of a run's language model.

    Args:
      run_dir: the run.
      text: a file, or, if there is none of that name, the text itself.
      max_tokens: show at most this many tokens, from the start of the text.
      out: where to write the page; None for `visualize.html` in the run's directory.
      model_seed: the seed of the network; None for the one with the lowest validation loss.
      final: use the final, not the best, parameters.

    Returns:
      where the page is.

    Raises:
      SettingError: if the text is empty, or has units that the model does not know.
      RunError, OSError: as `load`; or if the page cannot be written.
    """
    if max_tokens < 1:
        raise SettingError("max tokens must be at least 1")
    path = Path(run_dir) / PAGE if out is None else out
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "the page cannot be a directory", str(path))
    compilation_cache.enable()
    trained = load(run_dir, model_seed=model_seed, final=final)
    task = language_of(trained)
    beginning = _in_units(text, task.tokenizer, max_tokens)[:max_tokens]
    ids = encode_tokens(beginning, task.tokenizer, task.vocabulary)
    if not ids.size:
        raise SettingError("there is no text to show")
    units, (chances, loss) = task.tokenizer, _read(trained, ids)
    guesses = np.argsort(-chances, axis=1, kind="stable")[:, :GUESSES]
    bits = "none: one unit alone" if loss is None else f"{loss / np.log(2):.3f} a unit of this text"
    facts = {
        "bits": bits,
        "model": f"seed {trained.seed} after {trained.updates} updates",
        "run": str(run_dir),
    }
    html = make_page(
        f"{task.file.name}, through the cells of its model",
        [_written(unit, units) for unit in task.decode(ids)],
        guesses,
        np.take_along_axis(chances, guesses, axis=1),
        [_written(unit, units) for unit in task.vocabulary],
        _layers(trained, ids),
        facts,
    )
    write_text(path, html)
    return path


def _in_units(text: str, units: str, length: int) -> str:
    """A file's beginning, as many units as are shown or more, or the text itself."""
    path = Path(text)
    try:
        found = bool(text) and path.exists()
    except (OSError, ValueError):  # too long for a name, or with a NUL
        found = False
    if not found:
        if text:
            note(f"there is no file {text[:60]!r}, so it is taken for the text itself")
        return tokenize(text, units)
    if not path.is_file():
        raise RunError(f"{path} is no regular file")
    most = length if units == "bytes" else MOST_BYTES * length
    with path.open("rb") as file:
        raw = file.read(most)
    if units == "bytes":
        return raw.decode("latin-1")
    whole = len(raw) < most  # else a character may be cut at the end, far beyond what is shown
    try:
        decoded = codecs.getincrementaldecoder("utf-8-sig")().decode(raw, final=whole)
    except UnicodeDecodeError as error:
        offset = len(raw) - len(error.object) + error.start  # a byte order mark counts too
        raise RunError(f"{path} is not UTF-8: the byte at offset {offset} is none") from None
    return tokenize(decoded, units)


def _read(trained: TrainedModel, ids: np.ndarray) -> tuple[np.ndarray, float | None]:
    """The chance of each unit after each that was read, [T, V], and the loss in nats."""
    apply: Any = jax.jit(trained.model.apply)
    logits, _ = apply({"params": trained.params}, jnp.asarray(ids[None]))
    log_chances = np.asarray(jax.nn.log_softmax(logits[0].astype(jnp.float32)))
    said = log_chances[np.arange(len(ids) - 1), ids[1:]]
    return np.exp(log_chances), float(-said.mean()) if said.size else None


def _layers(trained: TrainedModel, ids: np.ndarray) -> list[Layer]:
    """What each recurrent layer did."""
    layers = []
    read = read_gates(trained.model, trained.params, jnp.asarray(ids[None]))
    for n, values in enumerate(read, 1):
        arrays = {name: np.asarray(array[0], np.float32) for name, array in values.items()}
        state = np.tanh(arrays["c"]) if "c" in arrays else arrays["h"]
        state = state / max(1.0, float(np.abs(state).max()))  # of an IRNN they know no bound
        gates = {name: arrays[name] for name in GATES if name in arrays}
        layers.append(Layer(f"layer {n}", state, gates))
    return layers


def _written(unit: str, units: str) -> str:
    """A unit as the page has it: a byte that is no ASCII by its number."""
    return display_token(unit, units) if units == "bytes" and not unit.isascii() else unit
