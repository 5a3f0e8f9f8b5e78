"""Networks to export, with random parameters, and inputs for them."""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from variants import randomised

from jaxrnn.cells import ElmanCell, GRUCell, LSTMCell
from jaxrnn.export import describe
from jaxrnn.export.interface import carry_names
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional, Stack
from jaxrnn.models import EncoderDecoder, LanguageModel, SequenceClassifier, SequenceModel

V, F, H = 7, 3, 5


class Network(NamedTuple):
    """A model, its parameters, and the shape of its inputs."""

    model: Any
    params: Any
    inputs: jax.ShapeDtypeStruct


class Case(NamedTuple):
    """The arguments of one call."""

    inputs: np.ndarray  # [B, T] int32 or [B, T, F] float32
    lengths: np.ndarray  # [B] int32
    carry: dict[str, np.ndarray]  # [B, H] float32, by the names of the interface

    def cut(self, rows, steps):
        """Some of the rows, and the first steps."""
        carry = {name: array[rows] for name, array in self.carry.items()}
        return Case(self.inputs[rows, :steps], self.lengths[rows], carry)


def both(forward, backward=None, merge: Literal["concat", "sum"] = "concat"):
    backward = forward.clone() if backward is None else backward
    return Bidirectional(Recurrent(forward), Recurrent(backward, reverse=True), merge=merge)


def language(recurrent, **options):
    return LanguageModel(recurrent, V, **options)


def sequence(recurrent):
    return SequenceModel(recurrent, V)


relu = partial(ElmanCell, activation_fn=nn.relu)

SHARED = {
    "lstm": lambda: language(Recurrent(LSTMCell(H))),
    "gru": lambda: language(Stack((Recurrent(GRUCell(H)),)), embedding_size=F),
    "rnn": lambda: sequence(Recurrent(ElmanCell(H))),
    "relu, backwards": lambda: sequence(Recurrent(relu(H), reverse=True)),
    "lstm, backwards": lambda: sequence(Recurrent(LSTMCell(H), reverse=True)),
    "gru, backwards": lambda: sequence(Recurrent(GRUCell(H), reverse=True)),
    "tied": lambda: language(
        Stack((Recurrent(LSTMCell(4)), Recurrent(GRUCell(F)))),
        embedding_size=F,
        tie_embeddings=True,
    ),
    "residual": lambda: sequence(
        Stack((Recurrent(LSTMCell(H)), Recurrent(GRUCell(H)), Recurrent(relu(H))), residual=True)
    ),
    "two cells and sizes": lambda: sequence(both(LSTMCell(H), GRUCell(4))),
    "both, two layers": lambda: sequence(Stack((both(LSTMCell(H)), both(GRUCell(H))))),
    "summed": lambda: sequence(Stack((both(ElmanCell(H), merge="sum"), Recurrent(LSTMCell(4))))),
    "stacks in a stack": lambda: language(
        Stack((Recurrent(GRUCell(4)), Stack((Recurrent(GRUCell(H)), Recurrent(LSTMCell(H))))))
    ),
    "Flax's own": lambda: sequence(
        Stack((Recurrent(nn.LSTMCell(H)), Recurrent(nn.GRUCell(4)), Recurrent(nn.SimpleCell(H))))
    ),
    "classifier, last": lambda: SequenceClassifier(both(LSTMCell(H), GRUCell(4)), V),
    "classifier, last, forwards": lambda: SequenceClassifier(Recurrent(GRUCell(H)), V),
    "classifier, last, backwards": lambda: SequenceClassifier(
        Recurrent(LSTMCell(H), reverse=True), V
    ),
    "classifier, mean": lambda: SequenceClassifier(Stack((both(GRUCell(H)),)), V, "mean"),
    "classifier, flatten": lambda: SequenceClassifier(both(GRUCell(H)), V, "flatten"),
}
"""Those that ONNX and PyTorch have."""

ONNX_ONLY = {
    "peepholes": lambda: language(Recurrent(LSTMCell(H, peepholes=True))),
    "coupled": lambda: sequence(both(LSTMCell(H, coupled_gates=True))),
    "coupled peepholes": lambda: sequence(
        Recurrent(LSTMCell(H, coupled_gates=True, peepholes=True), reverse=True)
    ),
    "reset before": lambda: sequence(both(GRUCell(H, reset_after=False))),
}
TORCH_ONLY = {
    "projection": lambda: sequence(
        Stack((both(LSTMCell(H, projection_size=2)), Recurrent(LSTMCell(H, projection_size=4))))
    ),
    "classifier of projections": lambda: SequenceClassifier(
        both(LSTMCell(H, projection_size=2)), V
    ),
}

FIXED_STEPS = 6  # of all cases, as a classifier that flattens needs
LENGTHS = (6, 0, 3, 1, 5)


def make(make_model, key):
    """A network with random parameters."""
    model = make_model()
    inputs = jax.ShapeDtypeStruct((1, FIXED_STEPS, F), np.float32)
    if isinstance(model, LanguageModel):
        inputs = jax.ShapeDtypeStruct((1, 1), np.int32)
    if isinstance(model, EncoderDecoder):
        inputs = jax.ShapeDtypeStruct((1, FIXED_STEPS), np.int32)
    shapes = jax.eval_shape(model.init, key, inputs)["params"]
    params = jax.tree.map(lambda leaf: 0.7 * np.asarray(leaf), randomised(shapes, key))
    return Network(model, params, inputs)


def draw(network, lengths, seed=0):
    """Random arguments of a call, with a carry that is not zero."""
    rng, rows = np.random.default_rng(seed), len(lengths)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    interface = describe(*network)
    inputs = normal(rows, FIXED_STEPS, F)
    if interface.inputs.name == "ids":
        inputs = rng.integers(0, V, (rows, FIXED_STEPS)).astype(np.int32)
    carry = {array.name: normal(rows, *array.axes[1:]) for array in interface.carry}
    return Case(inputs, np.array(lengths, np.int32), carry)


def ours(network, case):
    """The logits, and the last carry by name."""
    model, params, _ = network
    names = carry_names(model)
    shapes = jax.eval_shape(model.apply, {"params": params}, case.inputs)[1]
    first = None
    if names:
        leaves = [case.carry[name] for name in names]
        first = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
    apply = jax.jit(model.apply)
    logits, last = apply({"params": params}, case.inputs, first, lengths=case.lengths)
    return logits, dict(zip(names, jax.tree.leaves(last), strict=True))
