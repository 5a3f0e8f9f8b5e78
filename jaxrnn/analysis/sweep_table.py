"""The table at the end of a sweep, in plain text."""

import math

import numpy as np

from jaxrnn.analysis.report import success_interval
from jaxrnn.analysis.text_table import format_table
from jaxrnn.runs.sweep_results import Combination, SweepResult, label, text


def summarize(result: SweepResult) -> str:
    """Describe a sweep: a row for each combination, and the best one in the last line.

    Args:
      result: what `jaxrnn.sweep` or `jaxrnn.resume_sweep` returned.
    """
    best, first = result.best, result.combinations[0]
    has_solved = any(each.solved is not None for each in result.combinations)
    has_diverged = any(each.diverged for each in result.combinations)
    heads = [*first.settings, f"mean {result.measure}", "95% interval"]
    heads += ["solved"] * has_solved + ["diverged"] * has_diverged
    lines = [["", *heads]]
    for each in result.combinations:
        row = [*map(text, each.settings.values()), *_loss(each)]
        row += [_solved(each)] * has_solved + [str(each.diverged)] * has_diverged
        lines.append(["*" if each is best else "", *row])
    return "\n".join([*format_table(lines), _conclusion(result)])


def _loss(each: Combination) -> tuple[str, str]:
    if not math.isfinite(each.mean):
        return "not finite", "-"
    interval = "-" if each.interval is None else "{:.4g} to {:.4g}".format(*each.interval)
    return f"{each.mean:.4g}", interval


def _solved(each: Combination) -> str:
    if each.solved is None:
        return "-"
    successes, total = int(np.sum(each.solved)), len(each.solved)
    low, high = success_interval(successes, total)
    interval = f" ({100 * low:.0f} to {100 * high:.0f}%)" if total > 1 else ""
    return f"{successes} of {total}{interval}"


def _conclusion(result: SweepResult) -> str:
    best = result.best
    if best is None:
        return f"All networks diverged; the runs are in {result.sweep_dir}."
    seeds = len(best.losses)
    found, interval = _loss(best)
    said = f", 95% interval {interval} (Student's t)" if best.interval else ""
    over = f"mean over {seeds} seeds" if seeds > 1 else "one seed, so without an interval"
    why = "most solved, then the lowest " if result.by_success else "the lowest "
    return (
        f"Best: {label(best.settings, ', ')} ({why}{result.measure}: {found}, {over}{said}); the"
        f" run is in {best.run_dir}."
    )
