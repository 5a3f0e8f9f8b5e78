"""How many seeds to train side by side: all (`vmap`), one (`map`), or groups, by measuring.

What is faster depends on the sizes and the machine: batched, small products make better use of
it; large ones only push each other out of its caches, or do not fit its memory at all.
"""

import contextlib
import hashlib
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import jax
import platformdirs

from jaxrnn.runs import config_json
from jaxrnn.runs.files import write_json
from jaxrnn.training.loop import Compiled, Program, compile_program, make_program
from jaxrnn.runs.progress import note
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.runs import machine

SHARE = 0.8  # of the memory that is free
SECONDS = 0.1  # a measurement's aim
WORTH = 1.2  # how much slower than the fastest a larger group may be, so that noise decides nothing


def choose(study: ExperimentConfig) -> ExperimentConfig:
    """The study with a group, if it leaves that open: what is fastest here and fits memory.

    The choice is kept in the user's cache directory: the same study on the same machine has the
    same batch shape, and so the same bits, in every run.

    Raises:
      MemoryError: if not even one seed at a time fits.
    """
    if study.vmap_size is not None:
        return study
    kept = _kept(study)
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # none, or damaged
        before = replace(study, vmap_size=int(json.loads(kept.read_text())["group"]))
        note(f"{_words(before)}, as measured here before")
        return before
    seconds = _measure(study)
    vmap_size = next(g for g, took in seconds.items() if took <= WORTH * min(seconds.values()))
    chosen = replace(study, vmap_size=vmap_size)
    measured = ", ".join(f"{g}: {s * 1e3:.3g} ms" for g, s in seconds.items())
    note(f"{_words(chosen)} (a step of all, by group size: {measured})")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, {"group": vmap_size, "seconds_a_step": seconds})
    except OSError as error:
        note(f"this choice cannot be kept in {kept.parent} ({error.strerror}): the next may differ")
    return chosen


def _measure(study: ExperimentConfig) -> dict[int, float]:
    """By group size, largest first, the seconds of one step of all seeds.

    All at once, then groups of about the root of their number, and only if these are worth it one
    at a time: each of them has to be compiled. If all at once do not fit memory, as many as do.
    """
    seconds: dict[int, float] = {}
    room = SHARE * _free_memory()
    groups = list(dict.fromkeys([study.seeds, math.isqrt(study.seeds), 1]))
    while groups:
        vmap_size = groups.pop(0)
        candidate = replace(study, vmap_size=vmap_size)
        program = make_program(candidate)
        compiled = compile_program(candidate, program)
        if (needed := _needed(compiled)) > room:
            if vmap_size == 1:
                raise MemoryError
            fits = int(vmap_size * room / needed)
            groups = sorted({max(fits, 1), *(g for g in groups if g < fits), 1}, reverse=True)
            continue
        took = _seconds(program, _fitted(compiled, room), candidate)
        worth_it = all(took * WORTH < larger for larger in seconds.values())
        seconds[vmap_size] = took
        if not worth_it:
            break
    return seconds


def _seconds(program: Program, run: Compiled, study: ExperimentConfig) -> float:
    """The seconds of one step of all seeds, the best of a few calls."""
    last = study.train.steps
    start = time.perf_counter()
    states, _ = run(program.blank, study.seed_numbers, 0, 1)
    jax.block_until_ready(states)
    best, at, steps, spent = time.perf_counter() - start, 1, 1, 0.0
    while spent < SECONDS and at + steps <= last:
        start = time.perf_counter()
        states, _ = run(states, study.seed_numbers, at, at + steps)
        jax.block_until_ready(states)
        took = time.perf_counter() - start
        best, spent, at = min(best, took / steps), spent + took, at + steps
        steps = min(2 * steps, study.train.steps_per_call)
    return best


def fit_memory(compiled: Compiled) -> Compiled:
    """The program, with as many lanes at once as memory holds, before the system kills the process.

    Raises:
      MemoryError: if it does not hold one.
    """
    free = _free_memory()
    if _needed(compiled) > free:
        raise MemoryError
    return _fitted(compiled, free)


def _fitted(compiled: Compiled, room: float) -> Compiled:
    """The program, with as many lanes at once as so many bytes hold, and one at least."""
    lanes = int(room / max(_needed(compiled), 1))
    return compiled._replace(at_once=max(1, min(compiled.lanes, lanes)))


def _needed(compiled: Compiled) -> int:
    """Bytes that a compiled program takes, of one lane."""
    memory = compiled.executable.memory_analysis()
    sizes = (memory.temp_size_in_bytes, memory.output_size_in_bytes, memory.argument_size_in_bytes)
    return sum(sizes)


def _free_memory() -> int:
    """Bytes that are free on the device that JAX computes on."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return machine.memory().available


def _kept(study: ExperimentConfig) -> Path:
    """The file that keeps the choice for such a study on such a machine."""
    device = jax.devices()[0]
    deciding = (study.task, study.model, study.train.optimizer, study.train.flatten, study.seeds)
    parts = [config_json.to_json(deciding), jax.__version__, device.device_kind, machine.cpu()]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return Path(platformdirs.user_cache_dir("jaxrnn")) / "groups" / f"{digest}.json"


def _words(study: ExperimentConfig) -> str:
    if study.vmap_size == study.seeds:
        return f"{study.seeds} seeds side by side"
    if study.vmap_size == 1:
        return f"{study.seeds} seeds in turn"
    return f"{study.seeds} seeds in groups of {study.vmap_size}"
