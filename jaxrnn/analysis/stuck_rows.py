"""Networks that get stuck in some rows of a text: what a run's summary says about it."""

from collections.abc import Mapping

import jax
import numpy as np

from jaxrnn.runs.evaluation import row_losses, stream_losses
from jaxrnn.runs.runner import RunResult
from jaxrnn.tasks.language import Language
from jaxrnn.training.history import History
from jaxrnn.training.validation import LOSS, STUCK_ROWS

MOST_NAMED = 3  # seeds, and rows of each, that are named; the others are counted
STREAM = 50_000  # tokens at most, so that a summary takes seconds; `jaxrnn evaluate` reads all


def of_run(result: RunResult) -> list[str]:
    """Return lines on the best network of each seed: its loss in one stream, and a warning.

    The training validates in many rows, each from a carry of its own. A network that gets stuck at
    the start of a row has a higher loss there than in the stream. The stream's loss is computed
    here, so that the training stays as it is; so are, if there are any stuck rows, the rows'.

    Args:
      result: what `jaxrnn.run` or `jaxrnn.resume` returned, with validation.
    """
    task, model, best = result.config.task, result.config.model, result.state.best
    if best is None:
        return []
    seeds, losses = result.config.seed_numbers, np.asarray(best.loss, float)
    there = np.flatnonzero(np.isfinite(losses))
    lines = []
    if isinstance(task, Language) and there.size:
        params, ids = _choose(best.params, there), task.corpus.validation
        streams = stream_losses(task, model, params, ids[: STREAM + 1])
        part = "" if len(ids) <= STREAM + 1 else f" (its first {STREAM:,} tokens)"
        lines.append(_describe_streams(losses[there], streams, part))
    limit = task.memoryless_loss
    suspected = there[stuck_seeds(result.history, limit)[there]]
    if limit is not None and suspected.size:
        rows = row_losses(task, model, _choose(best.params, suspected))
        found = dict(zip(seeds[suspected].tolist(), rows, strict=True))
        lines += warn(found, len(seeds), limit)
    return lines


def stuck_seeds(history: History, memoryless_loss: float | None) -> np.ndarray:
    """Return which seeds' best validation had rows above the memoryless loss, [S] bool.

    A network counts only if it has learned something: if its loss over all rows is below
    `memoryless_loss`. See `training.validation.make_validate`.
    """
    if STUCK_ROWS not in history.values or memoryless_loss is None or not history.steps.size:
        return np.zeros(len(history.seeds), bool)
    losses = np.where(np.isfinite(history.values[LOSS]), history.values[LOSS], np.inf)  # [S, R]
    best = np.argmin(losses, axis=1)  # [S]
    stuck = history.values[STUCK_ROWS][np.arange(len(best)), best]
    return (stuck > 0) & (losses.min(axis=1) < memoryless_loss)


def warn(losses: Mapping[int, np.ndarray], networks: int, memoryless_loss: float) -> list[str]:
    """Return a warning that names the seeds, and the rows in which they are stuck.

    Args:
      losses: by seed, [B] the loss of each row; of the networks that have learned something.
      networks: how many networks there are.
      memoryless_loss: the loss of the best predictor without memory.

    >>> rows = np.array([1.5, 11.6, 1.4, 3.9, 1.2, 4.1, 3.6])
    >>> for line in warn({5: rows[:1], 6: rows}, 2, 3.09):
    ...     print(line)
    Warning: 1 of 2 networks get stuck: validation rows above the memoryless loss, 3.09:
      seed 6: row 1 (11.6), row 5 (4.1), row 3 (3.9) and 1 more
      A higher reset probability may help.
    >>> warn({5: rows[:1]}, 1, 3.09)
    []
    """
    worst = {
        seed: rows
        for seed, rows in sorted(losses.items(), key=lambda item: -np.max(item[1]))
        if name_rows(rows, memoryless_loss)
    }
    if not worst:
        return []
    named = [(seed, name_rows(rows, memoryless_loss)) for seed, rows in worst.items()]
    more = len(named) - MOST_NAMED
    return [
        f"Warning: {len(worst)} of {networks} networks get stuck: validation rows above"
        f" the memoryless loss, {memoryless_loss:.4g}:",
        *(f"  seed {seed}: {rows}" for seed, rows in named[:MOST_NAMED]),
        *([f"  and {more} more seeds"] if more > 0 else []),
        "  A higher reset probability may help.",
    ]


def name_rows(losses: np.ndarray, memoryless_loss: float) -> str:
    """Name the first few rows above the memoryless loss, highest first; empty if there are none.

    Args:
      losses: [B], of each row.
      memoryless_loss: the loss of the best predictor without memory.
    """
    order = np.argsort(-losses, kind="stable")
    stuck = [row for row in order.tolist() if losses[row] > memoryless_loss]
    named = ", ".join(f"row {row} ({losses[row]:.4g})" for row in stuck[:MOST_NAMED])
    return named + (f" and {len(stuck) - MOST_NAMED} more" if len(stuck) > MOST_NAMED else "")


def _describe_streams(losses: np.ndarray, streams: np.ndarray, part: str) -> str:
    """Compare the losses in rows with those in one stream, [N] each."""
    head = f"The validation part as one stream{part}, best parameters"
    if len(streams) == 1:
        return f"{head}: {streams[0]:.4g}."
    low, mean, high = streams.min(), streams.mean(dtype=float), streams.max()
    return (
        f"{head}: mean {mean:.4g}, from {low:.4g} to {high:.4g}; the mean in rows is"
        f" {losses.mean():.4g}."
    )


def _choose(params: object, indices: np.ndarray) -> dict:
    """Return the parameters of some seeds."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[indices], params)
