"""Inputs whose rows are sharded over `Explicit` axes of a mesh.

There JAX wants the sharding of every intermediate array, and of each product that sums over a
sharded axis, as the gradients of weights do. The layers leave that to XLA: inside them the axes are
`Auto`, and outside the outputs and the carry are sharded as the rows of the inputs are.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P


def rows(inputs: Any) -> Any:
    """Return the `Explicit` mesh axes over which inputs [B, T, ...] are sharded; None if not.

    Raises:
      ValueError: if another axis than B is sharded.
    """
    sharding = getattr(jax.typeof(inputs), "sharding", None) if hasattr(inputs, "shape") else None
    if sharding is None or AxisType.Explicit not in sharding.mesh.axis_types:
        return None
    first, *others = sharding.spec
    if any(axis is not None for axis in others):
        raise ValueError(f"inputs may be sharded over B only, not over {sharding.spec}")
    return first


def call(function: Callable[..., Any], axes: Any, *arguments: Any) -> Any:
    """Call a function of arrays with `Auto` axes; shard what it returns, [B, ...], over `axes`."""
    return jax.sharding.auto_axes(function, out_sharding=P(axes))(*arguments)


def accepts_explicit_rows(layer: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of (params, inputs, carry, lengths=, resets=, reverse=) take such inputs."""

    @wraps(layer)
    def wrapped(params: Any, inputs: Any, carry: Any = None, **options: Any) -> Any:
        if (axes := rows(inputs)) is None:
            return layer(params, inputs, carry, **options)
        reverse = options.pop("reverse", False)

        def run(params: Any, inputs: Any, carry: Any, options: Any) -> Any:
            return layer(params, inputs, carry, reverse=reverse, **options)

        return call(run, axes, params, inputs, carry, options)

    return wrapped
