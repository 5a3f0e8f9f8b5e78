"""Metrics by sequence length as a small table."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from jaxrnn.runs.evaluation import Evaluation
from jaxrnn.runs.runner import RunResult
from jaxrnn.training.by_length import BY_LENGTH
from jaxrnn.training.history import last_rows
from jaxrnn.training.validation import PREFIX


def of_run(result: RunResult) -> list[str]:
    """Return the table of a run's last validation of each seed, as lines; none without groups."""
    ended = {**result.stopped, **result.solved_at}
    last = last_rows(result.history, ended) if result.history.steps.size else {}
    return table("Validation by length", result.config.task.length_groups, last)


def of_evaluation(evaluation: Evaluation) -> list[str]:
    """Return the table of an evaluation, as lines; none without groups."""
    return table("By length", evaluation.networks.config.task.length_groups, evaluation.metrics)


def table(title: str, groups: Sequence[int], metrics: Mapping[str, np.ndarray]) -> list[str]:
    """Return the means over the seeds of each group, a line each; nothing if there are none.

    Args:
      title: the start of the first line.
      groups: [G] int, the upper bounds of the lengths.
      metrics: by name, [S, G] each if the name ends with `BY_LENGTH`; others are left out. What is
        not finite does not count, so a seed that diverged has no part in a mean.

    >>> loss = np.array([[0.5, 2, np.nan], [0.25, 1, np.nan]])
    >>> metrics = {"validation_loss_by_length": loss, "validation_right_by_length": 2 * loss}
    >>> for line in table("By length", (10, 20, 30), metrics):
    ...     print(line)
    By length, mean of 2 seeds:
      length    loss   right
      1 to 10   0.375  0.75
      11 to 20  1.5    3
      21 to 30  -      -
    """
    columns = {
        name.removeprefix(PREFIX).removesuffix(BY_LENGTH): values
        for name, values in metrics.items()
        if name.endswith(BY_LENGTH) and np.shape(values)[1:] == (len(groups),)
    }
    counted = [np.isfinite(values).any(axis=1).sum() for values in columns.values()]
    if not any(counted):
        return []
    seeds = len(next(iter(columns.values())))
    rows = [["length"]]
    for low, high in itertools.pairwise((0, *groups)):
        rows.append([f"{low + 1} to {high}" if low + 1 < high else str(high)])
    for name in sorted(columns, key=lambda name: (name != "loss", name)):
        means = map(_mean, columns[name].T)
        for row, cell in zip(rows, (name, *means), strict=True):
            row.append(cell)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    of = f", mean of {max(counted)} seeds" if seeds > 1 else ""
    return [f"{title}{of}:", *(f"  {line}" for line in lines)]


def _mean(values: np.ndarray) -> str:
    """Format the mean of those of [S] values that are finite."""
    finite = values[np.isfinite(values)]
    return f"{finite.mean(dtype=float):.4g}" if finite.size else "-"
