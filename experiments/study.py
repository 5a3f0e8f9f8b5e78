"""Train a published result again, with many seeds: `python experiments/study.py NAME`.

    python experiments/study.py --list
    python experiments/study.py mnist1d --seeds 20

The same command again continues where it was: what has been trained is not trained again.
"""

import os

if __name__ == "__main__":  # before JAX is imported; see experiments/hihello.py
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import contextlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import study_results
import tyro
from studies import Options, Outcome, Study, load, names

from jaxrnn import cli
from jaxrnn.checks import check_counts
from jaxrnn.errors import DivergedError, SettingError
from jaxrnn.runs import metrics, run_directory, run_metadata
from jaxrnn.runs.files import read_json, write_json
from jaxrnn.runs.runner import resume, run
from jaxrnn.runs.verification import verify
from jaxrnn.training.config import ExperimentConfig

PACKAGES = ("jaxrnn", "jax", "flax", "optax", "numpy")


@dataclass(frozen=True)
class Config:
    """Train a published result again, with many seeds, and compare."""

    name: tyro.conf.Positional[str] = ""
    """The study; --list names them."""
    list_studies: Annotated[bool, tyro.conf.arg(name="list")] = False
    """List the studies, and what each one asks."""
    seeds: int | None = None
    """Networks per experiment; by default the study's own number."""
    small: bool = False
    """Run the study's smaller version, for machines on which the full one takes too long."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """A file of data, for the studies that read one."""
    runs: Path = Path("runs/studies")
    """Where the runs are; a run that is already there is continued, or used if it has finished."""
    verify: bool = False
    """Train every run again afterwards, and compare, as `jaxrnn verify` does."""
    publish: bool = False
    """Write the results into docs/results."""

    def __post_init__(self) -> None:
        if self.list_studies:
            return
        study = load(self.name)
        if self.seeds is not None:
            check_counts(self, "seeds")
        if self.small and not study.small:
            raise SettingError(f"the study {self.name} has no smaller version")
        if self.data is not None and not study.takes_data:
            raise SettingError(f"the study {self.name} reads no --data")


def main(config: Config) -> None:
    """Train what has not been trained yet, print the table, draw the figure."""
    if config.list_studies:
        for name in names():
            print(f"{name:18} {load(name).question}")
        return
    study = load(config.name)
    options = Options(config.seeds or study.seeds, config.small, config.data)
    experiments = study.experiments(options)
    folder = config.runs / (config.name + "-small" * config.small)
    for label, experiment in experiments.items():
        require_same(folder / label, experiment)  # before hours of training
    outcomes = {}
    for n, (label, experiment) in enumerate(experiments.items(), 1):
        which = f"{config.name}, {label} ({n} of {len(experiments)})"
        print(f"{which}: {experiment.seeds} seed{'s' * (experiment.seeds > 1)}", flush=True)
        outcomes[label] = train(folder / label, experiment, which)
    rows = study_results.results(study, outcomes)
    picture = folder / f"{config.name}.png"
    study_results.draw(picture, study, outcomes)
    print(f"\n{study_results.table(rows)}\nThe figure is {picture}.")
    same_bits = config.verify and train_again(config.name, outcomes)
    if config.publish:
        publish(config, study, outcomes, rows, folder, same_bits)


def require_same(run_dir: Path, experiment: ExperimentConfig) -> None:
    """Raise SettingError if a directory holds a run of another experiment."""
    file = run_dir / run_directory.CONFIG
    if not file.exists():
        return
    wanted = run_metadata.config_of(experiment)["experiment"]
    found = run_metadata.config_of(run_metadata.load_config(run_dir))["experiment"]
    measured = [name for name in ("vmap_size", "mesh") if wanted[name] is None]
    for name in measured:  # `run` chose these
        wanted[name] = found.get(name)
    different = [name for name in wanted if wanted[name] != found.get(name)]
    if different:
        was, now = (json.dumps(each.get(different[0]))[:60] for each in (found, wanted))
        raise SettingError(
            f"{run_dir} holds a run of another experiment: {different[0]} was {was}, is now {now};"
            " remove it, or choose other --runs"
        )


def train(run_dir: Path, experiment: ExperimentConfig, progress_label: str = "") -> Outcome:
    """Start, continue or only read a run; if all its seeds diverged, that is its outcome."""
    started = (run_dir / run_directory.CONFIG).exists()
    if started:
        run_metadata.check_data(run_dir)
    with contextlib.suppress(DivergedError):
        if not started:
            run(experiment, run_dir=run_dir, label=progress_label)
        elif run_metadata.load(run_dir)["status"] not in ("finished", "diverged"):
            resume(run_dir, label=progress_label)
    manifest, file = run_metadata.load(run_dir), run_dir / run_directory.METRICS
    diverged, stopped, solved_at = (
        {int(seed): step for seed, step in manifest.get(name, {}).items()}
        for name in ("diverged", "stopped_early", "solved_at")
    )
    with file.open("rb") as lines:
        *_, last = lines
    seconds = json.loads(last)[metrics.CLOCK]["seconds"]
    ended = diverged, stopped, seconds, solved_at
    return Outcome(experiment, metrics.read(file), *ended, run_dir=run_dir)


def train_again(name: str, outcomes: dict[str, Outcome]) -> bool:
    """Verify each run, say what came out, and return whether no bit of any of them differs.

    Raises:
      SystemExit: at the first run that does not come out the same.
    """
    same_bits = True
    for n, (label, outcome) in enumerate(outcomes.items(), 1):
        verdict = verify(outcome.run_dir, f"verifying {name}, {label} ({n} of {len(outcomes)})")
        print(f"{label}: {verdict.text}", flush=True)
        if not verdict.holds:
            raise SystemExit(1)
        same_bits &= verdict.bitwise
    return same_bits


def publish(
    config: Config,
    study: Study,
    outcomes: dict[str, Outcome],
    rows: list[Any],
    folder: Path,
    same_bits: bool,
) -> None:
    """Write the record, the figure, the study's page and the gallery in docs."""
    images, pages = study_results.DOCS / "images", study_results.DOCS / "results"
    study_results.draw(images / f"study-{config.name}.png", study, outcomes)
    manifests = [run_metadata.load(folder / label) for label in outcomes]
    data = {Path(file).name: sha for each in manifests for file, sha in each["data_files"].items()}
    made = manifests[0]["provenance"]
    record = {
        "title": study.title,
        "question": study.question,
        "results": rows,
        "command": command(config),
        "small": study.small if config.small else "",
        "data": data,
        "seconds": round(sum(outcome.seconds for outcome in outcomes.values()), 1),
        "versions": {"Python": made["python"]}
        | {name: made["versions"][name] for name in PACKAGES},
        "machine": describe_machine(made),
        "curve": study.curve.replace("_", " "),
        "picture": f"../images/study-{config.name}.png",
    }
    if same_bits:
        record["verified"] = True
    file = pages / study_results.RECORDS
    records = (read_json(file) if file.exists() else {}) | {config.name: record}
    write_json(file, dict(sorted(records.items())))
    page = pages / f"{config.name}.md"
    before = page.read_text("utf-8") if page.exists() else None
    page.write_text(study_results.page(config.name, record, before), "utf-8")
    (pages / study_results.GALLERY).write_text(study_results.gallery(records), "utf-8")
    print(f"Written: {file}, {page}, and the gallery.")


def command(config: Config) -> str:
    """Return the command that makes these results, with the data file's name alone."""
    words = ["python", "experiments/study.py", config.name]
    words += ["--seeds", str(config.seeds)] if config.seeds else []
    words += ["--small"] if config.small else []
    words += ["--data", config.data.name] if config.data else []
    return shlex.join(words)


def describe_machine(made: dict[str, Any]) -> str:
    """Name the GPU, or the CPU and its number of cores, that a run was made on."""
    devices, cpu = made["devices"], made["cpu"]
    if devices["platform"] != "cpu":
        return f"{devices['count']} {devices['kind']}"
    return f"{cpu['usable']} CPU cores ({(cpu['model'] or 'unknown').split(',')[0]})"


if __name__ == "__main__":
    cli.run_command(Config, main)
