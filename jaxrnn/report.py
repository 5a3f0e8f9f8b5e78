"""What a study says of its seeds, in plain text."""

import numpy as np


def distribution(learned_at: np.ndarray, steps: int) -> str:
    """How many seeds learned a task, and a histogram of when.

    Args:
      learned_at: [S] int, the first training step that was right and stayed right; N if none.
      steps: N.

    >>> print(distribution(np.array([3, 4, 4, 20]), 20))
    3 of 4 seeds learned it. The first step that was right and stayed right:
      earliest 3, quartiles 3.5, 4, 4, latest 4
      steps   2-3        1  ############
      steps   4-5        2  #########################
      not learned        1  ############
    """
    learned = learned_at[learned_at < steps]
    head = f"{learned.size} of {learned_at.size} seeds learned it."
    lines = []
    if learned.size:
        head += " The first step that was right and stayed right:"
        low, first, median, third, high = np.percentile(learned, [0, 25, 50, 75, 100])
        lines.append(
            f"  earliest {low:g}, quartiles {first:g}, {median:g}, {third:g}, latest {high:g}"
        )
    width = -(-steps // 10)  # at most ten bins
    bins = [
        (
            f"steps {f'{start}-{min(start + width, steps) - 1}':>5}"
            if width > 1
            else f"steps {start:>5}",
            int(np.sum(learned // width == start // width)),
        )
        for start in range(0, steps, width)
    ]
    bins.append(("not learned", learned_at.size - learned.size))
    for name, count in bins:
        if count:
            lines.append(
                f"  {name} {count:>8}  {'#' * round(50 * count / learned_at.size)}".rstrip()
            )
    return "\n".join([head, *lines])
