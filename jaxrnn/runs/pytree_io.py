"""Write a pytree of arrays to disk with Orbax and read it back, bit for bit.

Orbax gets nested dictionaries: fields of a NamedTuple by name, items of a tuple by number. So
`orbax.checkpoint.StandardCheckpointer().restore(folder)` gives a tree that can be read without
jaxrnn. Orbax's log messages are hidden, because every error it logs is also raised.
"""

import functools
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxrnn.errors import RunError


def write(folder: Path, tree: Any) -> None:
    """Write the arrays of a pytree into a new directory.

    Args:
      folder: must not exist yet. After an error, Orbax's threads may still write to it.
      tree: a pytree of JAX or NumPy arrays; JAX arrays may be sharded over devices.

    Raises:
      TypeError: if a leaf is not an array, or an array of PRNG keys.
      OSError, ValueError: if it cannot be written; see `os_error_text`.
    """
    # Orbax refuses arrays without elements; they need no file.
    arrays = {name: array for name, array in _by_name(tree).items() if array.size}
    orbax = _orbax()
    hook = sys.unraisablehook
    sys.unraisablehook = functools.partial(_ignore_late_writes, hook)
    with _checkpointer(orbax) as checkpointer:
        tree = unflatten_dict(arrays)
        checkpointer.save(folder.absolute(), args=orbax.args.PyTreeSave(tree))
    sys.unraisablehook = hook  # it stays only after an error, when other writes may still end


def read(folder: Path, like: Any, partial: bool = False) -> Any:
    """Read a pytree of arrays.

    Args:
      folder: a directory that `write` wrote.
      like: a pytree of arrays or `jax.ShapeDtypeStruct` with the saved structure.
      partial: whether the directory may hold arrays that are not in `like`.

    Returns:
      the pytree, of NumPy arrays. Where a leaf of `like` has a sharding or is committed to devices,
      it is a JAX array on those devices.

    Raises:
      RunError: if the saved arrays' names, shapes or dtypes differ from those of `like`.
    """
    wanted = _by_name(like)
    orbax = _orbax()
    with _checkpointer(orbax) as checkpointer:
        saved = flatten_dict(checkpointer.metadata(folder.absolute()).item_metadata.tree)
        names = wanted if partial else {**wanted, **saved}
        _check_fit(folder, {name: saved.get(name) for name in names}, wanted)
        targets = {name: _target(orbax, wanted.get(name)) for name in saved}
        arguments = orbax.args.PyTreeRestore(restore_args=unflatten_dict(targets))
        arrays = flatten_dict(checkpointer.restore(folder.absolute(), args=arguments))
    return jax.tree.unflatten(
        jax.tree.structure(like),
        [arrays.get(name, np.zeros(leaf.shape, leaf.dtype)) for name, leaf in wanted.items()],
    )


def os_error_text(error: BaseException) -> str | None:
    """Extract the operating system's message, such as "No space left on device".

    TensorStore, which Orbax writes with, raises ValueError with the error number in its text.

    Returns:
      the message; None if the operating system did not cause the error.

    >>> os_error_text(FileNotFoundError(2, "No such file or directory"))
    'No such file or directory'
    >>> os_error_text(ValueError("RESOURCE_EXHAUSTED: Failed to write [os_error_code='28']"))
    'No space left on device'
    >>> os_error_text(ValueError("no array")), os_error_text(KeyboardInterrupt())
    (None, None)
    """
    if isinstance(error, OSError):
        number = error.errno
    else:
        found = re.search(r"os_error_code='([0-9]+)'", str(error))
        number = found and int(found[1])
    return os.strerror(number) if number else None


def _checkpointer(orbax: Any) -> Any:
    """Return a checkpointer of this process, which does not wait for others to do the same."""
    if jax.process_count() == 1:
        return orbax.Checkpointer(orbax.PyTreeCheckpointHandler())
    own = jax.process_index()
    alone = orbax.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}"
    )
    handler = orbax.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return orbax.Checkpointer(handler, multiprocessing_options=alone)


def _by_name(tree: Any) -> dict[tuple[str, ...], Any]:
    """Flatten a pytree to a dictionary from path to array, in the pytree's order."""
    arrays = {}
    for path, leaf in jax.tree.leaves_with_path(tree):
        # Orbax joins names by dots, and the parts of a file name by slashes.
        name = tuple(quote(jax.tree_util.keystr((key,), simple=True), safe=" ") for key in path)
        name = tuple(part.replace(".", "%2E") for part in name) or ("state",)
        leaf = np.asarray(leaf) if isinstance(leaf, np.generic) else leaf
        if not hasattr(leaf, "shape") or not isinstance(leaf.dtype, np.dtype):
            raise TypeError(f"{'.'.join(name)} must be an array of numbers, not {leaf!r}")
        arrays[name] = leaf
    return arrays


def _check_fit(
    folder: Path, saved: dict[tuple[str, ...], Any], wanted: dict[tuple[str, ...], Any]
) -> None:
    """Raise unless names, shapes and dtypes agree; arrays without elements are never saved."""
    for name, array in saved.items():
        if array is None and wanted[name].size == 0:
            continue
        there, here = _kind(array), _kind(wanted.get(name))
        if there != here:
            raise RunError(
                f"{folder} belongs to another model, optimizer or batch: {'.'.join(name)} is"
                f" {there} in the checkpoint and {here} in this run"
            )


def _kind(array: Any) -> str:
    return "missing" if array is None else f"{np.dtype(array.dtype)}{list(array.shape)}"


def _target(orbax: Any, like: Any) -> Any:
    """Choose how Orbax restores an array: as NumPy unless `like` names devices.

    A jitted function takes a NumPy array without compiling again. An array committed to a device
    would make it compile a second time.
    """
    sharding = getattr(like, "sharding", None)
    if sharding is None or not getattr(like, "committed", True):
        return orbax.RestoreArgs(restore_type=np.ndarray)
    return orbax.ArrayRestoreArgs(sharding=sharding, dtype=like.dtype, global_shape=like.shape)


def _ignore_late_writes(hook: Any, unraisable: Any) -> None:
    """Do not report a write that ends after the event loop of a failed save was closed."""
    if str(unraisable.exc_value) != "Event loop is closed":
        hook(unraisable)


@functools.cache
def _orbax() -> Any:
    """Import Orbax and hide its log messages: its threads log each error that is also raised.

    The filters stay installed, because unretrieved exceptions are logged when they are garbage
    collected, long after a failed write.
    """
    import orbax.checkpoint

    logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
    logging.getLogger("asyncio").addFilter(lambda record: "orbax" not in record.getMessage())
    return orbax.checkpoint
