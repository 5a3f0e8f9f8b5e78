"""Arguments checked where they come in: a mistake is named in the axis letters of `types`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.core import Tracer

from jaxrnn.errors import SettingError


def check_axes(name: str, array: Any, axes: str, **sizes: int) -> dict[str, int]:
    """Refuse an array that has not these axes.

    Args:
      name: what the caller calls the array.
      array: anything with a shape.
      axes: the wanted axes, a letter each, such as "BTF".
      sizes: by letter, the sizes that are known.

    Returns:
      the known sizes and, of the other axes, the array's.

    Raises:
      ValueError: if the number of axes, or the size of a known one, is another.

    >>> check_axes("inputs", np.zeros((2, 7, 3)), "BTF", F=3)
    {'F': 3, 'B': 2, 'T': 7}
    >>> check_axes("lengths", np.zeros(5), "B", B=2)
    Traceback (most recent call last):
    ValueError: lengths must be [B] with B = 2, but its shape is (5,), so B = 5
    """
    shape = jnp.shape(array)
    wanted, given = f"{name} must be [{', '.join(axes)}]", f"but its shape is {shape}"
    if len(shape) != len(axes):
        raise ValueError(f"{wanted}, {given}")
    for axis, size in zip(axes, shape, strict=True):
        if sizes.setdefault(axis, size) != size:
            raise ValueError(f"{wanted} with {axis} = {sizes[axis]}, {given}, so {axis} = {size}")
    return sizes


def check_kind(name: str, array: Any, kind: Any, hint: str = "") -> None:
    """Refuse an array whose numbers are of another kind.

    Args:
      name: what the caller calls the array.
      array: anything with a dtype.
      kind: a NumPy or JAX type or kind of types, such as `jnp.floating`.
      hint: how to mend it.

    Raises:
      TypeError: if the array's dtype is not of that kind.
    """
    dtype = jnp.result_type(array)
    if not jnp.issubdtype(dtype, kind):
        raise TypeError(f"{name} must be {kind.__name__}, not {dtype}{hint and '; ' + hint}")


def check_lengths(lengths: Any, batch: int, steps: int) -> jax.Array:
    """Refuse lengths that are not [B] integers from 0 to T.

    Inside `jit` traced numbers are not known yet, so of them only shape and type are looked at.

    Returns:
      them as an array.

    Raises:
      TypeError: if they are not integers.
      ValueError: if the shape is another, or a length is out of range.
    """
    lengths = lengths if isinstance(lengths, jax.Array) else np.asarray(lengths)
    check_axes("lengths", lengths, "B", B=batch)
    check_kind("lengths", lengths, jnp.integer)
    if isinstance(lengths, Tracer):
        return lengths
    values = np.asarray(lengths)
    wrong = np.flatnonzero((values < 0) | (values > steps))
    if wrong.size:
        b = wrong[0]
        raise ValueError(f"lengths must be from 0 to T = {steps}, but lengths[{b}] is {values[b]}")
    return jnp.asarray(lengths)


def check_counts(settings: Any, *names: str) -> None:
    """Refuse settings that are not whole numbers from 1 to 2**31 - 1, with a SettingError."""
    for name in names:
        value, words = getattr(settings, name), name.replace("_", " ")
        if not isinstance(value, int) or isinstance(value, bool):
            raise SettingError(f"{words} must be a whole number, not {value!r}")
        if value < 1:
            raise SettingError(f"{words} must be at least 1")
        if value >= 2**31:
            raise SettingError(f"{words} must be less than 2**31")


def check_rate(name: str, rate: float) -> None:
    """Refuse a dropout rate that is not from 0 to less than 1, with a ValueError."""
    if not isinstance(rate, int | float) or not 0.0 <= rate < 1.0:
        raise ValueError(f"{name} must be from 0 to less than 1, not {rate!r}")


def drops(module: nn.Module, rate: float, deterministic: bool) -> bool:
    """Whether a bound module must draw dropout masks; if so, that it can.

    Raises:
      TypeError: if `deterministic` is traced.
      ValueError: if there is no key to draw them from.
    """
    if not rate:
        return False
    if isinstance(deterministic, Tracer):
        inside = "nn.remat(lambda layer, x: layer(x, deterministic=False))(layer, x)"
        raise TypeError(
            "deterministic must be True or False, but is a traced array, as jit and nn.remat make"
            f" every argument; set it inside: {inside}"
        )
    if not deterministic and not module.has_rng("dropout"):
        raise ValueError('deterministic=False needs a key: apply(..., rngs={"dropout": key})')
    return not deterministic


def check_carry(carry: Any, fresh: Any) -> None:
    """Refuse an initial carry that is not of the tree, shapes and types of a cell's fresh carry.

    Raises:
      TypeError: if a part is of another type.
      ValueError: if it is another cell's carry, or of another batch or hidden size.
    """
    if jax.tree.structure(carry) != jax.tree.structure(fresh):
        wanted, given = describe(fresh), describe(carry)
        raise ValueError(
            f"initial_carry must be {wanted}, as the layer's cell makes it, not {given}"
        )
    for (path, part), like in zip(
        jax.tree.leaves_with_path(carry), jax.tree.leaves(fresh), strict=True
    ):
        name = "initial_carry" + jax.tree_util.keystr(path)
        if like.ndim == 2:
            check_axes(name, part, "BH", B=like.shape[0], H=like.shape[1])
        elif jnp.shape(part) != like.shape:
            raise ValueError(f"{name} must be of shape {like.shape}, not {jnp.shape(part)}")
        dtype = jnp.result_type(part)
        if dtype != like.dtype:
            raise TypeError(f"{name} must be {like.dtype}, as the cell's carry is, not {dtype}")


def describe(carry: Any) -> str:
    """What kind of carry this is, in a few words."""
    if hasattr(carry, "_fields"):
        parts = (
            name if part is not None else f"{name}=None" for name, part in carry._asdict().items()
        )
        return f"{type(carry).__name__}({', '.join(parts)})"
    if hasattr(carry, "shape"):
        return f"one array of shape {carry.shape}"
    if isinstance(carry, tuple | list):
        return f"a {type(carry).__name__} of {len(carry)}"
    return repr(carry)
