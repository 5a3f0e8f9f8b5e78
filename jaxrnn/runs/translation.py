"""Decode with the trained network of a sequence-to-sequence run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxrnn.errors import RunError
from jaxrnn.runs import compilation_cache
from jaxrnn.runs.loading import TrainedModel, load
from jaxrnn.tasks.sequence_to_sequence import SequenceToSequence
from jaxrnn.text.decoding import Sources, beam_decode, greedy_decode

ROWS = 256
"""Sources decoded at once."""


def translate(
    run_dir: Path | str,
    texts: Sequence[str],
    beams: int | None = None,
    *,
    model_seed: int | None = None,
    final: bool = False,
) -> list[str]:
    """Decode texts with one network of a sequence-to-sequence run.

    Args:
      run_dir: the run's directory.
      texts: sources, such as "535+61" for `Addition`.
      beams: return the most likely target that a search with this many beams finds; None for greedy
        decoding.
      model_seed: as for `load`.
      final: as for `load`.

    Raises:
      SettingError: if a text is not a source of the run's task, or a number is out of range.
      RunError: if it is not such a run, or as for `load`.
      OSError: as for `load`.

    >>> translate("runs/seq2seq/0001", ["535+61"])  # doctest: +SKIP
    ['596']
    """
    compilation_cache.enable()
    trained = load(run_dir, model_seed=model_seed, final=final)
    task = task_of(trained)
    sources = [task.encode_source(text) for text in texts]
    return [task.target_text(ids) for ids in decode(trained, sources, beams)]


def task_of(trained: TrainedModel) -> SequenceToSequence:
    """The task of a sequence-to-sequence run; a RunError for other runs."""
    task = trained.config.task
    if not isinstance(task, SequenceToSequence):
        raise RunError(f"this is no run from sequence to sequence, but of {type(task).__name__}")
    return task


def decode(
    trained: TrainedModel, sources: Sequence[np.ndarray], beams: int | None = None
) -> np.ndarray:
    """Decode source ids, each [n] int32: target ids [len(sources), L] int32, 0 from the end on.

    Raises:
      RunError: if the run did not train a sequence-to-sequence network.
    """
    task, found = task_of(trained), []
    for start in range(0, len(sources), ROWS):
        part = sources[start : start + ROWS]
        rows = min(ROWS, len(sources))  # the last part is filled up: one compiled program
        ids, lengths = np.zeros((rows, task.source_length), np.int32), np.zeros(rows, np.int32)
        for row, source in enumerate(part):
            ids[row, : len(source)], lengths[row] = source, len(source)
        arguments = trained.model, trained.params, Sources(ids, lengths), task.target_length
        if beams is None:
            best = greedy_decode(*arguments).ids
        else:
            best = beam_decode(*arguments, beams).ids[:, 0]
        found.append(best[: len(part)])
    return np.concatenate(found) if found else np.zeros((0, task.target_length), np.int32)
