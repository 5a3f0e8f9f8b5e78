"""How to lay a run out: how many seeds to train in one `vmap`, and on which devices.

Both depend on the sizes and the machine. Batched small products use it better; large ones push each
other out of its caches, or do not fit into its memory at all. Several seeds are spread over the
devices. The batch rows of a single network are, if that makes its steps faster.
"""

import contextlib
import hashlib
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import jax
import platformdirs

from jaxrnn.runs import config_json, machine
from jaxrnn.runs.files import write_json
from jaxrnn.runs.progress import note
from jaxrnn.training import processes
from jaxrnn.training.calls import CompiledLoop, compile_loop
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.joint import JointConfig, networks_of
from jaxrnn.training.loop import TrainLoop, make_mesh
from jaxrnn.training.mesh import MeshShape

MEMORY_SHARE = 0.8  # of the free memory, that a measured program may use
SECONDS = 0.1  # how long to measure each layout
TOLERANCE = 1.2  # how much slower than the fastest a larger group may be, against noise
GAIN = 1.1  # how much faster a step must be before batch rows are spread over devices
STEP_FLOPS, RUN_FLOPS = 5e8, 2e12  # below these, spreading rows is not worth measuring

Seconds = list[tuple[TrainLoop, float]]
"""The seconds of one step of all seeds, by layout."""


def choose_layout(loop: TrainLoop) -> TrainLoop:
    """Return the loop with a `vmap_size` and a `mesh`; those it lacks are the fastest that fit.

    Measured choices are cached in the user's cache directory: the same experiment on the same
    machine then has the same shapes, and so the same bits, in every run.

    Raises:
      MemoryError: if not even one seed at a time fits.
      SettingError: if the mesh does not fit the experiment, or JAX has too few devices.
    """
    config = loop.config
    if config.vmap_size is not None and config.mesh is not None:
        return loop
    if processes.are_several():
        return loop.with_layout(spread_over_all(config))
    if config.vmap_size is not None:
        if config.seeds > 1:
            return loop.with_layout(spread_seeds(config, config.vmap_size))
        if not _is_large(loop):
            return loop.with_layout(replace(config, mesh=MeshShape()))
    cache = _cache_file(config)
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # none, or damaged
        cached = json.loads(cache.read_text())
        size, mesh = int(cached["vmap_size"]), MeshShape.parse(cached["mesh"])
        chosen = loop.with_layout(replace(config, vmap_size=size, mesh=mesh))
        note(f"{_describe(chosen.config)}, as measured here before")
        return chosen
    seconds = _measure_sizes(loop) if config.vmap_size is None else _measure_rows(loop)
    chosen = _fastest(seconds)
    measured = ", ".join(
        f"{_describe(layout.config)}: {took * 1e3:.3g} ms" for layout, took in seconds
    )
    note(f"{_describe(chosen.config)} (measured, a step of all: {measured})")
    record = {"vmap_size": chosen.vmap_size, "mesh": str(chosen.config.mesh)}
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_json(cache, record)
    except OSError as error:
        note(
            f"cannot cache this choice in {cache.parent} ({error.strerror}): the next run may"
            " choose another"
        )
    return chosen


def spread_seeds(config: ExperimentConfig, size: int) -> ExperimentConfig:
    """Return the config with this vmap size, its groups of seeds spread over JAX's devices.

    A mesh that the config has already stays.
    """
    groups = -(-config.seeds // size)
    mesh = config.mesh or MeshShape(seed=min(groups, jax.device_count()))
    return replace(config, vmap_size=size, mesh=mesh)


def spread_over_all(config: ExperimentConfig) -> ExperimentConfig:
    """Return the config for several processes: nothing is measured, and every device is used.

    That is as many devices as there are seeds, or as divide the rows of a single network's batch.
    """
    devices, rows = jax.device_count(), config.batch_shape.inputs.shape[0]
    if config.seeds > 1:
        return spread_seeds(config, config.vmap_size or _size_for(config.seeds, devices))
    most = max(n for n in range(1, min(rows, devices) + 1) if rows % n == 0)
    return replace(config, vmap_size=1, mesh=config.mesh or MeshShape(data=most))


def fit_devices(config: ExperimentConfig, mesh: MeshShape | None) -> ExperimentConfig:
    """Return the config of a run to resume, with another mesh if it is asked for or needed.

    With too few groups of seeds for that mesh, the vmap size gets smaller.

    Args:
      config: the run's own.
      mesh: the mesh to use; None for the run's own. If JAX has too few devices for that, its seeds
        are spread over those there are; several processes use all of theirs.

    Raises:
      SettingError: if the mesh does not fit the run, or JAX has too few devices.
    """
    own = config.mesh or MeshShape()
    if mesh is None and own.devices == jax.device_count():
        return config
    if mesh is None and processes.are_several():
        mesh = spread_over_all(replace(config, mesh=None, vmap_size=None)).mesh
    elif mesh is None and own.devices < jax.device_count():
        return config
    mesh = mesh or MeshShape(seed=min(own.seed, jax.device_count()))
    if mesh == own:
        return config
    size, before = config.vmap_size or config.seeds, f"the mesh {own}"
    after = str(mesh)
    if -(-config.seeds // size) < mesh.seed <= config.seeds:
        before += f" and vmap size {size}"
        size = _size_for(config.seeds, mesh.seed)
        after += f" and vmap size {size}"
    config = replace(config, mesh=mesh, vmap_size=size)
    make_mesh(config, size)
    note(f"the run used {before}; it resumes with {after}, so its last bits may differ")
    return config


def _size_for(seeds: int, devices: int) -> int:
    """Return the largest vmap size with which there is a group of seeds for each device."""
    size = -(-seeds // devices)
    return size if -(-seeds // size) >= devices else max(seeds // devices, 1)


def require_memory(loop: TrainLoop) -> None:
    """Check, before anything is compiled or allocated, that what is surely needed fits memory.

    That is one batch; and the state and a gradient.

    Raises:
      MemoryError: if not.
    """
    config, free = loop.config, _free_memory()
    rows, batch = config.batch_shape.inputs.shape[0], _bytes_of(config.batch_shape)
    if batch > free:
        fit = int(rows * free / batch)
        remedy = f"use at most {fit}" if fit else "use shorter sequences"
        raise MemoryError(
            f"one batch of {rows} rows needs {_in_gigabytes(batch)}, but only"
            f" {_in_gigabytes(free)} is free: {remedy}"
        )
    state, gradient = _bytes_of(loop.shapes), _bytes_of(loop.shapes.params)
    if (needed := config.seeds * state + gradient) > (free := free * _memories(loop)):
        fit = max(int((free - gradient) / state), 0)
        remedy = f"use at most {fit}" if fit and config.seeds > 1 else "use fewer hidden units"
        networks = "the network" if config.seeds == 1 else f"{config.seeds} networks"
        raise MemoryError(
            f"the parameters and the optimizer's state of {networks} need {_in_gigabytes(needed)},"
            f" but only {_in_gigabytes(free)} is free: {remedy}"
        )


def require_rows(what: str, rows: int, row_bytes: int) -> None:
    """Check, before anything is allocated, that `rows` rows fit into memory.

    Args:
      what: the rows are, such as "samples".
      rows: how many.
      row_bytes: that one needs.

    Raises:
      MemoryError: if they do not; the message says how many would fit.
    """
    if (needed := rows * row_bytes) > (free := _free_memory()):
        raise MemoryError(
            f"{rows} {what} need about {_in_gigabytes(needed)}, but only {_in_gigabytes(free)} is"
            f" free: use at most {int(free / row_bytes)}"
        )


def fit_memory(compiled: CompiledLoop) -> CompiledLoop:
    """Return the compiled loop, before the system kills it, if free memory holds it.

    Raises:
      MemoryError: if not; the message says what would fit.
    """
    needed, free = _bytes_needed(compiled), _free_memory()
    if needed > free:
        _refuse(compiled, needed, free)
    return compiled


def _refuse(compiled: CompiledLoop, needed: int, free: float) -> NoReturn:
    """Raise MemoryError, with what would fit."""
    config = compiled.config
    size, rows = config.vmap_size or config.seeds, config.batch_shape.inputs.shape[0]
    remedy = "use fewer hidden units, steps or batch rows"
    if size > 1:
        remedy = f"use a vmap size of at most {max(1, int(size * free / needed))}"
    elif fewer := int(free / needed * rows):
        remedy = f"a batch of about {fewer} rows would fit"
    raise MemoryError(
        f"the program needs {_in_gigabytes(needed)}, but only {_in_gigabytes(free)} is free:"
        f" {remedy}"
    )


def _measure_sizes(loop: TrainLoop) -> Seconds:
    """Return the seconds of one step of all seeds by layout, the largest vmap size first.

    It tries groups as large as their spread over the devices allows, then of about the square root
    of the number of seeds, and one seed at a time only if the groups were faster, since each size
    has to be compiled. If the first do not fit into memory, it starts with as large ones as do.
    """
    seconds: Seconds = []
    config = loop.config
    parts = config.mesh.seed if config.mesh else min(config.seeds, jax.device_count())
    largest = -(-config.seeds // parts)
    require_memory(loop.with_layout(spread_seeds(config, largest)))
    room = MEMORY_SHARE * _free_memory()
    sizes = sorted({largest, min(largest, math.isqrt(config.seeds)), 1}, reverse=True)
    while sizes:
        layout = loop.with_layout(spread_seeds(config, size := sizes.pop(0)))
        compiled = compile_loop(layout)
        if (needed := _bytes_needed(compiled)) > room:
            if size == 1 and config.mesh is None and layout.mesh is not None:
                fewer = int(layout.seeds_at_once * room / needed)
                config, sizes = replace(config, mesh=MeshShape(seed=max(fewer, 1))), [1]
                continue
            if size == 1:
                _refuse(compiled, needed, room)
            fits = int(size * room / needed)
            sizes = sorted({max(fits, 1), *(n for n in sizes if n < fits), 1}, reverse=True)
            continue
        took = _seconds_per_step(layout, compiled)
        faster = all(took * TOLERANCE < larger for _, larger in seconds)
        seconds.append((layout, took))
        if not faster:
            break
    return seconds


def _measure_rows(loop: TrainLoop) -> Seconds:
    """Return the seconds of one step on one device, and with the rows spread over several.

    A layout that does not fit into memory is left out.
    """
    config = loop.config
    require_memory(loop)
    rows = config.batch_shape.inputs.shape[0]
    most = max(n for n in range(1, min(rows, jax.device_count()) + 1) if rows % n == 0)
    loops = [loop.with_layout(replace(config, mesh=MeshShape(data=n))) for n in (1, most)]
    programs, room = [compile_loop(loop) for loop in loops], _free_memory()
    needed = list(map(_bytes_needed, programs))
    fitting = [n for n, size in enumerate(needed) if size <= room]
    if not fitting:
        _refuse(programs[-1], needed[-1], room)
    turns = [[_seconds_per_step(loops[n], programs[n]) for n in fitting] for _ in range(2)]
    best = [min(took) for took in zip(*turns, strict=True)]
    return [(loops[n], took) for n, took in zip(fitting, best, strict=True)]


def _fastest(seconds: Seconds) -> TrainLoop:
    """Return the first layout that is about as fast as any."""
    tolerance = TOLERANCE if seconds[0][0].config.seeds > 1 else GAIN
    best = min(took for _, took in seconds)
    return next(layout for layout, took in seconds if took <= tolerance * best)


def _is_large(loop: TrainLoop) -> bool:
    """Whether it may pay to spread the batch rows of one network over several devices."""
    config = loop.config
    rows = config.batch_shape.inputs.shape[0]
    if not any(rows % n == 0 for n in range(2, jax.device_count() + 1)):
        return False
    parameters = sum(leaf.size for leaf in jax.tree.leaves(loop.shapes.params))
    flops = 6.0 * parameters * config.batch_shape.targets.size  # a product and its two gradients
    return flops > STEP_FLOPS and flops * config.train.steps > RUN_FLOPS


def _seconds_per_step(loop: TrainLoop, compiled: CompiledLoop) -> float:
    """Return the seconds of one step of all seeds, the best of a few calls."""
    networks, last = networks_of(loop.config), loop.config.train.steps
    started = time.perf_counter()
    states, _ = compiled(loop.blank, networks, 0, 1)
    jax.block_until_ready(states)
    best, step, steps, spent = time.perf_counter() - started, 1, 1, 0.0
    while spent < SECONDS and step + steps <= last:
        started = time.perf_counter()
        states, _ = compiled(states, networks, step, step + steps)
        jax.block_until_ready(states)
        took = time.perf_counter() - started
        best, spent, step = min(best, took / steps), spent + took, step + steps
        steps = min(2 * steps, loop.config.train.steps_per_call)
    return best


def _bytes_needed(compiled: CompiledLoop) -> int:
    """Return the bytes that the program needs; on a CPU its devices share one memory."""
    if not hasattr(compiled.executable, "memory_analysis"):  # JAX_DISABLE_JIT
        return 0
    memory, mesh = compiled.executable.memory_analysis(), compiled.config.mesh
    sizes = memory.temp_size_in_bytes, memory.output_size_in_bytes, memory.argument_size_in_bytes
    shared = mesh.devices // jax.process_count() if jax.default_backend() == "cpu" and mesh else 1
    return sum(sizes) * shared


def _bytes_of(shapes: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def _memories(loop: TrainLoop) -> int:
    """Return over how many memories the states are spread: a CPU's devices share one."""
    if loop.config.mesh is None or jax.default_backend() == "cpu":
        return 1
    return 1 if loop.config.seeds % loop.seeds_at_once else loop.config.mesh.seed


def _free_memory() -> int:
    """Return the free bytes on the device that JAX computes on."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return machine.memory().available


def _cache_file(config: ExperimentConfig) -> Path:
    """Return the file that caches the choice for such an experiment on such a machine."""
    device, train = jax.devices()[0], config.train
    deciding = (config.task, config.model, train.optimizer, train.flatten, config.seeds)
    wanted = (config.vmap_size, config.mesh)
    parts = [
        config_json.to_json((*deciding, *wanted)),
        jax.__version__,
        device.device_kind,
        jax.device_count(),
        machine.cpu(),
    ]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return Path(platformdirs.user_cache_dir("jaxrnn")) / "layouts" / f"{digest}.json"


def _describe(config: ExperimentConfig) -> str:
    mesh = config.mesh or MeshShape()
    if config.seeds == 1:
        return f"batch rows on {mesh.data} devices" if mesh.data > 1 else "one device"
    where = f" on {mesh.devices} devices" if mesh.devices > 1 else ""
    count = f"{config.seeds} {'networks' if isinstance(config, JointConfig) else 'seeds'}"
    if config.vmap_size == config.seeds:
        return f"all {count} in one vmap{where}"
    if config.vmap_size == 1:
        return f"{count}, one at a time{where}"
    return f"{count} in groups of {config.vmap_size}{where}"


def _in_gigabytes(size: float) -> str:
    return f"{size / 1e9:.3g} GB"
