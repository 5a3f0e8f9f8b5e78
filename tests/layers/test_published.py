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

from jaxrnn.cells import (
    CELLS,
    DeltaNetCarry,
    DeltaNetCell,
    GatedDeltaNetCell,
    IndRNNCell,
    LinearCell,
    LRUCarry,
    LRUCell,
    LSTMCarry,
    MLSTMCarry,
    MLSTMCell,
    RGLRUCell,
    SLSTMCarry,
    SLSTMCell,
    URLSTMCell,
)
from jaxrnn.interop import to_keras, to_onnx, to_torch
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


def lru(case: str, w: Arrays) -> Ours:
    """Their D is diagonal."""
    del case
    names = {"ib_re": "B_re", "ib_im": "B_im", "c_re": "C_re", "c_im": "C_im"}
    params: dict[str, Any] = {ours: {"kernel": w[theirs].T} for ours, theirs in names.items()}
    params |= {name: w[name] for name in ("nu_log", "theta_log", "gamma_log")}
    states = len(w["nu_log"])
    zeros = jnp.zeros((len(w["inputs"]), states))
    cell = LRUCell(H, state_size=states)
    return cell, params | {"id": {"kernel": jnp.diag(w["D"])}}, LRUCarry(zeros, zeros)


def rglru(case: str, w: Arrays) -> Ours:
    """Their parameter is -lambda: softplus of it is -log sigmoid(lambda)."""
    del case
    params: dict[str, Any] = {"lambda": -w["a_param"]}
    for ours, theirs in {"gate_r": "a_gate", "gate_z": "input_gate"}.items():
        params[ours] = {"kernel": w[f"{theirs}.w"], "bias": w[f"{theirs}.b"].reshape(-1)}
    return RGLRUCell(H, num_heads=2, project_inputs=False), params, w["h_0"]


def slstm(case: str, w: Arrays) -> Ours:
    """Their states are h, c, n, m."""
    h, c, n, m = w.get("states", jnp.zeros((4, len(w["inputs"]), H)))
    params: dict[str, Any] = {}
    sides = {"kernel": jnp.split(w["kernel"], 4, 1), "bias": jnp.split(w["bias"], 4)}
    recurrent = jnp.split(w["recurrent"], 4, 1)
    for gate, kernel, bias, block in zip("ifzo", *sides.values(), recurrent, strict=True):
        params["i" + gate] = {"kernel": kernel}
        params["h" + gate] = {"kernel": block.transpose(0, 2, 1), "bias": bias}
    return SLSTMCell(H, num_heads=2), params, SLSTMCarry(c, n, m, h)


def mlstm(case: str, w: Arrays) -> Ours:
    """Their q, k, v and o have no biases here."""
    del case
    zeros = jnp.zeros(H)
    params: Any = {"i" + name: {"kernel": w[f"w_{name}"], "bias": zeros} for name in "qkvo"}
    for name in "if":
        params["gate_" + name] = {"kernel": w[f"w_{name}"], "bias": w[f"b_{name}"]}
    return MLSTMCell(H, num_heads=2), params, MLSTMCarry(w["c_0"], w["n_0"], w["m_0"])


def deltanet(case: str, w: Arrays, make: type[DeltaNetCell] = DeltaNetCell) -> Ours:
    params: Any = {"i" + name: {"kernel": w[f"w_{name}"]} for name in "qkv"}
    params["gate_b"] = {"kernel": w["w_b"]}
    cell = make(H, num_heads=2, negative_eigenvalues=case == "negative")
    return cell, params, DeltaNetCarry(w["s_0"])


def gateddeltanet(case: str, w: Arrays) -> Ours:
    cell, params, carry = deltanet(case, w, GatedDeltaNetCell)
    params |= {"gate_a": {"kernel": w["w_a"]}, "A_log": w["A_log"], "dt_bias": w["dt_bias"]}
    return cell, params, carry


CONVERT: dict[str, Callable[[str, Arrays], Ours]] = {
    "indrnn": indrnn,
    "urlstm": urlstm,
    "lru": lru,
    "rglru": rglru,
    "slstm": slstm,
    "mlstm": mlstm,
    "deltanet": deltanet,
    "gateddeltanet": gateddeltanet,
}
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


@pytest.mark.sampled(2)
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


@pytest.mark.sampled(9)
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
    values = 1 / (1 + np.exp(-np.asarray(bias, np.float64)))
    assert_uniform(values, 1 / units, 1 - 1 / units)


def lru_eigenvalues(**options):
    """|lambda|^2 and the phase of 4000 states, and the gamma that belongs to each."""
    cell = LRUCell(1, state_size=4000, **options)
    carry = cell.initialize_carry(None, (1, 1))
    params = cell.init(jax.random.key(0), carry, jnp.zeros((1, 1)))["params"]
    nu, theta, gamma = (
        np.asarray(params[f"{n}_log"], np.float64) for n in ("nu", "theta", "gamma")
    )
    return np.exp(-2 * np.exp(nu)), np.exp(theta), np.exp(gamma)


def assert_uniform(values, low, high):
    """Kolmogorov and Smirnov: a true uniform fails once in 10^6 draws."""
    places = (np.sort(values) - low) / (high - low)
    assert np.abs(places - (np.arange(places.size) + 0.5) / places.size).max() < 2.7 / np.sqrt(
        places.size
    )


def test_the_lru_starts_on_its_ring():
    """Orvieto et al. (2023), lemma 3.2 and section 3.4."""
    square, phase, gamma = lru_eigenvalues()
    assert_uniform(square, 0, 1)
    assert_uniform(phase, 0, 2 * np.pi)
    square, phase, gamma = lru_eigenvalues(min_radius=0.9, max_radius=0.999, max_phase=np.pi / 10)
    assert_uniform(square, 0.9**2, 0.999**2)
    assert_uniform(phase, 0, np.pi / 10)
    np.testing.assert_allclose(gamma**2, 1 - square, rtol=1e-3)  # of float32 near 1


def test_the_rglru_starts_with_its_decays():
    """De et al. (2024), section 2.4: a^c is uniform from 0.9 to 0.999."""
    init = RGLRUCell(1)._init_lambda(jax.random.key(0), (4000,), jnp.float32)
    assert_uniform((1 / (1 + np.exp(-np.asarray(init, np.float64)))) ** 8, 0.9, 0.999)


@pytest.mark.slow
def test_the_rglru_learns_with_its_gate_shut():
    """There a is 1 and the root of 1 - a^2 has no slope, but gradients stay finite."""
    layer = Recurrent(RGLRUCell(4))
    inputs = jnp.ones((2, 5, 3))
    variables: Any = layer.init(jax.random.key(0), inputs)
    bias = variables["params"]["cell"]["gate_r"]["bias"]
    for value in (-20.0, -90.0, -200.0):
        variables["params"]["cell"]["gate_r"]["bias"] = jnp.full_like(bias, value)
        slopes = jax.grad(lambda v: layer.apply(v, inputs)[0].sum())(variables)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


def test_options_out_of_range_are_refused():
    for cell, options, message in [
        (IndRNNCell, {"recurrent_clip": 0.0}, "recurrent_clip must be a positive finite number"),
        (LRUCell, {"min_radius": 1.0}, "min_radius and max_radius must be from 0 to 1"),
        (LRUCell, {"max_phase": 0.0}, "max_phase must be a positive finite number"),
        (LRUCell, {"state_size": 0}, "state_size must be a whole number from 1 or None, not 0"),
        (RGLRUCell, {"max_radius": 1.0}, "min_radius and max_radius must be between 0 and 1"),
        (SLSTMCell, {"forget_gate": "tanh"}, "forget_gate must be sigmoid or exp, not 'tanh'"),
        (MLSTMCell, {"forget_gate": "tanh"}, "forget_gate must be sigmoid or exp, not 'tanh'"),
        (DeltaNetCell, {"num_heads": 0}, "num_heads must be a whole number that divides"),
        (RGLRUCell, {"num_heads": 4}, "num_heads must be a whole number that divides features, 6"),
    ]:
        with pytest.raises(ValueError, match=message):
            cell(H, **options)
    with pytest.raises(ValueError, match="inputs must have F = H = 6 without project_inputs, but"):
        Recurrent(RGLRUCell(H, project_inputs=False)).init(jax.random.key(0), jnp.ones((1, 2, 3)))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("shift", [-300.0, 0.0, 300.0])
def test_the_slstms_stabilizer_changes_nothing_but_the_range(shift, float64, key):
    """Equations 8 to 14 of Beck et al. (2024), without m; exp(300) is too much for float32."""
    layer = Recurrent(SLSTMCell(H))
    inputs = jax.random.normal(key, (2, 5, 3), jnp.float32)
    variables: Any = layer.init(key, inputs)
    params = variables["params"]["cell"]
    params["hi"]["bias"] = jnp.full_like(params["hi"]["bias"], shift)
    (outputs, carry), back = jax.vjp(lambda v: layer.apply(v, inputs), variables)
    w = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    for b in range(2):
        h = c = n = np.zeros(H)
        for t in range(5):
            x = np.asarray(inputs[b, t], np.float64)
            sums = {g: x @ w["i" + g]["kernel"] + h @ w["h" + g]["kernel"][0] for g in "ifzo"}
            i, f, z, o = (sums[g] + w["h" + g]["bias"] for g in "ifzo")
            f = 1 / (1 + np.exp(-f))
            c, n = f * c + np.exp(i) * np.tanh(z), f * n + np.exp(i)
            h = c / n / (1 + np.exp(-o))
            np.testing.assert_allclose(outputs[b, t], h, atol=1e-4)
    slopes = back((jnp.ones_like(outputs), jax.tree.map(jnp.zeros_like, carry)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


@pytest.mark.parametrize("name", CONVERT)
def test_other_libraries_have_no_such_cell(name):
    layer = Recurrent(CELLS[name](H))
    cell = type(layer.cell).__name__
    for system, export in {"torch": to_torch, "Keras": to_keras, "ONNX": to_onnx}.items():
        with pytest.raises(ValueError, match=f"{system} has no {cell}"):
            export(layer, {})


@pytest.mark.parametrize("negative, wanted", [(False, [1, 0, 0]), (True, [1, -1, 1])])
def test_negative_eigenvalues_flip_a_state(negative, wanted):
    """The parity of ones: a state that each of them turns around. With beta at most 1 it dies."""
    cell = DeltaNetCell(2, negative_eigenvalues=negative)
    one, shut = jnp.array([[1e4, 0.0]]), -1e4  # as input: open beta, key along the first axis
    params: Any = {name: {"kernel": jnp.eye(2)} for name in ("iq", "ik")}
    params["iv"] = {"kernel": jnp.full((2, 2), shut)}  # silu of it is 0: nothing is written
    params["gate_b"] = {"kernel": jnp.array([[1.0], [0.0]])}
    carry, seen = DeltaNetCarry(jnp.ones((1, 1, 2, 2))), [1.0]
    for _ in range(2):
        step: Any = cell.apply({"params": params}, carry, one)
        carry, outputs = step
        seen.append(float(outputs[0, 0]))
    np.testing.assert_allclose(seen, wanted, atol=1e-5)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize(
    "cell",
    [RGLRUCell(256), LRUCell(256, min_radius=0.99), LRUCell(4, state_size=4096, min_radius=0.999)],
)
def test_decays_near_1_are_not_rounded_to_1(cell, dtype, key):
    cell = cell.clone(param_dtype=dtype)
    inputs = jnp.ones((1, 2), dtype)
    params = cell.init(key, cell.initialize_carry(None, inputs.shape), inputs)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        (LRUCell, {"state_size": True}),
        (DeltaNetCell, {"num_heads": True}),
        (DeltaNetCell, {"negative_eigenvalues": "no"}),
        (RGLRUCell, {"project_inputs": 1}),
        (URLSTMCell, {"refine_gate": 0}),
        (IndRNNCell, {"recurrent_clip": True}),
    ],
)
def test_numbers_are_no_flags_and_flags_no_numbers(cell, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        cell(1, **options)
