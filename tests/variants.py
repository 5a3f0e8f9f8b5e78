"""Every cell with every option that changes its equations, and what the equations say of it."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import reference
from flax import linen as nn

from jaxrnn.cells import CELLS, positive
from jaxrnn.layers.recurrent import Recurrent

B, T, F, H = 3, 7, 5, 4
LENGTHS = (T, 4, 0)  # [B]: a whole row, a part of one, and an empty one


class Variant(NamedTuple):
    """A cell with options, and how a layer runs it."""

    cell: str
    options: tuple[tuple[str, Any], ...] = ()
    implementation: Any = "auto"

    def make_cell(self, features=H, **more):
        """The cell, with more options if there are."""
        return CELLS[self.cell](features, **dict(self.options), **more)

    def make_layer(self, cell=None, **more):
        """A layer of the cell, or of one that `make_cell` made."""
        return Recurrent(cell or self.make_cell(), implementation=self.implementation, **more)

    def equations(self, params, xs, start, **masks):
        """The NumPy trace of one row: xs [T, F], start: the carry, [H] each."""
        if self.cell not in reference.REFERENCE:
            raise NotImplementedError(f"give tests/reference.py the equations of {self.cell!r}")
        options = {
            name: IN_NUMPY[value] if callable(value) else value for name, value in self.options
        }
        states = start._asdict() if hasattr(start, "_asdict") else {"h": start}
        return reference.REFERENCE[self.cell](params, xs, **states, **options, **masks)


IN_NUMPY = {nn.relu: reference.relu, positive: reference.positive, jnp.tanh: np.tanh}

VARIANTS = {name: Variant(name) for name in CELLS} | {
    "lstm-peepholes": Variant("lstm", (("peepholes", True),)),
    "lstm-layer_norm": Variant("lstm", (("layer_norm", True),)),
    "lstm-both": Variant("lstm", (("peepholes", True), ("layer_norm", True))),
    "lstm-projection": Variant("lstm", (("projection_size", 3),)),
    "lstm-clip": Variant("lstm", (("cell_clip", 0.4),)),
    "lstm-all": Variant(
        "lstm",
        (
            ("peepholes", True),
            ("layer_norm", True),
            ("projection_size", 3),
            ("coupled_gates", True),
            ("cell_clip", 0.4),
        ),
    ),
    "gru-reset_before": Variant("gru", (("reset_after", False),)),
    "rnn-relu": Variant("rnn", (("activation_fn", nn.relu),)),
    "minlstm-positive": Variant("minlstm", (("activation_fn", positive),)),
    "mingru-positive": Variant("mingru", (("activation_fn", positive),)),
    "indrnn-clip": Variant("indrnn", (("recurrent_clip", 0.4),)),
    "indrnn-tanh": Variant("indrnn", (("activation_fn", jnp.tanh),)),
    "urlstm-uniform": Variant("urlstm", (("refine_gate", False),)),
    "urlstm-refine": Variant("urlstm", (("uniform_gate_init", False),)),
    "lru-state": Variant("lru", (("state_size", 3),)),
    "rglru-heads": Variant("rglru", (("num_heads", 2),)),
    "slstm-heads": Variant("slstm", (("num_heads", 2),)),
    "slstm-exp": Variant("slstm", (("forget_gate", "exp"),)),
    "mlstm-heads": Variant("mlstm", (("num_heads", 2),)),
    "mlstm-exp": Variant("mlstm", (("forget_gate", "exp"),)),
    "deltanet-negative": Variant("deltanet", (("num_heads", 2), ("negative_eigenvalues", True))),
    "gateddeltanet-negative": Variant(
        "gateddeltanet", (("num_heads", 2), ("negative_eigenvalues", True))
    ),
    # Step by step unless told otherwise, on the CPU that runs these tests.
    "minlstm-at_once": Variant("minlstm", implementation="associative_scan"),
    "mingru-at_once": Variant("mingru", implementation="associative_scan"),
    "lru-at_once": Variant("lru", implementation="associative_scan"),
    "rglru-at_once": Variant("rglru", implementation="associative_scan"),
}


def randomised(tree, key):
    """Arrays of the same shapes and types with no two numbers alike, biases included.

    They are drawn in NumPy, where a shape more costs no compilation.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), leaf.dtype), tree)


def drawn(layer, key, features=F, dtype=jnp.float32):
    """Random variables, inputs [B, T, F] and an initial carry for a layer."""
    inputs = jax.ShapeDtypeStruct((B, T, features), dtype)
    (_, carry), variables = jax.eval_shape(layer.init_with_output, key, inputs)
    variables, inputs, carry = randomised((variables, inputs, carry), key)
    return variables, inputs, possible(carry)


def possible(carry):
    """The carry with a normalizer state n, if it has one, that a cell can reach: from 0.5 up."""

    def positive_n(path, leaf):
        is_n = jax.tree_util.keystr(path).endswith(".n")
        return abs(leaf) + np.array(0.5, leaf.dtype) if is_n else leaf

    return jax.tree.map_with_path(positive_n, carry)


@partial(jax.jit, static_argnums=0, static_argnames="deterministic")
def apply(layer, variables, inputs, start=None, **options):
    """A layer's outputs and carry; compiled once for equal layers, whichever test asks."""
    return layer.apply(variables, inputs, start, **options)


def gradients(layer, params, inputs, carry=None, lengths=None):
    """Outputs and last carry, and gradients of a scalar of them by parameters, inputs and carry.

    Every number of the outputs has a weight of its own, so none can stand in for another. It is
    compiled at each call, since a test may have put something in the place of a library.
    """

    def loss(params, inputs, carry):
        outputs, last = layer.apply(params, inputs, carry, lengths=lengths)
        parts = [outputs, *jax.tree.leaves(last)]
        weights = [jnp.cos(jnp.arange(x.size)).reshape(x.shape) for x in parts]
        total = sum(jnp.sum(jnp.sin(x) * w) for x, w in zip(parts, weights, strict=True))
        return total, parts

    by_all = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
    (_, parts), slopes = jax.jit(by_all)(params, inputs, carry)
    return parts, slopes


def loop(cell, variables, inputs, start, *, lengths=(T,) * B, reverse=False):
    """A cell by hand, one row and one step at a time: outputs [B, T, H] and the last carry."""
    size = getattr(cell, "projection_size", None) or cell.features
    outputs, lasts = np.zeros((*inputs.shape[:2], size)), []
    for b, length in enumerate(lengths):
        carry = jax.tree.map(lambda leaf, b=b: leaf[b : b + 1], start)
        for t in reversed(range(length)) if reverse else range(length):
            carry, output = cell.apply(variables, carry, inputs[b : b + 1, t])
            outputs[b, t] = output[0]
        lasts.append(carry)
    return outputs, jax.tree.map(lambda *rows: jnp.concatenate(rows), *lasts)


def expected(variant, params, inputs, start, *, lengths=(T,) * B, reverse=False, mask=None):
    """What the equations say: every gate and state by name, [B, T, H], zero past the lengths."""
    params, inputs, start = jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64), (params, inputs, start)
    )
    order = slice(None, None, -1 if reverse else 1)
    rows = []
    for b, length in enumerate(lengths):
        # An empty row is run for one step, so that its gates have names; that step is cut, too.
        xs = inputs[b, : max(length, 1)][order]
        first = jax.tree.map(lambda leaf, b=b: leaf[b], start)
        masks = {} if mask is None else {"mask": mask[b]}
        trace = variant.equations(params, xs, first, **masks)
        rows.append({name: values[:length][order] for name, values in trace.items()})
    return {name: np.stack([padded(row[name]) for row in rows]) for name in rows[0]}


def padded(values):
    """Values of some steps, with zeros for the others: [T, ...]."""
    return np.pad(values, [(0, T - len(values)), *[(0, 0)] * (values.ndim - 1)])


def assert_close(actual, wanted, tolerance=1e-5):
    """Trees of arrays the same, each within a share of the greatest number in it."""
    actual, wanted = jax.tree.map(np.asarray, (actual, wanted))
    assert jax.tree.structure(actual) == jax.tree.structure(wanted)
    for a, w in zip(jax.tree.leaves(actual), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, w, rtol=0, atol=tolerance * np.abs(w).max())
