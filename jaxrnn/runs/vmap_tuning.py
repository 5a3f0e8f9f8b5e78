"""How many seeds to train in one `vmap`: all, one, or groups, whichever is fastest here.

It depends on the sizes and the machine. Batched small products use it better; large ones push each
other out of its caches, or do not fit into its memory at all.
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

from jaxrnn.runs import config_json, machine
from jaxrnn.runs.files import write_json
from jaxrnn.runs.progress import note
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.loop import CompiledLoop, TrainLoop, compile_loop

MEMORY_SHARE = 0.8  # of the free memory, that a measured program may use
SECONDS = 0.1  # how long to measure each size
TOLERANCE = 1.2  # how much slower than the fastest a larger group may be, against noise


def choose_vmap_size(config: ExperimentConfig) -> ExperimentConfig:
    """Return the config with a `vmap_size`; if it has none, with the fastest that fits memory.

    The choice is cached in the user's cache directory: the same experiment on the same machine
    then has the same batch shape, and so the same bits, in every run.

    Raises:
      MemoryError: if not even one seed at a time fits.
    """
    if config.vmap_size is not None:
        return config
    cache = _cache_file(config)
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # none, or damaged
        cached = replace(config, vmap_size=int(json.loads(cache.read_text())["vmap_size"]))
        note(f"{_describe(cached)}, as measured here before")
        return cached
    seconds = _measure(config)
    fastest = min(seconds.values())
    size = next(size for size, took in seconds.items() if took <= TOLERANCE * fastest)
    chosen = replace(config, vmap_size=size)
    measured = ", ".join(f"{size}: {took * 1e3:.3g} ms" for size, took in seconds.items())
    note(f"{_describe(chosen)} (a step of all seeds, by vmap size: {measured})")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_json(cache, {"vmap_size": size, "seconds_per_step": seconds})
    except OSError as error:
        note(
            f"cannot cache this choice in {cache.parent} ({error.strerror}): the next run may"
            " choose another"
        )
    return chosen


def require_memory(loop: TrainLoop) -> None:
    """Check, before anything is compiled or allocated, that the state and a gradient fit memory.

    Raises:
      MemoryError: if not.
    """
    state = sum(leaf.nbytes for leaf in jax.tree.leaves(loop.blank))
    gradient = sum(leaf.nbytes for leaf in jax.tree.leaves(loop.blank.params)) / loop.config.seeds
    if state + gradient > _free_memory():
        raise MemoryError


def fit_memory(compiled: CompiledLoop) -> CompiledLoop:
    """Limit the lanes that run at once to what free memory holds, before the system kills us.

    Raises:
      MemoryError: if it does not hold one.
    """
    free = _free_memory()
    if _bytes_per_lane(compiled) > free:
        raise MemoryError
    return _limit_lanes(compiled, free)


def _measure(config: ExperimentConfig) -> dict[int, float]:
    """Return the seconds of one step of all seeds by vmap size, largest first.

    It tries all seeds at once, then groups of about the square root of their number, and one at a
    time only if the groups were faster, since each size has to be compiled. If all at once do not
    fit into memory, it starts with as many as do.
    """
    seconds: dict[int, float] = {}
    room = MEMORY_SHARE * _free_memory()
    sizes = list(dict.fromkeys([config.seeds, math.isqrt(config.seeds), 1]))
    while sizes:
        size = sizes.pop(0)
        loop = TrainLoop(replace(config, vmap_size=size))
        if not seconds:
            require_memory(loop)
        compiled = compile_loop(loop)
        if (needed := _bytes_per_lane(compiled)) > room:
            if size == 1:
                raise MemoryError
            fits = int(size * room / needed)
            sizes = sorted({max(fits, 1), *(n for n in sizes if n < fits), 1}, reverse=True)
            continue
        took = _seconds_per_step(loop, _limit_lanes(compiled, room))
        faster = all(took * TOLERANCE < larger for larger in seconds.values())
        seconds[size] = took
        if not faster:
            break
    return seconds


def _seconds_per_step(loop: TrainLoop, compiled: CompiledLoop) -> float:
    """Return the seconds of one step of all seeds, the best of a few calls."""
    seeds, last = loop.config.seed_numbers, loop.config.train.steps
    started = time.perf_counter()
    states, _ = compiled(loop.blank, seeds, 0, 1)
    jax.block_until_ready(states)
    best, step, steps, spent = time.perf_counter() - started, 1, 1, 0.0
    while spent < SECONDS and step + steps <= last:
        started = time.perf_counter()
        states, _ = compiled(states, seeds, step, step + steps)
        jax.block_until_ready(states)
        took = time.perf_counter() - started
        best, spent, step = min(best, took / steps), spent + took, step + steps
        steps = min(2 * steps, loop.config.train.steps_per_call)
    return best


def _limit_lanes(compiled: CompiledLoop, room: float) -> CompiledLoop:
    """Let as many lanes run at once as fit into `room` bytes, at least one."""
    lanes = int(room / max(_bytes_per_lane(compiled), 1))
    return compiled._replace(lanes_at_once=max(1, min(compiled.lanes, lanes)))


def _bytes_per_lane(compiled: CompiledLoop) -> int:
    if not hasattr(compiled.executable, "memory_analysis"):  # JAX_DISABLE_JIT
        return 0
    memory = compiled.executable.memory_analysis()
    sizes = memory.temp_size_in_bytes, memory.output_size_in_bytes, memory.argument_size_in_bytes
    return sum(sizes)


def _free_memory() -> int:
    """Return the free bytes on the device that JAX computes on."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return machine.memory().available


def _cache_file(config: ExperimentConfig) -> Path:
    """Return the file that caches the choice for such an experiment on such a machine."""
    device, train = jax.devices()[0], config.train
    deciding = (config.task, config.model, train.optimizer, train.flatten, config.seeds)
    parts = [config_json.to_json(deciding), jax.__version__, device.device_kind, machine.cpu()]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return Path(platformdirs.user_cache_dir("jaxrnn")) / "vmap_sizes" / f"{digest}.json"


def _describe(config: ExperimentConfig) -> str:
    if config.vmap_size == config.seeds:
        return f"all {config.seeds} seeds in one vmap"
    if config.vmap_size == 1:
        return f"{config.seeds} seeds, one at a time"
    return f"{config.seeds} seeds in groups of {config.vmap_size}"
