"""What `python -m jaxrnn info RUN_DIR` says: what a run is, how far it came, how to go on."""

import dataclasses
from pathlib import Path
from typing import Any

from jaxrnn.runs import checkpoints, metrics, run_directory, run_metadata

MOST_PARTS = 8  # of a tuple that is written out; a vocabulary has more


def of_run(run_dir: Path | str) -> str:
    """A few lines of plain text.

    Raises:
      RunError: if the run's files are damaged.
      OSError: if there is no run.
    """
    run_dir = Path(run_dir)
    run_directory.require_run(run_dir)
    facts, study = run_metadata.load(run_dir), run_metadata.load_config(run_dir)
    history = metrics.read(run_dir / run_directory.METRICS)
    saved = checkpoints.steps(run_dir / run_directory.CHECKPOINTS)
    status = facts["status"]
    if status == "running":
        status = "at work just now" if run_directory.is_taken(run_dir) else "broken off"
    logged = f"up to step {history.steps[-1]}" if history.steps.size else "nothing yet"
    last = study.seed + study.seeds - 1
    lines = [
        f"{run_dir}: {status}",
        f"  task         {_short(study.task)}",
        f"  model        {_short(study.model)}",
        f"  training     {_short(study.train)}",
        f"  seeds        {study.seed} to {last}, {study.vmap_size} side by side",
        f"  logged       {logged} of {study.train.steps}",
        f"  checkpoints  {', '.join(map(str, saved)) or 'none'}",
    ]
    for session in facts["sessions"]:
        ended = f"to step {session['to']}, {session['ended']}" if "to" in session else "broken off"
        lines.append(f"  worked on    from step {session['from']}, {session['began']}, {ended}")
    for seed, step in facts.get("not_finite", {}).items():
        lines.append(f"  not finite   seed {seed}, at step {step}")
    for seed, step in facts.get("stopped_early", {}).items():
        lines.append(f"  early end    seed {seed}, at step {step}")
    if status in ("broken off", "interrupted"):
        lines.append(f"Go on with it: {run_directory.resume_command(run_dir)}")
    return "\n".join(lines)


def _short(value: Any) -> str:
    """A dataclass or module on one line, with the fields that are not at their defaults."""
    if isinstance(value, tuple) and len(value) > MOST_PARTS:
        return f"({len(value)} of them)"
    if isinstance(value, tuple):
        return f"({', '.join(map(_short, value))})"
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return repr(value)
    fields = [
        f"{field.name}={_short(part)}"
        for field in dataclasses.fields(value)
        if field.name not in ("parent", "name")
        and (part := getattr(value, field.name)) is not field.default
        and part != field.default
        and part != {}
    ]
    return f"{type(value).__name__}({', '.join(fields)})"
