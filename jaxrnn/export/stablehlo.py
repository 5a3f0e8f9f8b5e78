"""A network as a StableHLO program that JAX can call without this library."""

from collections.abc import Sequence
from typing import Any

import jax
from flax import linen as nn
from jax import export

from jaxrnn.export.interface import Array, describe, step_by_step
from jaxrnn.models import EncoderDecoder
from jaxrnn.types import Params

PLATFORMS = ("cpu", "cuda")


def stablehlo(
    model: nn.Module, params: Params, inputs: Any, platforms: Sequence[str] = PLATFORMS
) -> export.Exported:
    """Return a network as an exported function, for any sizes B and T.

        exported.call(ids or features, lengths, carry) -> logits, carry

    The carry is a dictionary of arrays, with the names of `describe`; the parameters are part of
    the program. Layers run step by step with the plain scan, which needs only operations that
    StableHLO guarantees.

    Args:
      model: any model that is called as `SequenceModel` is.
      params: its parameters.
      inputs: as for `describe`.
      platforms: which platforms to compile for later.

    Raises:
      SettingError, ValueError: as `describe`.

    >>> import numpy as np
    >>> from jaxrnn import GRUCell, LanguageModel, Recurrent
    >>> model, ids = LanguageModel(Recurrent(GRUCell(8)), 5), np.zeros((1, 1), np.int32)
    >>> params = model.init(jax.random.key(0), ids)["params"]
    >>> content = stablehlo(model, params, ids).serialize()
    >>> carry = {"h": np.zeros((2, 8), np.float32)}
    >>> ids, lengths = np.array([[1, 2, 0], [3, 0, 0]], np.int32), np.array([3, 1], np.int32)
    >>> logits, carry = export.deserialize(content).call(ids, lengths, carry)
    >>> logits.shape, sorted(carry)
    ((2, 3, 5), ['h'])
    """
    interface, plain = describe(model, params, inputs), step_by_step(model)
    names = [array.name for array in interface.carry]
    two_parts = isinstance(model, EncoderDecoder)
    _, carry = jax.eval_shape(plain.apply, {"params": params}, inputs)
    structure = jax.tree.structure(carry)

    def call(inputs: jax.Array, lengths: jax.Array, carry: dict[str, jax.Array]) -> Any:
        first = None if two_parts else jax.tree.unflatten(structure, [carry[n] for n in names])
        logits, last = plain.apply({"params": params}, inputs, first, lengths=lengths)
        return logits, dict(zip(names, jax.tree.leaves(last), strict=True))

    scope = export.SymbolicScope([f"T >= {model.source_length + 1}"] if two_parts else ())

    def shape(array: Array) -> jax.ShapeDtypeStruct:
        axes = export.symbolic_shape(", ".join(map(str, array.axes)) + ",", scope=scope)
        return jax.ShapeDtypeStruct(axes, array.dtype)

    states = {array.name: shape(array) for array in interface.carry}
    function = export.export(jax.jit(call), platforms=platforms)
    return function(shape(interface.inputs), shape(interface.lengths), states)
