"""The results of a study: a record in JSON, and from it the table, the page and the gallery."""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from studies import Measure, Outcome, Study

from jaxrnn.analysis.report import success_interval

DOCS = Path(__file__).parent.parent / "docs"
SCRIPT = "python experiments/study.py"
RECORDS = "results.json"
GALLERY = "index.md"
BEGIN, END = "<!-- written by study.py -->", "<!-- end -->"
LANGUAGE_MODELS = (
    "Single runs of language models, with what was tried: [Tiny Shakespeare](tinyshakespeare.md)",
    "and [the Constitution of the Republic of Korea](korean.md).",
)
TOCTREE = ("```{toctree}", ":hidden:", ":glob:", "", "*", "```")  # the pages, for the site
FEW = 20  # with fewer seeds, a bootstrap interval of a mean is too narrow
COLORS = ("#22313f", "#c8553d", "#3d7ea6", "#5c9e6b", "#8d6a9f", "#d9a441", "#7f8c8d")


def describe(measure: Measure, values: np.ndarray) -> dict[str, Any]:
    """Describe one number per seed, [S], in JSON values: statistic, interval, spread, best."""
    seeds = len(values)
    if values.dtype == bool:
        successes = int(values.sum())
        low, high = success_interval(successes, seeds)
        rate = {"statistic": "rate", "value": successes / seeds, "successes": successes}
        return rate | {"low": low, "high": high, "interval": "Wilson", "seeds": seeds}
    there = values[np.isfinite(values)].astype(float)
    found = {"statistic": measure.statistic, "seeds": seeds, "finite": len(there)}
    if not there.size:
        return found | {"value": None}
    low, high, method = interval(there, measure.statistic)
    if low is not None and high is not None:  # Student's t knows no bounds
        low, high = max(low, measure.bounds[0]), min(high, measure.bounds[1])
    return found | {
        "value": float(getattr(np, measure.statistic)(there)),
        "low": low,
        "high": high,
        "interval": method,
        "median": float(np.median(there)),
        "sd": float(there.std(ddof=1)) if len(there) > 1 else None,
        "best": float(there.max() if measure.higher_is_better else there.min()),
    }


def interval(values: np.ndarray, statistic: str) -> tuple[float | None, float | None, str | None]:
    """Return the 95% interval of the mean or median of [S] finite numbers, and its method."""
    from scipy import stats  # takes longer to import than a small study

    if len(values) < 2:
        return None, None, None
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0]), "all equal"
    if statistic == "mean" and len(values) < FEW:
        error = values.std(ddof=1) / math.sqrt(len(values))
        half = float(stats.t.ppf(0.975, len(values) - 1) * error)
        return float(values.mean()) - half, float(values.mean()) + half, "Student's t"
    method = "BCa" if statistic == "mean" else "percentile"
    function = {"mean": np.mean, "median": np.median}[statistic]
    found = stats.bootstrap((values,), function, method=method, rng=np.random.default_rng(0))
    low, high = found.confidence_interval
    return float(low), float(high), f"bootstrap, {method}"


def results(study: Study, outcomes: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    """Return the rows of a study's table, one for each measure and experiment."""
    published = {(each.label, each.measure): each for each in study.published}
    rows = []
    for measure in study.measures:
        for label, outcome in outcomes.items():
            known = published.get((label, measure.name))
            row = {"experiment": label, "measure": measure.name}
            row |= {"published": known and known.value, "source": known and known.source}
            rows.append(row | {"ours": describe(measure, measure.values(outcome))})
    return rows


def number(value: float | None) -> str:
    """Format a number with four digits, such as 0.01235 or 31,390; None is a dash."""
    if value is None:
        return "-"
    digits = f"{value:.4g}"
    return f"{float(digits):,.0f}" if "e+" in digits else digits


def ours(row: dict[str, Any]) -> str:
    """Format a row's value with its interval."""
    found = row["ours"]
    if found["statistic"] == "rate":
        rate, low, high = (f"{100 * found[name]:.3g}" for name in ("value", "low", "high"))
        return f"{rate}% ({low} to {high}%), {found['successes']} of {found['seeds']}"
    if found["value"] is None:
        return "none"
    text = ("median " if found["statistic"] == "median" else "") + number(found["value"])
    if found["interval"] not in (None, "all equal"):
        text += f" ({number(found['low'])} to {number(found['high'])})"
    return text


def table(rows: list[dict[str, Any]]) -> str:
    """Format the rows as a Markdown table, and the sources of what was published."""
    heads = ("experiment", "measure", "published", "ours (95% interval)")
    lines: list[tuple[str, ...]] = [(*heads, "median", "standard deviation", "best", "seeds")]
    sources = list(dict.fromkeys(row["source"] for row in rows if row["source"]))
    for row in rows:
        found = row["ours"]
        finite = found.get("finite", found["seeds"])
        of = "" if finite == found["seeds"] else f"{finite} of "
        known = row["published"] or "-"
        if len(sources) > 1 and row["source"]:
            known += f" [{sources.index(row['source']) + 1}]"
        spread = (number(found.get(name)) for name in ("median", "sd", "best"))
        lines.append(
            (row["experiment"], row["measure"], known, ours(row), *spread, f"{of}{found['seeds']}")
        )
    lines.insert(1, ("---",) * len(lines[0]))
    methods = sorted({row["ours"].get("interval") for row in rows} - {None, "all equal"})
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
    if sources:
        numbered = (f"[{n}] {source}" for n, source in enumerate(sources, 1))
        text += f"\nPublished: {sources[0] if len(sources) == 1 else '; '.join(numbered)}.\n"
    return text + (f"\nIntervals: {', '.join(methods)}.\n" if methods else "")


def generated(name: str, record: dict[str, Any]) -> str:
    """Return the part of a study's page that comes from its record."""
    data = "".join(f"\n{file}: SHA-256 {digest}.\n" for file, digest in record["data"].items())
    smaller = f"\nThis is the smaller version: {record['small']}.\n" if record["small"] else ""
    again = "Training again gave the same bits (`jaxrnn verify`).\n\n"
    again = again if record.get("verified") else ""
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    return (
        f"{BEGIN}\n{record['question']}\n\n```bash\n{record['command']}\n```\n{data}{smaller}\n"
        f"{table(record['results'])}\n{again}Training took {duration(record['seconds'])} on"
        f" {record['machine']} ({versions}).\n\n"
        f"![{record['curve']} over the training steps]({record['picture']})\n{END}\n"
    )


def page(name: str, record: dict[str, Any], before: str | None) -> str:
    """Return a study's page: a new generated part, inside the text that was there."""
    part = generated(name, record)
    if before is None:
        return f"# {record['title']}\n\n{part}"
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}\n", re.DOTALL)
    if not pattern.search(before):
        return f"{before.rstrip()}\n\n{part}"
    return pattern.sub(lambda _: part, before, count=1)


def gallery(records: dict[str, Any]) -> str:
    """Return the page that lists all studies."""
    lines = [
        "# Published results, with many seeds",
        "",
        f"The studies' pages say what agrees, what does not, and why. A command follows `{SCRIPT}`,"
        " and its time is that of the training. With `--publish` it writes the study's page and"
        " this one.",
        "",
        "| study | published | ours (95% interval) | picture | command |",
        "|---|---|---|---|---|",
    ]
    for name, record in sorted(records.items()):
        first = record["results"][0]["measure"]
        rows = [row for row in record["results"] if row["published"]]
        known = _cell(rows, lambda row: row["published"])
        if not rows:
            known = "none for this size" if record["small"] else "none found"
            rows = [row for row in record["results"] if row["measure"] == first]
        cells = (
            f"[{record['title']}]({name}.md)" + (" (smaller version)" if record["small"] else ""),
            known,
            _cell(rows, ours),
            f'<img src="{record["picture"]}" width="160" alt="{record["curve"]}">',
            f"`{record['command'].removeprefix(SCRIPT).lstrip()}`<br>"
            + duration(record["seconds"]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *LANGUAGE_MODELS, "", *TOCTREE]) + "\n"


def _cell(rows: list[dict[str, Any]], text: Callable[[dict[str, Any]], str]) -> str:
    """Format what the gallery says of some rows: each measure in italics, then its experiments.

    If all experiments have the same text, it stands there once.
    """
    lines = []
    for measure in dict.fromkeys(row["measure"] for row in rows):
        texts = {row["experiment"]: text(row) for row in rows if row["measure"] == measure}
        if len(texts) > 1 and len(set(texts.values())) == 1:
            texts = {"each": next(iter(texts.values()))}
        lines += [f"*{measure}*", *(f"{name}: {words}" for name, words in texts.items())]
    return "<br>".join(lines)


def duration(seconds: float) -> str:
    """Format a time, such as 41 s, 12 min or 1.5 h."""
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5000 else f"{seconds / 3600:.1f} h"


def draw(path: Path, study: Study, outcomes: Mapping[str, Outcome]) -> None:
    """Draw the study's curve of each experiment: the median over seeds, and the quartiles.

    A seed that stopped early keeps its last value. The label "T=200/lstm" is a curve "lstm" in the
    panel "T=200".
    """
    from matplotlib.figure import Figure  # takes a second to import

    from jaxrnn.training.history import quantiles

    titles = list(dict.fromkeys(label.rpartition("/")[0] for label in outcomes))
    figure = Figure(figsize=(6.4, 1.2 + 2.6 * len(titles)), layout="constrained")
    axes = dict(zip(titles, figure.subplots(len(titles), 1, squeeze=False)[:, 0], strict=True))
    names = list(dict.fromkeys(label.rpartition("/")[2] for label in outcomes))
    caption, shown, dashed = "median, quartiles over seeds", {}, {}
    for label, outcome in outcomes.items():
        title, _, line = label.rpartition("/")
        color, axis = COLORS[names.index(line) % len(COLORS)], axes[title]
        values = outcome.history.values[study.curve].astype(float)
        for s, seed in enumerate(outcome.history.seeds.tolist()):
            ended = seed in outcome.stopped or seed in outcome.solved_at
            if ended and np.isfinite(values[s]).any():
                last = np.flatnonzero(np.isfinite(values[s]))[-1]
                values[s, last:] = values[s, last]
        measured = np.isfinite(values).any(axis=0)
        steps, (low, median, high) = outcome.history.steps, quantiles(values, [25, 50, 75])
        steps, low, median, high = (each[measured] for each in (steps, low, median, high))
        axis.fill_between(steps, low, high, color=color, alpha=0.2, lw=0)
        dot = "o" if len(steps) == 1 else None
        axis.plot(steps, median, color=color, lw=1.2, marker=dot, label=line)
        if "loss" in study.curve and len(steps) > 1:  # that of the start would hide the others
            shown.setdefault(title, []).extend((*low[1:], *high[1:]))
        for known in study.published:
            if known.label == label and known.line is not None:
                dashed.setdefault((title, known.line), []).append(color)
                shown.get(title, []).append(known.line)
                caption = "median, quartiles over seeds; dashed: published"
        axis.set(title=title, ylabel=study.curve.replace("_", " "))
    for (title, height), colors in dashed.items():  # black: the same for several curves
        color = colors[0] if len(colors) == 1 else "black"
        axes[title].axhline(height, color=color, ls="--", lw=1.0)
    for title, losses in shown.items():
        margin = 0.05 * (np.ptp(losses) or 1.0)
        axes[title].set_ylim(min(losses) - margin, max(losses) + margin)
    axes[titles[-1]].set_xlabel(f"training step ({caption})")
    if len(names) > 1:
        axes[titles[0]].legend(frameon=False, fontsize=9)
    figure.suptitle(study.title, fontsize=11)
    figure.savefig(path, dpi=144)
