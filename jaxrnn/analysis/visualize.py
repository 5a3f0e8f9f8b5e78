"""The command `jaxrnn visualize`: a page that shows how a trained model reads a text."""

import codecs
import errno
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn import atomic
from jaxrnn.analysis.page import Layer, make_page
from jaxrnn.analysis.saturation import GATES
from jaxrnn.analysis.writer import pack_network
from jaxrnn.errors import RunError, SettingError
from jaxrnn.layers.gates import read_gates
from jaxrnn.runs import compilation_cache
from jaxrnn.runs.loading import TrainedModel, load
from jaxrnn.runs.progress import note
from jaxrnn.runs.text_generation import language_of
from jaxrnn.text.corpus import encode_tokens
from jaxrnn.text.tokenizer import detokenize, display_token, tokenize

PAGE = "visualize.html"
GUESSES = 5  # as in Karpathy's figures
LONGEST_PROMPT = 80
MOST_BYTES = 16  # of UTF-8 per token; a decomposed syllable takes up to nine


def visualize(
    run_dir: Path | str,
    text: str,
    max_tokens: int = 2000,
    out: Path | None = None,
    *,
    model_seed: int | None = None,
    final: bool = False,
) -> Path:
    """Write a page that shows how the cells of a run's language model read a text.

    Args:
      run_dir: the run's directory.
      text: a file, or the text itself if there is no file of that name.
      max_tokens: show at most this many tokens, from the start of the text.
      out: where to write the page; None for `visualize.html` in the run's directory.
      model_seed: the seed of the network; None for the one with the lowest validation loss.
      final: use the final, not the best, parameters.

    Returns:
      the page's path.

    Raises:
      SettingError: if the text is empty, or has tokens that the model does not know.
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
    start = _tokens(text, task.tokenizer, max_tokens)[:max_tokens]
    ids = encode_tokens(start, task.tokenizer, task.vocabulary)
    if not ids.size:
        raise SettingError("there is no text to show")
    probabilities, loss = _predict(trained, ids)
    guesses = np.argsort(-probabilities, axis=1, kind="stable")[:, :GUESSES]
    bits = "unknown for one token" if loss is None else f"{loss / np.log(2):.3f} per token"
    facts = {
        "bits": bits,
        "model": f"seed {trained.seed} after {trained.updates} updates",
        "run": str(run_dir),
    }
    network = None
    try:
        network = pack_network(trained.model, trained.params) | {
            "tokenizer": task.tokenizer,
            "vocabulary": task.vocabulary,
            "prompt": _first_line(task.decode(ids), task.tokenizer),
        }
    except SettingError as error:
        facts["writing"] = f"left out: {error}"
        note(f"the page has no tab in which the network writes: {error}")
    html = make_page(
        f"{task.file.name}: the cells of its model",
        [_printed(token, task.tokenizer) for token in task.decode(ids)],
        guesses,
        np.take_along_axis(probabilities, guesses, axis=1),
        [_printed(token, task.tokenizer) for token in task.vocabulary],
        _layers(trained, ids),
        facts,
        network,
    )
    atomic.write(path, html.encode("utf-8", "backslashreplace"))
    return path


def _tokens(text: str, tokenizer: str, length: int) -> str:
    """Return at least the first `length` tokens of a file, or of the text itself."""
    path = Path(text)
    try:
        found = bool(text) and path.exists()
    except (OSError, ValueError):  # too long for a file name, or with a NUL
        found = False
    if not found:
        if text:
            note(f"there is no file {text[:60]!r}, so this is the text to show")
        return tokenize(text, tokenizer)
    if not path.is_file():
        raise RunError(f"{path} is not a regular file")
    length = min(length, max(path.stat().st_size, 1))  # a token has at least one byte
    most = length if tokenizer == "bytes" else MOST_BYTES * length
    with path.open("rb") as file:
        raw = file.read(most)
    if tokenizer == "bytes":
        return raw.decode("latin-1")
    whole = len(raw) < most  # otherwise the last character may be incomplete
    try:
        decoded = codecs.getincrementaldecoder("utf-8-sig")().decode(raw, final=whole)
    except UnicodeDecodeError as error:
        offset = len(raw) - len(error.object) + error.start  # a byte order mark counts too
        raise RunError(f"{path} is not valid UTF-8: see the byte at offset {offset}") from None
    return tokenize(decoded, tokenizer)


def _predict(trained: TrainedModel, ids: np.ndarray) -> tuple[np.ndarray, float | None]:
    """Return the probabilities of the token after each, [T, V], and the loss in nats."""
    apply: Any = jax.jit(trained.model.apply)
    logits, _ = apply({"params": trained.params}, jnp.asarray(ids[None]))
    log_probs = np.asarray(jax.nn.log_softmax(logits[0].astype(jnp.float32)))
    of_targets = log_probs[np.arange(len(ids) - 1), ids[1:]]
    return np.exp(log_probs), float(-of_targets.mean()) if of_targets.size else None


def _layers(trained: TrainedModel, ids: np.ndarray) -> list[Layer]:
    """Return the activations and gates of each recurrent layer."""
    layers = []
    read = read_gates(trained.model, trained.params, jnp.asarray(ids[None]))
    for n, values in enumerate(read, 1):
        arrays = {name: np.asarray(array[0], np.float32) for name, array in values.items()}
        state = np.tanh(arrays["c"]) if "c" in arrays else arrays["h"]
        state = state / max(1.0, float(np.abs(state).max()))  # an IRNN's are unbounded
        gates = {name: arrays[name] for name in GATES if name in arrays}
        layers.append(Layer(f"layer {n}", state, gates))
    return layers


def _first_line(tokens: str, tokenizer: str) -> str:
    """Return the start of the first line that is not empty, for the network to continue."""
    line = next((line for line in tokens.split("\n") if line.strip()), tokens)
    text = detokenize(line, tokenizer)
    is_text = tokenize(text, tokenizer) == line  # not so if bytes start within a character
    return text[:LONGEST_PROMPT] if is_text else ""


def _printed(token: str, tokenizer: str) -> str:
    """Return a token for the page: a byte that is not ASCII as its number."""
    return (
        display_token(token, tokenizer) if tokenizer == "bytes" and not token.isascii() else token
    )
