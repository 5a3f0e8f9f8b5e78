"""A task's training batches are functions of the key alone, made by one compiled program."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxrnn.tasks.base import Task
from jaxrnn.training.mesh import DATA
from jaxrnn.types import Batch

STEP = jnp.int32(1)


def check_batches(task: Task, *, eagerly: bool = False) -> Batch:
    """Fail if a key's batch has other bits elsewhere, or a new batch compiles a new program.

    Elsewhere is under vmap, with the rows spread over devices, where a test has several.

    Args:
      task: whose rows have random lengths, or all the same.
      eagerly: compare with a batch that is made outside of a program, too, which is slow.

    Returns:
      The batches of three keys, [3, B, ...].
    """
    arrays = jax.tree.map(jnp.asarray, task.arrays())
    keys = jax.random.split(jax.random.key(2), 3)
    compiled: Any = jax.jit(task.sample_batch)
    batches = [jax.device_get(compiled(key, STEP, arrays)) for key in keys]
    compiled(keys[0], STEP + 1, arrays)
    assert compiled._cache_size() == 1
    for one, other in itertools.combinations(batches, 2):
        assert (one.inputs != other.inputs).any()
    rows = len(batches[0].inputs)
    mesh = jax.make_mesh((rows if rows <= jax.device_count() else 1,), (DATA,), (AxisType.Auto,))
    vmapped = jax.vmap(task.sample_batch, (0, None, None))
    spread: Any = jax.jit(vmapped, out_shardings=NamedSharding(mesh, PartitionSpec(None, DATA)))
    together = spread(keys, STEP, arrays)
    assert len(together.inputs.addressable_shards) == mesh.size
    together = jax.device_get(together)
    for n, batch in enumerate(batches):
        equal(jax.tree.map(lambda part, n=n: part[n], together), batch)
        if eagerly:
            equal(task.sample_batch(keys[n], STEP, arrays), batch)
    if together.lengths is not None:
        assert len(np.unique(together.lengths)) > 1
    return together


def equal(one: Batch, other: Batch) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)
