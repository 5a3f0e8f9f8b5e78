"""The newer cells as their authors, or others, publish them: values and gradients from files.

tests/goldens/README.md says which implementations these are and how the files were made. Weights
have the implementation's names; the functions below bring them into ours, and gradients are taken
through them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads
from test_oracles import Arrays, assert_close, read, under
from variants import VARIANTS, drawn

from jaxrnn.cells import CELLS, IndRNNCell, LinearCell, LSTMCarry, URLSTMCell
from jaxrnn.layers.recurrent import Recurrent

H = 6
Ours = tuple[nn.RNNCellBase, Any, Any]
"""A cell, its parameters, and the carry before the first step."""


@pytest.fixture
def float64():
    """JAX has 64 bits inside the test, and not after it."""
    with jax.enable_x64(True):
        yield


def indrnn(case: str, w: Arrays) -> Ours:
    cell = IndRNNCell(H, recurrent_clip=0.7 if case == "clipped" else None)
    dense = {"kernel": w["weight_ih"].T, "bias": w["bias_ih"]}
    return cell, {"i": dense, "u": w["weight_hh"]}, w["h_0"]


def urlstm(case: str, w: Arrays) -> Ours:
    """Their two biases of each gate and the shared one are more than ours: two gates have one."""
    del case
    b_f, b_r, b_g, b_o = jnp.split(w["igates.bias"] + w["hgates.bias"], 4)
    bias = b_f + w["forget_bias"]
    biases = {"f": None, "r": b_r - w["forget_bias"] + bias, "g": b_g, "o": b_o}
    params: dict[str, Any] = {"forget_bias": bias}
    for side in "ih":
        kernels = jnp.split(w[f"{side}gates.weight"], 4)
        params |= {side + g: {"kernel": k.T} for g, k in zip("frgo", kernels, strict=True)}
    for gate in "rgo":
        params["h" + gate]["bias"] = biases[gate]
    return URLSTMCell(H), params, LSTMCarry(w["c_0"], w["h_0"])


CONVERT: dict[str, Callable[[str, Arrays], Ours]] = {"indrnn": indrnn, "urlstm": urlstm}
PUBLISHED = {
    f"{name}.{case}": arrays
    for name in CONVERT
    for case, arrays in read(f"cells_{name}.npz").items()
}
CASES = [
    (name, implementation)
    for name in PUBLISHED
    for implementation in ("scan", "associative_scan")
    if implementation == "scan" or isinstance(CELLS[name.split(".")[0]](H), LinearCell)
]


@pytest.mark.parametrize("name, implementation", CASES)
def test_a_cell_equals_a_public_implementation(name, implementation, float64):
    """Outputs, last states and the gradients by their weights, inputs and first states."""
    golden = PUBLISHED[name]
    gradients = under("grad/", golden)
    theirs = {key: golden[key] for key in gradients}
    dtype = golden["inputs"].dtype

    @jax.jit
    def run(theirs):
        cell, params, carry = CONVERT[name.split(".")[0]](name.split(".")[1], theirs)
        layer = Recurrent(cell.clone(param_dtype=dtype), implementation=implementation)
        results: Any = layer.apply({"params": {"cell": params}}, theirs["inputs"], carry)
        outputs, carry = results
        return outputs, carry._asdict() if hasattr(carry, "_asdict") else {"h": carry}

    outputs, back, states = jax.vjp(run, theirs, has_aux=True)
    last = {f"{key}_n": state for key, state in states.items() if f"{key}_n" in golden}
    assert_close({"outputs": outputs} | last, {key: golden[key] for key in ("outputs", *last)})
    assert_close(back(golden["cotangent"])[0], gradients)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "name",
    [name for name, variant in VARIANTS.items() if variant.cell in CONVERT],
)
def test_gradients_equal_finite_differences(name, float64, key):
    """In float64, by parameters, inputs and carry, over padded rows."""
    variant = VARIANTS[name]
    layer = variant.make_layer(variant.make_cell(param_dtype=jnp.float64))
    args = jax.tree.map(lambda leaf: leaf / 2, drawn(layer, key, dtype=jnp.float64))
    apply = jax.jit(partial(layer.apply, lengths=jnp.array([7, 4, 0])))
    check_grads(apply, args, order=1, modes=["fwd", "rev"], eps=1e-5, atol=1e-6, rtol=1e-6)


def test_the_uniform_gate_starts_uniform():
    """sigmoid(b) is spread evenly from 1/H to 1 - 1/H: Gu et al. (2020), section 3."""
    cell, units = URLSTMCell(2000), 2000
    carry = cell.initialize_carry(None, (1, 1))
    bias = cell.init(jax.random.key(0), carry, jnp.zeros((1, 1)))["params"]["forget_bias"]
    values = np.sort(1 / (1 + np.exp(-np.asarray(bias, np.float64))))
    assert 1 / units * 0.999 < values[0] and values[-1] < (1 - 1 / units) * 1.001
    # Kolmogorov and Smirnov: a true uniform is further off than this once in 10^6 draws.
    assert np.abs(values - (np.arange(units) + 0.5) / units).max() < 2.7 / np.sqrt(units)
