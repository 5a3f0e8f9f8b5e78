"""Spreading a run over devices: groups of seeds over one axis of a mesh, batch rows over another.

`shard_map` gives each part of the axis `seed` its own seeds: the same program as on one device,
with no communication. The axis `data` is left to XLA: `shard_rows` says that the rows of a batch
are spread over it, and XLA adds up the gradients of the devices in each step. A device still
samples the whole batch and draws the dropout masks of all rows, so neither depends on the layout.
"""

import contextlib
import functools
import os
import re
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrnn import cgroups
from jaxrnn.checks import check_counts
from jaxrnn.errors import SettingError
from jaxrnn.training import processes

SEED, DATA = "seed", "data"


@dataclass(frozen=True)
class MeshShape:
    """How many devices a run uses along each axis of its mesh: `seed * data` in all.

    Attributes:
      seed: over how many the seeds are spread, in groups of `vmap_size`.
      data: over how many the rows of each batch are spread; it must divide B. The sums of
        the gradients are rounded differently for each number.

    Raises:
      SettingError: if a size is not a whole number from 1.

    >>> MeshShape.parse("seed=2,data=4").devices
    8
    >>> str(MeshShape(data=2))
    'data=2'
    """

    seed: int = 1
    data: int = 1

    def __post_init__(self) -> None:
        """Check the sizes."""
        check_counts(self, SEED, DATA)

    @classmethod
    def parse(cls, text: str) -> "MeshShape | None":
        """Return the mesh that a command line names, such as "data=2"; None for "auto".

        Raises:
          SettingError: if it names none.
        """
        if text == "auto":
            return None
        sizes = dict(re.findall(r"(\w+)=(\d+)(?:,|$)", text))
        if (
            not text
            or ",".join(f"{axis}={size}" for axis, size in sizes.items()) != text
            or not (sizes.keys() <= {SEED, DATA})
        ):
            raise SettingError(
                f"mesh must be auto, or like data=2, seed=4 or seed=2,data=2, not {text!r}"
            )
        return cls(**{axis: int(size) for axis, size in sizes.items()})

    @property
    def devices(self) -> int:
        """How many devices it has."""
        return self.seed * self.data

    def __str__(self) -> str:
        """Return what `parse` takes."""
        sizes = {SEED: self.seed, DATA: self.data}
        return ",".join(f"{axis}={n}" for axis, n in sizes.items() if n > 1) or "seed=1"

    def make(self) -> Mesh:
        """Return the mesh, of the first of JAX's devices.

        Raises:
          SettingError: if JAX has too few.
        """
        devices = jax.devices()
        if self.devices > len(devices):
            raise SettingError(
                f"the mesh {self} needs {self.devices} devices, but JAX has {len(devices)}"
                + (" (on a CPU: set JAX_NUM_CPU_DEVICES)" if devices[0].platform == "cpu" else "")
            )
        used = {device.process_index for device in devices[: self.devices]}
        if len(used) < jax.process_count():
            raise SettingError(
                f"the mesh {self} uses devices of only {len(used)} of {jax.process_count()}"
                f" processes, which have {len(devices)} devices together"
            )
        shape, names = (self.seed, self.data), (SEED, DATA)
        types = (AxisType.Auto, AxisType.Auto)
        return jax.make_mesh(shape, names, types, devices=devices[: self.devices])


def shard_rows(batch: Any) -> Any:
    """Spread the rows of a batch, each leaf [B, ...], over the axis `data` of the current mesh.

    Without such an axis it returns the batch unchanged.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or dict(zip(mesh.axis_names, mesh.axis_types, strict=True)).get(DATA) != (
        AxisType.Auto
    ):
        return batch
    rows = NamedSharding(mesh, P(DATA))
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, rows), batch)


def put_on_mesh(tree: Any, shardings: Any) -> Any:
    """Put arrays on the devices of a mesh, each with the sharding in the same place.

    Every process passes the same whole arrays, and keeps the parts of its own devices.
    """

    def put_leaf(leaf: Any, sharding: NamedSharding) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return leaf  # it is there already
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])

    return jax.tree.map(put_leaf, tree, shardings)


def to_host(tree: Any) -> Any:
    """Copy arrays into the memory of every process, also those that its own devices lack."""

    def is_elsewhere(leaf: Any) -> bool:
        if not isinstance(leaf, jax.Array):
            return False
        return not (leaf.is_fully_addressable or leaf.is_fully_replicated)

    leaves, structure = jax.tree.flatten(tree)
    elsewhere = {i: leaf for i, leaf in enumerate(leaves) if is_elsewhere(leaf)}
    with processes.watch():
        if elsewhere:
            mesh = next(iter(elsewhere.values())).sharding.mesh
            for i, leaf in _gather(mesh)(elsewhere).items():
                leaves[i] = leaf
        return jax.tree.unflatten(structure, jax.device_get(leaves))


@functools.cache  # a new function would be compiled again
def _gather(mesh: Mesh) -> Any:
    return jax.jit(lambda arrays: arrays, out_shardings=NamedSharding(mesh, P()))


def usable_cpus() -> int:
    """Return how many CPUs this process may keep busy."""
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    return max(min(count, int(cgroups.cpus() or count)), 1)


def use_all_cpus() -> None:
    """Make each CPU that this process may use one JAX device, if JAX has not started yet.

    `JAX_NUM_CPU_DEVICES` and `--xla_force_host_platform_device_count` in `XLA_FLAGS` win.
    """
    settings: Any = jax.config
    forced = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if settings.jax_num_cpu_devices < 1 and not forced:
        with contextlib.suppress(RuntimeError):  # JAX has started
            jax.config.update("jax_num_cpu_devices", usable_cpus())
