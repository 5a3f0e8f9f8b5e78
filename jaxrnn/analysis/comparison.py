"""Several runs side by side: what differs in their settings, and what became of each."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrnn.analysis.text_table import fit_table
from jaxrnn.choices import check_choice
from jaxrnn.errors import RunError, SettingError
from jaxrnn.runs import catalogue, metrics, run_directory, run_metadata
from jaxrnn.runs.config_json import MARKS
from jaxrnn.runs.files import read_json
from jaxrnn.runs.sweep_results import SWEEP
from jaxrnn.text.characters import escape_unprintable
from jaxrnn.training.history import History, last_rows, quantiles, scalars
from jaxrnn.training.validation import LOSS

MOST_SETTINGS = 6  # columns of the table; others that differ are named below it
LONGEST_VALUE = 24
PARTS = ("train", "task", "model", "init_from")  # of an experiment, in the order of the columns
MOST_ITEMS = 3  # of a list written in full


class Compared(NamedTuple):
    """One of the runs."""

    name: str  # as the user gave it
    entry: catalogue.Entry
    experiment: dict[str, Any]  # of config.json
    manifest: dict[str, Any]
    history: History

    def ends(self) -> dict[int, int]:
        """The step at which each seed that did not reach the end stopped."""
        parts = ("diverged", "stopped_early", "solved_at")
        return {int(s): step for part in parts for s, step in self.manifest.get(part, {}).items()}


def read(paths: Sequence[Path]) -> list[Compared]:
    """Read the runs to compare; a sweep stands for all of its runs.

    Raises:
      SettingError: if there are fewer than two.
      RunError: if one is damaged, or has logged nothing.
      OSError: if one is not there.
    """
    runs = list(dict.fromkeys(each for path in paths for each in _runs_of(path)))
    if len(runs) < 2:
        raise SettingError("compare needs two runs or more, or a sweep")
    return [_read(run_dir) for run_dir in runs]


def choose_metric(runs: Sequence[Compared], metric: str | None) -> str:
    """Return the metric to compare: by default the validation loss, if all runs have it.

    Raises:
      SettingError: if a run does not have it.
    """
    first, *others = (scalars(each.history.values) for each in runs)
    shared = [name for name in first if all(name in each for each in others)]
    if metric is None:
        return LOSS if LOSS in shared else "loss"
    check_choice("--metric", metric, shared)
    return metric


def table(runs: Sequence[Compared], metric: str, columns: int | None = None) -> str:
    """Return the table: settings that differ, and the metric's median and quartiles over seeds.

    Args:
      runs: two or more.
      metric: from `choose_metric`.
      columns: of the terminal; None for no limit.
    """
    settings, more = differing(runs)
    heads = ["run", *settings, "seeds", "status", "updates", _title(metric)]
    rows = [
        [each.name, *(values[r] for values in settings.values()), *_outcome(each, metric)]
        for r, each in enumerate(runs)
    ]
    if any("solved_at" in each.manifest for each in runs):
        heads.append("solved")
        for row, each in zip(rows, runs, strict=True):
            solved = each.manifest.get("solved_at")
            row.append("-" if solved is None else f"{len(solved)} of {each.entry.seeds}")
    lines = fit_table([heads, *rows], columns)
    if not settings:
        lines.append("Their settings are the same.")
    if more:
        lines.append(f"These differ, too: {', '.join(more)}.")
    if len({each.entry.task for each in runs}) > 1:
        lines.append("The tasks differ, so their losses may not be comparable.")
    return "\n".join(lines)


def final_values(run: Compared, metric: str) -> np.ndarray:
    """Return what counts for each seed, [S]: the last value, or the lowest validation loss.

    NaN for a seed that diverged.
    """
    values = scalars(run.history.values)
    if metric == LOSS:
        finite = np.where(np.isfinite(values[LOSS]), values[LOSS], np.inf)
        found = np.min(finite, axis=1)
    else:
        one = History(run.history.seeds, run.history.steps, {metric: values[metric]})
        found = last_rows(one, run.ends())[metric]
    lost = np.isin(run.history.seeds, [int(seed) for seed in run.manifest.get("diverged", ())])
    return np.where(np.isfinite(found) & ~lost, found, np.nan)


def differing(runs: Sequence[Compared]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the settings that differ, by name, [runs] each; and the names of those left out.

    Settings that only some of the runs have are not among them: they belong to the task or cell.
    """
    found = {"task": [each.entry.task for each in runs], "cell": [each.entry.cell for each in runs]}
    flat = [flatten({part: each.experiment.get(part) for part in PARTS}) for each in runs]
    for name in flat[0]:
        is_of_cell = ".cell." in name or name.endswith(".type")
        if not is_of_cell and all(name in each for each in flat):
            found[name] = [each[name] for each in flat]
    found = {name: values for name, values in found.items() if len(set(values)) > 1}
    last = [name.rpartition(".")[2] for name in found]
    short = {name: word if last.count(word) == 1 else name for name, word in zip(found, last)}  # noqa: B905
    names = list(found)
    shown = {short[name]: list(map(_cut, found[name])) for name in names[:MOST_SETTINGS]}
    return shown, [short[name] for name in names[MOST_SETTINGS:]]


def flatten(value: Any, where: str = "") -> dict[str, str]:
    """Return the parts of what config.json holds, as text, by their paths.

    >>> flatten(
    ...     {"train": {"steps": 3}, "task": {"path": "a"}, "layers": [{"size": 1}, {"size": 2}]}
    ... )
    {'train.steps': '3', 'task': 'a', 'layers[0].size': '1', 'layers[1].size': '2'}
    """
    if isinstance(value, dict) and len(value) == 1 and MARKS.issuperset(value):
        [inside] = value.values()
        return {where: inside.rpartition(":")[2] if isinstance(inside, str) else json.dumps(inside)}
    if isinstance(value, dict):
        parts = [(f"{where}.{name}" if where else name, part) for name, part in value.items()]
    elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
        parts = [(f"{where}[{n}]", part) for n, part in enumerate(value)]
    else:
        return {where: _text(value)}
    return {path: text for name, part in parts for path, text in flatten(part, name).items()}


def _runs_of(path: Path) -> list[Path]:
    if (path / SWEEP).is_file():
        return [each.path for each in catalogue.find(path)]
    return [Path(os.path.normpath(path))]


def _read(run_dir: Path) -> Compared:
    run_directory.require_run(run_dir)
    entry = catalogue.describe(run_dir)
    if entry.problem:
        raise RunError(f"{run_dir}: {entry.problem}")
    experiment = read_json(run_dir / run_directory.CONFIG)["experiment"]
    history = metrics.read(run_dir / run_directory.METRICS)
    if not history.steps.size:
        raise RunError(f"{run_dir} has logged nothing yet, so there is nothing to compare")
    name = escape_unprintable(str(run_dir))
    return Compared(name, entry, experiment, run_metadata.load(run_dir), history)


def _outcome(run: Compared, metric: str) -> list[str]:
    entry, values = run.entry, final_values(run, metric)
    finite = values[np.isfinite(values)]
    status = entry.status + (f", {entry.diverged} diverged" if entry.diverged else "")
    said = "not finite"
    if finite.size:
        first, median, third = quantiles(finite, [25, 50, 75])
        said = f"{median:.4g}" + (f" ({first:.4g} to {third:.4g})" if finite.size > 1 else "")
    return [str(entry.seeds), status, str(run.history.steps[-1]), said]


def _title(metric: str) -> str:
    return "best validation loss" if metric == LOSS else f"final {metric.replace('_', ' ')}"


def _text(value: Any) -> str:
    if isinstance(value, list) and len(value) > MOST_ITEMS:
        digest = hashlib.sha256(json.dumps(value).encode()).hexdigest()
        return f"{len(value)} items, {digest[:4]}"  # so that other items of this number differ
    return value if isinstance(value, str) else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."
