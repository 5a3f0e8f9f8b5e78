"""What `python -m jaxrnn sample` does: new text from a trained language model, as it comes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxrnn.text.beam import beam_search
from jaxrnn.errors import SettingError
from jaxrnn.rng import MAX_SEED, child_key, root_key
from jaxrnn.text.sampling import AS_TRAINED, Sampling, generate
from jaxrnn.runs import compilation_cache
from jaxrnn.runs.loading import TrainedModel, load
from jaxrnn.text.tokenizer import Decoder, detokenize


def write(
    run_dir: Path | str,
    prompt: str | None = None,
    length: int = 500,
    settings: Sampling = AS_TRAINED,
    seed: int = 0,
    samples: int = 1,
    beams: int | None = None,
    network: int | None = None,
    last: bool = False,
) -> Iterator[str]:
    """Text of a trained language model, piece by piece; the same arguments give the same text.

    One sample comes as it is drawn, after its prime. Several are drawn at once, and come one after
    the other, each under a line of its own; so do the continuations of a beam search.

    Args:
      run_dir: the run.
      prime: what the model reads first; None for a line break, or the first of its units.
      length: how many units to write.
      settings: how a unit is drawn.
      seed: of the drawing; a beam search has none.
      samples: how many texts.
      beams: search for the likeliest text instead, with so many beams.
      network: the seed of the network that writes; None for the best of the run.
      last: let it write as it was at the end of the training, not when it was best.

    Raises:
      SettingError: if an argument is out of range, or the prompt has units the model does not know.
      RunError, OSError: as `trained.load`.
    """
    if beams is not None and (samples > 1 or settings != AS_TRAINED):
        raise SettingError(
            "a beam search draws nothing: leave out samples, temperature, top k and top p"
        )
    if not 0 <= seed <= MAX_SEED:
        raise SettingError(f"seed must be from 0 to {MAX_SEED}")
    compilation_cache.enable()
    trained = load(run_dir, network, last)
    vocabulary = trained.task.vocabulary
    first = vocabulary.index("\n") if "\n" in vocabulary else 0
    ids = np.array([first]) if prompt is None else trained.encode(prompt).astype(np.int32)
    said = "" if prompt is None else trained.units(ids)
    if beams is not None:
        yield from _searched(trained, ids, said, length, beams)
        return
    key = child_key(root_key(seed), "sample")
    pieces = generate(trained.model, trained.params, key, ids, length, samples, settings)
    if samples == 1:
        yield from _streamed(trained, said, pieces)
        return
    drawn = np.concatenate(list(pieces), axis=1)  # [samples, length]
    for n, row in enumerate(drawn, 1):
        yield f"--- sample {n} ---\n{_joined(trained, said, row)}\n"


def _streamed(trained: TrainedModel, said: str, pieces: Iterator[np.ndarray]) -> Iterator[str]:
    """One text, as it comes: what may still change, such as half a syllable, waits."""
    decoder = Decoder(trained.task.units)
    yield decoder.feed(said)
    for piece in pieces:
        yield decoder.feed(trained.units(piece[0]))
    yield decoder.flush() + "\n"


def _searched(
    trained: TrainedModel, ids: np.ndarray, said: str, length: int, beams: int
) -> Iterator[str]:
    """The likeliest texts, the likeliest first."""
    found, log_probability = beam_search(trained.model, trained.params, ids, length, beams)
    for n, (row, nats) in enumerate(zip(found, log_probability, strict=True), 1):
        yield f"--- beam {n}: log-probability {nats:.2f} nats ---\n"
        yield _joined(trained, said, row) + "\n"


def _joined(trained: TrainedModel, said: str, row: np.ndarray) -> str:
    return detokenize(said + trained.units(row), trained.task.units)
