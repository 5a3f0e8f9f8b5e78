"""Generate text from the run of a language model."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxrnn.errors import RunError, SettingError
from jaxrnn.rng import MAX_SEED, child_key, root_key
from jaxrnn.runs import compilation_cache, tuning
from jaxrnn.runs.loading import TrainedModel, load
from jaxrnn.tasks.language import Language
from jaxrnn.text.beam import beam_search
from jaxrnn.text.sampling import DEFAULT_SAMPLING, Sampling, generate, state_bytes
from jaxrnn.text.tokenizer import Decoder, detokenize


def language_of(trained: TrainedModel) -> Language:
    """The task of a language model, which encodes and decodes text; a RunError for other runs."""
    task = trained.config.task
    if not isinstance(task, Language):
        raise RunError(f"this is not the run of a language model, but of {type(task).__name__}")
    return task


def generate_text(
    run_dir: Path | str,
    prompt: str | None = None,
    num_tokens: int = 500,
    sampling: Sampling = DEFAULT_SAMPLING,
    *,
    seed: int = 0,
    samples: int = 1,
    beams: int | None = None,
    model_seed: int | None = None,
    final: bool = False,
) -> Iterator[str]:
    """Generate text, piece by piece. The same arguments give the same text.

    A single sample is yielded while it is generated, prompt first. Several samples, or the results
    of a beam search, are yielded one after the other, each below a heading.

    Args:
      run_dir: the run of a language model.
      prompt: the text to continue; None for a line break, or the first token of the vocabulary if
        it has none.
      num_tokens: how many tokens to generate.
      sampling: temperature, top-k and top-p.
      seed: seed of the sampling; a beam search uses none.
      samples: how many texts.
      beams: search for the most likely texts with this many beams, instead of sampling.
      model_seed: as for `load`.
      final: as for `load`.

    Raises:
      SettingError: if an argument is out of range, or the prompt has tokens outside the vocabulary.
      RunError: if it is not the run of a language model, or as for `load`.
      OSError: as for `load`.
      MemoryError: if the samples or beams do not fit into memory.

    >>> "".join(generate_text("runs/char_lm/0001", "ROMEO:"))  # doctest: +SKIP
    """
    if beams is not None and (samples > 1 or sampling != DEFAULT_SAMPLING):
        raise SettingError(
            "a beam search does not sample: leave out samples, temperature, top k and top p"
        )
    if not 0 <= seed <= MAX_SEED:
        raise SettingError(f"seed must be from 0 to {MAX_SEED}")
    compilation_cache.enable()
    trained = load(run_dir, model_seed=model_seed, final=final)
    task = language_of(trained)
    first = task.vocabulary.index("\n") if "\n" in task.vocabulary else 0
    ids = np.array([first]) if prompt is None else task.encode(prompt)
    shown = "" if prompt is None else task.decode(ids)  # the tokens to print before the new ones
    model, params = trained.model, trained.params
    _require_memory(trained, num_tokens, samples, beams)
    if beams is not None:
        found, log_probabilities = beam_search(model, params, ids, num_tokens, beams)
        for n, (row, nats) in enumerate(zip(found, log_probabilities, strict=True), 1):
            text = detokenize(shown + task.decode(row), task.tokenizer)
            yield f"--- beam {n}: log-probability {nats:.2f} nats ---\n{text}\n"
        return
    key = child_key(root_key(seed), "sample")
    pieces = generate(model, params, key, ids, num_tokens, samples, sampling)
    if samples == 1:
        yield from _stream(task, shown, pieces)
        return
    for n, row in enumerate(np.concatenate(list(pieces), axis=1), 1):
        text = detokenize(shown + task.decode(row), task.tokenizer)
        yield f"--- sample {n} ---\n{text}\n"


def _require_memory(
    trained: TrainedModel, num_tokens: int, samples: int, beams: int | None
) -> None:
    """Raise MemoryError if the texts do not fit. The factors were measured on a CPU."""
    carry, logits = state_bytes(trained.model, trained.params)
    if beams is not None:  # an id and a parent for each token, and the ids in order
        tuning.require_rows("beams", beams, 3 * carry + 4 * logits + 12 * num_tokens)
    elif samples > 1:  # the ids, and a copy of them in one array
        tuning.require_rows("samples", samples, 3 * carry + 10 * logits + 8 * num_tokens)


def _stream(task: Language, shown: str, pieces: Iterator[np.ndarray]) -> Iterator[str]:
    """One text as it is generated; what may still change, such as half a syllable, waits."""
    decoder = Decoder(task.tokenizer)
    yield decoder.feed(shown)
    for piece in pieces:
        yield decoder.feed(task.decode(piece[0]))
    yield decoder.flush() + "\n"
