"""Checks of arguments. Their messages name the argument and use the axis letters of `types`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.core import Tracer

from jaxrnn.errors import SettingError
from jaxrnn.rng import MAX_SEED


def check_axes(name: str, array: Any, axes: str, **sizes: int) -> dict[str, int]:
    """Check the number of an array's axes, and the sizes of those that are known.

    Args:
      name: the argument's name, for the message.
      array: anything with a shape.
      axes: the expected axes, one letter each, such as "BTF".
      sizes: the known sizes, by letter.

    Returns:
      the sizes of all axes, by letter, including the known ones.

    Raises:
      ValueError: if the number of axes or a known size differs.

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
    """Check the kind of an array's dtype.

    Args:
      name: the argument's name, for the message.
      array: anything with a dtype.
      kind: a NumPy or JAX scalar type, concrete or abstract, such as `jnp.floating`.
      hint: how to fix it, for the message.

    Raises:
      TypeError: if the array's dtype is not of that kind.

    >>> check_kind("resets", np.zeros(5, np.int32), jnp.bool_)
    Traceback (most recent call last):
    TypeError: resets must be bool, not int32
    """
    dtype = jnp.result_type(array)
    if not jnp.issubdtype(dtype, kind):
        raise TypeError(f"{name} must be {kind.__name__}, not {dtype}{hint and '; ' + hint}")


def check_lengths(lengths: Any, batch: int, steps: int) -> jax.Array:
    """Check that lengths are [B] integers from 0 to T.

    Inside `jit` the values are not known yet, so only shape and type are checked.

    Args:
      lengths: [B] int, an array or a list.
      batch: B.
      steps: T.

    Returns:
      the lengths as an array.

    Raises:
      TypeError: if they are not integers.
      ValueError: if the shape is not [B], or a length is out of range.
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
    """Check that the named attributes of a config are integers from 1 to 2**31 - 1.

    Raises:
      SettingError: if one is not.
    """
    for name in names:
        value, words = getattr(settings, name), name.replace("_", " ")
        if not isinstance(value, int) or isinstance(value, bool):
            raise SettingError(f"{words} must be a whole number, not {value!r}")
        if value < 1:
            raise SettingError(f"{words} must be at least 1")
        if value >= 2**31:
            raise SettingError(f"{words} must be less than 2**31")


def check_seeds(settings: Any, *names: str) -> None:
    """Check that the named attributes of a config are None or whole numbers that seed a key.

    Raises:
      SettingError: if one is not.
    """
    for name in names:
        seed, words = getattr(settings, name), name.replace("_", " ")
        if seed is None:
            continue
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
            raise SettingError(f"{words} must be a whole number from 0 to {MAX_SEED}, not {seed!r}")


def check_rate(name: str, rate: float) -> None:
    """Check that a dropout rate is at least 0 and less than 1.

    An array, as of the networks of a sweep, was checked before it became one.

    Raises:
      ValueError: if it is not.
    """
    if isinstance(rate, jax.Array):
        return
    if not isinstance(rate, int | float) or not 0.0 <= rate < 1.0:
        raise ValueError(f"{name} must be from 0 to less than 1, not {rate!r}")


def drops(module: nn.Module, rate: float, deterministic: bool) -> bool:
    """Whether a bound module applies dropout in this call.

    Args:
      module: a module that is being called.
      rate: its dropout rate.
      deterministic: the argument of the call.

    Raises:
      TypeError: if `deterministic` is traced.
      ValueError: if dropout applies, but `apply` was given no key for it.
    """
    if not isinstance(rate, jax.Array) and not rate:
        return False
    if isinstance(deterministic, Tracer):
        inside = "nn.remat(lambda layer, x: layer(x, deterministic=False))(layer, x)"
        raise TypeError(
            "deterministic must be True or False, but is a traced array, because jit and nn.remat"
            f" trace every argument; set it inside: {inside}"
        )
    if not deterministic and not module.has_rng("dropout"):
        raise ValueError('deterministic=False needs a key: apply(..., rngs={"dropout": key})')
    return not deterministic


def check_carry(carry: Any, fresh: Any) -> None:
    """Check that an initial carry has the structure, shapes and types of a cell's fresh carry.

    Args:
      carry: the carry to check.
      fresh: the cell's own initial carry, [B, H] arrays in a pytree.

    Raises:
      TypeError: if an array's dtype differs.
      ValueError: if it belongs to another cell, or the batch or hidden size differs.
    """
    if jax.tree.structure(carry) != jax.tree.structure(fresh):
        wanted, given = describe_carry(fresh), describe_carry(carry)
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


def describe_carry(carry: Any) -> str:
    """A short description of a carry, for messages.

    >>> describe_carry((np.zeros((2, 4)), np.zeros((2, 4))))
    'a tuple of 2'
    """
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
