"""A tree of arrays on disk and back, bit for bit: Orbax, in few words.

Orbax writes and reads. Here it gets one flat dictionary, as it would join the names of a nested
one ambiguously, and is kept off the screen.
"""

import functools
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrnn.errors import RunError


def write(folder: Path, tree: Any) -> None:
    """Write the arrays of a tree into a new directory.

    Args:
      folder: must not be there yet. After an error, some of Orbax's threads may still write to it.
      tree: of JAX or NumPy arrays; JAX's may be spread over devices.

    Raises:
      TypeError: if a part of it is no array, or an array of PRNG keys.
      OSError, ValueError: if it cannot be written; see `trouble`.
    """
    orbax = _orbax()
    # Arrays without elements, which Orbax refuses, need no file.
    arrays = {name: array for name, array in _by_name(tree).items() if array.size}
    with orbax.Checkpointer(orbax.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(folder.absolute(), args=orbax.args.PyTreeSave(arrays))


def read(folder: Path, like: Any, some: bool = False) -> Any:
    """Read a tree of arrays.

    Args:
      folder: what `write` wrote.
      like: the tree that was written, of arrays or `jax.ShapeDtypeStruct`.
      some: whether more may have been written than is in `like`.

    Returns:
      the tree. The arrays are NumPy's, but where `like` says on which devices an array is to lie
      (by its sharding, or because it is committed to them) it is JAX's and lies there.

    Raises:
      RunError: if there are arrays of other names, shapes or types than in `like`.
    """
    orbax = _orbax()
    wanted = _by_name(like)
    with orbax.Checkpointer(orbax.PyTreeCheckpointHandler()) as checkpointer:
        saved = checkpointer.metadata(folder.absolute()).item_metadata.tree
        names = wanted if some else {**wanted, **saved}
        _check_fit(folder, {name: saved.get(name) for name in names}, wanted)
        targets = {name: _target(orbax, wanted.get(name)) for name in saved}
        arguments = orbax.args.PyTreeRestore(restore_args=targets)
        arrays = checkpointer.restore(folder.absolute(), args=arguments)
    return jax.tree.unflatten(
        jax.tree.structure(like),
        [arrays.get(name, np.zeros(leaf.shape, leaf.dtype)) for name, leaf in wanted.items()],
    )


def trouble(error: BaseException) -> str | None:
    """What the system said was wrong, such as "No space left on device".

    TensorStore, on which Orbax stands, raises ValueError, with the system's number in its text.

    Returns:
      None if the error is no trouble of the system's.

    >>> trouble(FileNotFoundError(2, "No such file or directory"))
    'No such file or directory'
    >>> trouble(ValueError("RESOURCE_EXHAUSTED: Failed to write [os_error_code='28']"))
    'No space left on device'
    >>> trouble(ValueError("no array")), trouble(KeyboardInterrupt())
    (None, None)
    """
    if isinstance(error, OSError):
        number = error.errno
    else:
        found = re.search(r"os_error_code='([0-9]+)'", str(error))
        number = found and int(found[1])
    return os.strerror(number) if number else None


def _by_name(tree: Any) -> dict[str, Any]:
    """The arrays of a tree, by name, in the tree's order."""
    arrays = {}
    for path, leaf in jax.tree.leaves_with_path(tree):
        name = "state" + jax.tree_util.keystr(path)
        leaf = np.asarray(leaf) if isinstance(leaf, np.generic) else leaf
        if not hasattr(leaf, "shape") or not isinstance(leaf.dtype, np.dtype):
            raise TypeError(f"{name} must be an array of numbers, not {leaf!r}")
        arrays[name] = leaf
    return arrays


def _check_fit(folder: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse arrays that are not the wanted ones; those without elements were not saved."""
    for name, array in saved.items():
        if array is None and wanted[name].size == 0:
            continue
        there, here = _kind(array), _kind(wanted.get(name))
        if there != here:
            raise RunError(
                f"{folder} is of another model, optimizer or batch: {name} is {there} there,"
                f" and {here} here"
            )


def _kind(array: Any) -> str:
    return "missing" if array is None else f"{np.dtype(array.dtype)}{list(array.shape)}"


def _target(orbax: Any, like: Any) -> Any:
    """What Orbax is to make of an array.

    Where `like` leaves it open, NumPy's: a jitted function takes that for what it was compiled
    for, but compiles anew for an array that is tied to a device.
    """
    sharding = getattr(like, "sharding", None)
    if sharding is None or not getattr(like, "committed", True):
        return orbax.RestoreArgs(restore_type=np.ndarray)
    return orbax.ArrayRestoreArgs(sharding=sharding, dtype=like.dtype, global_shape=like.shape)


@functools.cache
def _orbax() -> Any:
    """Orbax, kept off the screen: what it raises, its threads log as well, each for itself."""
    import orbax.checkpoint

    # After the first error its event loops close, and later ones find nobody to tell.
    before, closed = sys.unraisablehook, "Event loop is closed"
    sys.unraisablehook = lambda lost: str(lost.exc_value) == closed or before(lost)
    logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
    logging.getLogger("asyncio").addFilter(lambda record: "orbax" not in record.getMessage())
    return orbax.checkpoint
