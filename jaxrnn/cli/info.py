"""The command `jaxrnn info`: a run's settings, its progress, and how to resume it."""

import dataclasses
from pathlib import Path
from typing import Any

from jaxrnn.runs import checkpoints, metrics, run_directory, run_metadata

MOST_ITEMS = 8  # of a tuple written in full; a vocabulary has more


def of_run(run_dir: Path | str) -> str:
    """Describe a run in a few lines of plain text.

    Raises:
      RunError: if the run's files are damaged.
      OSError: if there is no run.
    """
    run_dir = Path(run_dir)
    run_directory.require_run(run_dir)
    manifest, config = run_metadata.load(run_dir), run_metadata.load_config(run_dir)
    history = metrics.read(run_dir / run_directory.METRICS)
    saved = checkpoints.steps(run_dir / run_directory.CHECKPOINTS)
    status = run_metadata.status(run_dir)
    logged = f"up to step {history.steps[-1]}" if history.steps.size else "nothing yet"
    own = str(config.mesh or "seed=1")
    last_seed = config.seed + config.seeds - 1
    lines = [
        f"{run_dir}: {status}",
        f"  task         {_short(config.task)}",
        f"  model        {_short(config.model)}",
        f"  training     {_short(config.train)}",
        f"  seeds        {config.seed} to {last_seed}, vmap size {config.vmap_size}, mesh {own}",
        f"  logged       {logged} of {config.train.steps}",
        f"  checkpoints  {', '.join(map(str, saved)) or 'none'}",
    ]
    if source := manifest.get("init_from"):
        start = source.get("checkpoint") or source["file"]
        lines.append(f"  started from {start}")
    for session in manifest["sessions"]:
        is_last = session is manifest["sessions"][-1]
        end = "running" if is_last and status == "running" else "killed"
        if "ended" in session:
            end = f"to step {session['to_step']}, {session['ended']}"
        start = f"from step {session['from_step']}, {session['started']}"
        if (mesh := session.get("mesh", own)) != own:
            end += f", mesh {mesh}"
        if (count := session.get("processes", 1)) > 1:
            end += f", {count} processes"
        lines.append(f"  session      {start}, {end}")
    for seed, step in manifest.get("diverged", {}).items():
        lines.append(f"  diverged     seed {seed}, at step {step}")
    for seed, step in manifest.get("stopped_early", {}).items():
        lines.append(f"  early stop   seed {seed}, at step {step}")
    if solved := manifest.get("solved_at"):
        at = f"steps {min(solved.values())} to {max(solved.values())}"
        lines.append(f"  solved       {len(solved)} of {config.seeds} seeds, at {at}")
    if status in ("killed", "interrupted"):
        lines.append(f"Resume with: {run_directory.resume_command(run_dir)}")
    return "\n".join(lines)


def of_sweep(folder: Path) -> str:
    """Return the table of a sweep; if it has not finished, the status of each run."""
    from jaxrnn.analysis import sweep_table
    from jaxrnn.runs import joint_run, sweep_results

    run_dirs = sweep_results.read(folder)["runs"]
    if all(map(joint_run.has_ended, run_dirs)):
        return sweep_table.summarize(sweep_results.outcome(folder))
    lines = []
    for run_dir in run_dirs:
        started = (run_dir / run_directory.MANIFEST).exists()
        status = run_metadata.status(run_dir) if started else "not started"
        lines.append(f"{run_dir}: {status}")
    return "\n".join([*lines, f"Resume with: {run_directory.resume_command(folder)}"])


def _short(value: Any) -> str:
    """Format a dataclass or module on one line, without the fields at their defaults."""
    if isinstance(value, tuple) and len(value) > MOST_ITEMS:
        return f"({len(value)} items)"
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
