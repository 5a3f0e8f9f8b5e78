"""A cost model of a train step whose batch rows are spread over P devices, beside measurements.

    step(P) = max(span(B / P), P * work(B / P) / cores) + all_reduce(bytes of the gradients, P)

`span` is the wall time of a step with B / P rows on one device, `work` its processor time. Devices
that share the cores of a CPU take at least the work of all of them divided by the cores. On a GPU
or TPU, where nothing is shared, the first term is `span`.
"""

import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.loop import TrainLoop
from jaxrnn.training.mesh import MeshShape, usable_cpus
from suites.language import losses, random_config
from suites.timing import Row, interleave, rows

SIZES = ((2, 128, 64), (1, 512, 64), (1, 32, 64))
"""Layers, H and B; T is 50, the vocabulary 65."""

DEVICES = 1, 2, 4
PAPER_DEVICES = 8, 64, 1024

NETWORKS = {"10 Gbit/s Ethernet": (1.25e9, 30e-6), "400 Gbit/s InfiniBand": (50e9, 5e-6)}
"""Bytes per second and seconds per message of a link, for devices that are not here."""


def mesh(
    repeats: int, steps: int = 5, sizes: tuple[tuple[int, int, int], ...] = SIZES
) -> Iterator[list[Row] | str]:
    """Time train steps on 1, 2 and 4 devices, and predict them and steps on many devices."""
    devices = [n for n in DEVICES if n <= jax.device_count()]
    if devices[-1] < DEVICES[-1]:
        yield f"{jax.device_count()} devices; JAX_NUM_CPU_DEVICES=4 gives a CPU four"
    for layers, hidden, batch in sizes:
        case = f"language model, {layers}x{hidden}, B={batch}, T=50"
        calls: dict[str, Callable[[], Any]] = {}
        with random_config((layers, hidden, batch)) as (_, whole):
            size = gradient_bytes(whole)
        for n in devices:
            with random_config((layers, hidden, batch // n)) as (_, experiment):
                calls[f"{n} alone"] = _steps(experiment, steps)
                spread = replace(whole, mesh=MeshShape(data=n))
                calls[f"{n} together"] = _steps(spread, steps)
                calls[f"{n} sum"] = all_reduce(size, n)
        seconds = interleave(calls, repeats, burst=1 if hidden >= 512 else 3)
        for n in devices:
            span, together, summing = (
                seconds[f"{n} {part}"] for part in ("alone", "together", "sum")
            )
            work = processor_seconds(calls[f"{n} alone"])
            predicted = predict(
                float(np.median(span)) / steps, work / steps, float(np.median(summing)), n
            )
            where = f"on {n} devices" if n > 1 else "on one device"
            timed = {"measured": together / steps, "predicted": np.array([[predicted]])}
            yield rows("mesh", case, f"train step {where}", timed)
            if n > 1:
                measured = {f"{size / 1e6:.2f} MB on {n} devices": summing}
                yield rows("mesh", case, "all-reduce", measured)
        yield on_paper(float(np.median(seconds["1 alone"])) / steps, size)


def predict(span: float, work: float, all_reduce_s: float, devices: int) -> float:
    """Return the predicted seconds of a step on P devices.

    Args:
      span: seconds of a step with B / P rows on one device.
      work: its processor seconds, in all threads.
      all_reduce_s: seconds to add up the gradients.
      devices: P.
    """
    shared = devices * work / usable_cpus() if jax.default_backend() == "cpu" else 0.0
    return max(span, shared) + (all_reduce_s if devices > 1 else 0.0)


def ring_seconds(size: int, devices: int, bandwidth: float, latency: float) -> float:
    """Return the seconds of an all-reduce in a ring, after Thakur et al. (2005), section 4.4.

    Each device sends 2 (P-1)/P of the bytes. Latencies are those of a tree, 2 log2 P messages,
    which libraries use for small sizes.
    """
    transfer = 2 * (devices - 1) / devices * size / bandwidth
    return transfer + 2 * math.ceil(math.log2(devices)) * latency


def on_paper(span: float, size: int) -> str:
    """Return the predicted efficiency with the same rows on each of many devices."""
    parts = []
    for network, link in NETWORKS.items():
        shares = (span / (span + ring_seconds(size, n, *link)) for n in PAPER_DEVICES)
        parts.append(f"{network} {', '.join(f'{share:.0%}' for share in shares)}")
    counts = ", ".join(map(str, PAPER_DEVICES))
    return (
        f"on paper, the same rows on each of {counts} such machines, as a share of linear:"
        f" {'; '.join(parts)}"
    )


def gradient_bytes(experiment: ExperimentConfig) -> int:
    """Return the bytes of one network's gradients, which the devices add up."""
    leaves = jax.tree.leaves(TrainLoop(experiment).shapes.params)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def all_reduce(size: int, devices: int) -> Callable[[], Any]:
    """Compile an all-reduce of `size` bytes over the devices; return a call of it."""
    mesh = MeshShape(data=devices).make()
    sharding = jax.sharding.NamedSharding(mesh, P("data"))
    values = jax.device_put(jnp.ones((devices, size // 4)), sharding)
    add = jax.shard_map(
        functools.partial(jax.lax.psum, axis_name="data"),
        mesh=mesh,
        in_specs=P("data"),
        out_specs=P(),
    )
    compiled = jax.jit(add).lower(values).compile()
    return lambda: compiled(values)


def processor_seconds(call: Callable[[], Any], calls: int = 5) -> float:
    """Return the processor seconds of a call, in all threads: the median of a few."""
    spent = []
    for _ in range(calls):
        start = time.process_time()
        jax.block_until_ready(call())
        spent.append(time.process_time() - start)
    return float(np.median(spent))


def _steps(experiment: ExperimentConfig, steps: int) -> Callable[[], Any]:
    return cast(Any, losses(experiment, steps)).__next__
