"""Summaries of a run in plain text."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from jaxrnn.analysis import length_table, stuck_rows
from jaxrnn.runs.evaluation import Evaluation
from jaxrnn.runs.runner import RunResult
from jaxrnn.tasks.language import Language
from jaxrnn.training.history import History, last_rows, quantiles, scalars
from jaxrnn.training.validation import LOSS, PREFIX, STUCK_ROWS, WORST_ROW, WORST_ROW_LOSS

ROWS = (STUCK_ROWS, WORST_ROW, WORST_ROW_LOSS)  # described by `stuck_rows` alone
MOST_NAMED = 3  # diverged seeds listed by name; the others are counted


def summarize(result: RunResult) -> str:
    """Describe a run in a few lines: final metrics, solved and diverged seeds, validation, time.

    The best networks of a language model are scored again, on its validation part as one stream.

    Args:
      result: what `jaxrnn.run` or `jaxrnn.resume` returned.
    """
    task = result.config.task
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(task).__name__).lower()
    ends = result.solved, result.diverged, task.memoryless_loss, result.stopped, result.solved_at
    seeds, steps, values = result.history
    shown = {name: value for name, value in values.items() if name not in ROWS}
    lines = [summarize_seeds(name, seeds, steps, shown, *ends)]
    if (losses := result.history.values.get(LOSS)) is not None:
        lines.append(summarize_validation(*result.history[:2], losses, task.format_loss))
        lines += stuck_rows.of_run(result)
        lines += length_table.of_run(result)
    lines.append(f"The training took {format_seconds(result)}; the run is in {result.run_dir}.")
    return "\n".join(lines)


def format_seconds(result: RunResult) -> str:
    """Format the time to train and to compile, as in "17.2 ms after 1.87 s of compiling"."""
    seconds = result.run_seconds
    took = f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
    return f"{took} after {result.compile_seconds:.2f} s of compiling"


def learned_at(correct: np.ndarray) -> np.ndarray:
    """Return the first training step from which every prediction is correct.

    Args:
      correct: [..., N] bool, whether the prediction after each update is correct.

    Returns:
      [...] int: a step in 0..N-1, or N if the last one is not correct.

    >>> int(learned_at(np.array([False, True, False, True, True])))
    3
    """
    steps = np.arange(1, correct.shape[-1] + 1)
    return np.max(np.where(correct, 0, steps), axis=-1)


def distribution(learned_at: np.ndarray, steps: int) -> str:
    """Return how many seeds learned a task, and a histogram of when, as text.

    Args:
      learned_at: [S] int, from `learned_at`; N if a seed did not learn it.
      steps: N.

    >>> print(distribution(np.array([3, 4, 4, 20]), 20))
    3 of 4 seeds learned it. The first step from which it stayed correct:
      earliest 3, quartiles 3.5, 4, 4, latest 4
      steps   2-3        1  ############
      steps   4-5        2  #########################
      not learned        1  ############
    """
    learned = learned_at[learned_at < steps]
    head = f"{learned.size} of {learned_at.size} seeds learned it."
    lines = []
    if learned.size:
        head += " The first step from which it stayed correct:"
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


def success_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval of a success rate.

    Unlike the normal approximation it stays within 0 to 1, and does not shrink to a point when all
    trials succeed or none does. Wilson (1927), Journal of the American Statistical Association 22.

    Args:
      successes: how many trials succeeded.
      trials: how many there were, at least 1.

    Returns:
      the lowest and the highest rate.

    Raises:
      ValueError: if there are no trials, or more successes than trials.

    >>> [round(bound, 4) for bound in success_interval(17, 20)]
    [0.6396, 0.9476]
    """
    from scipy.stats import binomtest  # takes longer to import than a small run to train

    interval = binomtest(successes, trials).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def summarize_seeds(
    task_name: str,
    seeds: np.ndarray,
    steps: np.ndarray,
    metrics: Mapping[str, np.ndarray],
    solved: np.ndarray | None,
    diverged: Mapping[int, int],
    memoryless_loss: float | None,
    stopped: Mapping[int, int] = MappingProxyType({}),
    solved_at: Mapping[int, int] = MappingProxyType({}),
) -> str:
    """Return the last metrics, how many seeds solved the task, and which diverged, as text.

    Args:
      task_name: the task's name.
      seeds: [S] int.
      steps: [R] int, the logged steps.
      metrics: by name, [S, R] each, "loss" among them; metrics with more axes are left out.
      solved: [S] bool; None if the task cannot be solved.
      diverged: by seed, the step at which its loss or gradient stopped being finite.
      memoryless_loss: the loss of the best predictor without memory; None if unknown.
      stopped: by seed, the step at which it ran out of patience and stopped.
      solved_at: by seed, the step at which it solved the task and stopped.

    >>> loss = np.array([[0.7, 0.01], [0.7, 0.03], [0.7, np.nan]])
    >>> solved, steps = loss[:, 1] < 0.02, np.array([0, 500])
    >>> print(summarize_seeds("parity", np.arange(3), steps, {"loss": loss}, solved, {2: 31}, 0.69))
    parity: 3 seeds after 500 updates; over the 2 that stayed finite:
      loss  median 0.02, quartiles 0.015 and 0.025 (memoryless baseline: 0.69)
    1 of 3 seeds solved it (33%, 95% interval 6 to 79%, Wilson).
    Seed 2 stopped being finite at step 31 and was frozen.
    """
    alone = len(seeds) == 1
    who = f"seed {seeds[0]}" if alone else f"{len(seeds)} seeds"
    if not len(steps):
        return f"{task_name}: {who}, and nothing was logged."
    stayed = ~np.isin(seeds, list(diverged))
    over = ""
    if not alone:
        over = f"; over the {stayed.sum()} that stayed finite" if diverged else "; over all of them"
        over += ", as last logged" if solved_at else ""  # success may fall between two lines
    lines = [f"{task_name}: {who} after {steps[-1]} update{'' if steps[-1] == 1 else 's'}{over}:"]
    last = last_rows(History(seeds, steps, scalars(metrics)), {**stopped, **solved_at})
    for name, values in last.items():
        said = _short(values[0]) if alone else _spread(values[stayed])
        if name == "loss" and memoryless_loss is not None:
            said += f" (memoryless baseline: {_short(memoryless_loss)})"
        lines.append(f"  {name:{max(map(len, last))}}  {said}")
    if solved is not None and alone:
        at = f" at step {solved_at[seeds[0]]}, and stopped there" if solved_at else ""
        lines.append(f"It solved the task{at}." if solved[0] else "It did not solve the task.")
    elif solved is not None:
        successes, total = int(np.sum(solved)), len(seeds)
        rate, low, high = map(_percent, (successes / total, *success_interval(successes, total)))
        lines.append(
            f"{successes} of {total} seeds solved it ({rate}%, 95% interval {low} to {high}%,"
            " Wilson)."
        )
        lines += summarize_successes(list(solved_at.values()))
    if diverged:
        frozen = " and was frozen" if len(diverged) == 1 else "; they were frozen"
        lines.append(_list_diverged(diverged) + ("" if alone else frozen) + ".")
    if stopped:
        ends = sorted(stopped.values())
        at = f"step {ends[0]}" if ends[0] == ends[-1] else f"steps {ends[0]} to {ends[-1]}"
        who = "It" if alone else f"{len(stopped)} of {len(seeds)} seeds"
        unsolved = " without solving it" if solved_at else ""
        lines.append(
            f"{who} stopped early{unsolved}, at {at}: the validation loss no longer improved."
        )
    return "\n".join(lines)


def summarize_successes(steps: Sequence[int]) -> list[str]:
    """Return a line on the steps at which seeds solved the task and stopped; none if none did.

    >>> print(*summarize_successes([12, 3, 50]))
    Each stopped there. Steps to success: median 12, quartiles 7.5 and 31, range 3 to 50.
    """
    if not len(steps):
        return []
    if len(steps) == 1:
        return [f"It stopped there, at step {steps[0]}."]
    low, first, median, third, high = quantiles(np.array(steps), [0, 25, 50, 75, 100])
    return [
        f"Each stopped there. Steps to success: median {median:.10g}, quartiles {first:.10g} and"
        f" {third:.10g}, range {low:.10g} to {high:.10g}."
    ]


def summarize_validation(
    seeds: np.ndarray, steps: np.ndarray, losses: np.ndarray, format_loss: Callable[[float], str]
) -> str:
    """Return the lowest validation losses as text.

    Args:
      seeds: [S] int.
      steps: [R] int, the steps that were logged.
      losses: [S, R], the validation losses; NaN at steps without validation.
      format_loss: describes a validation loss in other units.

    >>> losses = np.array([[2.0, np.nan, 1.5, 1.6], [2.0, np.nan, 1.7, 1.4]])
    >>> print(summarize_validation(np.arange(2), np.array([0, 10, 20, 40]), losses, " = {}".format))
    Best validation loss: median 1.45, quartiles 1.425 and 1.475.
    The lowest: 1.4 = 1.4, after 40 updates (seed 1).
    """
    lowest = np.min(np.where(np.isfinite(losses), losses, np.inf), axis=1)  # [S]
    best = int(np.argmin(lowest))
    step = steps[int(np.argmax(losses[best] == lowest[best]))]
    one = f"{_short(lowest[best])}{format_loss(float(lowest[best]))}, after {step} updates"
    if not np.isfinite(lowest[best]):
        return "The validation loss was never finite."
    if len(seeds) == 1:
        return f"Best validation loss: {one}."
    spread = _spread(np.where(np.isfinite(lowest), lowest, np.nan))
    return f"Best validation loss: {spread}.\nThe lowest: {one} (seed {seeds[best]})."


def summarize_evaluation(evaluation: Evaluation) -> str:
    """Describe the scores of a run's networks, a line for each seed, their mean, and by length.

    Args:
      evaluation: what `jaxrnn.runs.evaluation.evaluate` returned.
    """
    networks, metrics = evaluation.networks, evaluation.metrics
    task, losses, baseline = networks.config.task, metrics["loss"], evaluation.memoryless_loss
    others = {
        name: values
        for name, values in sorted(metrics.items())
        if values.ndim == 1 and name != "loss" and PREFIX + name not in ROWS
    }

    def describe(loss: float) -> str:
        if isinstance(task, Language) and math.isfinite(loss):
            return f"{_short(loss)}{task.format_loss_of(loss, evaluation.tokens_per_character)}"
        return _short(loss)

    lines = [f"Scored on {evaluation.data}:"]
    for s, seed in enumerate(networks.config.seed_numbers.tolist()):
        which = "best" if networks.is_best[s] else "final"
        line = f"  seed {seed}, {which}, {networks.updates[s]} updates: {describe(losses[s])}"
        if evaluation.stream_loss is not None:
            line += f"; as one stream {_short(float(evaluation.stream_loss[s]))}"
        line += "".join(f"; {name} {_short(float(values[s]))}" for name, values in others.items())
        rows = metrics.get("row_losses")
        if baseline is not None and rows is not None and losses[s] < baseline:
            named = stuck_rows.name_rows(rows[s], baseline)
            line += f"; stuck in {named}" if named else ""
        lines.append(line)
    lines += _mean_of_seeds("Mean", losses, describe)
    for name, values in others.items():
        lines += _mean_of_seeds(f"Mean {name}", values, _short)
    lines += length_table.of_evaluation(evaluation)
    if baseline is not None:
        lines.append(f"The memoryless loss is {_short(baseline)}.")
    return "\n".join(lines)


def _mean_of_seeds(title: str, values: np.ndarray, describe: Callable[[float], str]) -> list[str]:
    """Describe the mean of those of [S] numbers that are finite, if there are two or more."""
    finite = values[np.isfinite(values)].astype(float)
    if len(finite) < 2:
        return []
    from scipy.stats import t  # as above

    mean, error = finite.mean(), finite.std(ddof=1) / math.sqrt(len(finite))
    half = float(t.ppf(0.975, len(finite) - 1)) * error
    return [
        f"{title} of {len(finite)} seeds: {describe(float(mean))}, 95% interval"
        f" {_short(mean - half)} to {_short(mean + half)} (Student's t)."
    ]


def _spread(values: np.ndarray) -> str:
    """Format the median and quartiles of [S] numbers."""
    first, median, third = quantiles(values, [25, 50, 75]) if values.size else [math.nan] * 3
    finite = np.sum(np.isfinite(values))
    if not finite:
        return "never finite"
    of = f" ({finite} of {values.size} finite)" if finite < values.size else ""
    return f"median {_short(median)}, quartiles {_short(first)} and {_short(third)}{of}"


def _list_diverged(diverged: Mapping[int, int]) -> str:
    """Name the first few diverged seeds, and count the others."""
    named = sorted(diverged.items())[:MOST_NAMED]
    first, *others = (f"seed {seed} {{}}at step {step}" for seed, step in named)
    told = ", ".join([first.format("stopped being finite "), *(text.format("") for text in others)])
    more = len(diverged) - len(named)
    return told.capitalize() + (f" and {more} more" if more else "")


def _short(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "not finite"


def _percent(rate: float) -> str:
    """Format a rate in percent, with decimals where rounding would hide that it is not 0 or 1.

    >>> [_percent(rate) for rate in (0, 0.0004, 0.85, 0.9962, 1)]
    ['0', '0.04', '85', '99.6', '100']
    """
    off = 100 * min(rate, 1 - rate)
    return f"{100 * rate:.{max(0, -math.floor(math.log10(off))) if off else 0}f}"
