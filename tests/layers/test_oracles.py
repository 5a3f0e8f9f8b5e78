"""The recurrent layer as others compute it: ONNX while it runs, the others from files.

tests/goldens/README.md says how the files were made. Weights get in by `jaxrnn.interop`, so both
are tested here: that a layer computes what theirs does, and that its weights find their places.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from flax import linen as nn
from onnx.reference import ReferenceEvaluator

from jaxrnn.cells import ElmanCell, GRUCell, LSTMCarry, LSTMCell
from jaxrnn.interop import from_keras, from_onnx, from_tf1, from_torch, to_torch
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional, BidirectionalCarry, Stack
from jaxrnn.losses import sequence_cross_entropy
from jaxrnn.models import SequenceModel

B, T, F, H, V = 3, 6, 4, 3, 5
GOLDENS = Path(__file__).parent.parent / "goldens"
TOLERANCE = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 1e-5}

Arrays = Mapping[str, Any]
MakeCell = Callable[..., nn.RNNCellBase]


@pytest.fixture
def float64():
    """JAX has 64 bits inside the test, and not after it."""
    with jax.enable_x64(True):
        yield


def assert_close(ours: Arrays, theirs: Arrays, times: float = 1) -> None:
    """No array is further off than its type allows (or times that), of its own greatest number."""
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        actual = np.asarray(ours[name])
        assert actual.shape == expected.shape, name
        assert actual.dtype == expected.dtype, name
        off = np.abs(actual - expected).max() / (np.abs(expected).max() or 1)
        assert off <= times * TOLERANCE[expected.dtype], f"{name} is off by {off:.1e}"


def make_layer(make_cell: MakeCell, direction: str, merge: Any = "concat", **options: Any) -> Any:
    """A layer of that direction: forward, reverse or bidirectional."""
    one = partial(Recurrent, **options)
    if direction == "bidirectional":
        return Bidirectional(one(make_cell(H)), one(make_cell(H), reverse=True), merge)
    return one(make_cell(H), reverse=direction == "reverse")


def to_carry(layer: nn.Module, states: Arrays) -> Any:
    """A layer's carry, from the states [D, B, H] of its D cells.

    States are in the order of all others, from the input up and forward before backward: h, and
    in an LSTM c.
    """
    pairs = zip(states["c"], states["h"], strict=True) if "c" in states else ()
    cells = iter([LSTMCarry(c, h) for c, h in pairs] or states["h"])

    def nest(layer: nn.Module, cells: Iterator[Any]) -> Any:
        if isinstance(layer, Stack):
            return tuple(nest(part, cells) for part in layer.layers)
        if isinstance(layer, Bidirectional):
            return BidirectionalCarry(nest(layer.forward, cells), nest(layer.backward, cells))
        return next(cells)

    return nest(layer, cells)


def to_states(carry: Any) -> dict[str, np.ndarray]:
    """The same the other way: [D, B, H] by name, from a layer's carry."""
    cells = jax.tree.leaves(carry, is_leaf=lambda part: isinstance(part, LSTMCarry))
    if isinstance(cells[0], LSTMCarry):
        return {
            "h": np.stack([cell.h for cell in cells]),
            "c": np.stack([cell.c for cell in cells]),
        }
    return {"h": np.stack(cells)}


@partial(jax.jit, static_argnums=0)
def run(layer: nn.Module, params: Any, inputs: Any, carry: Any, lengths: Any) -> Any:
    return layer.apply({"params": params}, inputs, carry, lengths=lengths)


@partial(jax.jit, static_argnums=0)
def run_with_gradients(
    layer: nn.Module, params: Any, inputs: Any, carry: Any, lengths: Any, cotangents: Any
) -> Any:
    """What `run` returns, and the gradients of parameters, inputs and initial carry."""
    results, vjp = jax.vjp(lambda *wanted: run(layer, *wanted, lengths), params, inputs, carry)
    return results, vjp(cotangents)


def read(file: str) -> dict[str, dict[str, np.ndarray]]:
    """A file's arrays by case and name."""
    cases: dict[str, dict[str, np.ndarray]] = {}
    with np.load(GOLDENS / file) as arrays:
        for key in sorted(set(arrays) - {"versions"}):
            case, name = key.split("/", 1)
            cases.setdefault(case, {})[name] = arrays[key]
    return cases


def under(prefix: str, arrays: Arrays) -> dict[str, Any]:
    """The arrays below a prefix, by what is left of their names."""
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


# PyTorch

TORCH = read("torch_recurrent.npz")
TORCH_CELLS: dict[str, MakeCell] = {
    "lstm": LSTMCell,
    "gru": GRUCell,
    "rnn": ElmanCell,
    "rnn_relu": partial(ElmanCell, activation_fn=nn.relu),
    "lstm_proj": partial(LSTMCell, projection_size=2),
}


def torch_weights(case: Arrays) -> dict[str, Any]:
    return {name: array for name, array in case.items() if name.startswith(("weight", "bias"))}


def torch_gradients(layer: nn.Module, gradients: Any, hidden_candidate: bool) -> dict[str, Any]:
    """Gradients of our parameters, by PyTorch's names.

    Where we have one bias for PyTorch's two, each of the two has the gradient of their sum. The
    GRU keeps its candidate's two biases apart (`hidden_candidate`): its last H.
    """
    named = to_torch(layer, gradients)
    for name in [name for name in named if name.startswith("bias_ih")]:
        other = name.replace("ih", "hh")
        summed = named[name] + named[other]  # one of them is zero
        apart = 2 * H if hidden_candidate else len(summed)
        named |= {bias: np.r_[summed[:apart], named[bias][apart:]] for bias in (name, other)}
    return named


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("kind", "form", "chunk"),
    [
        *([*case.split("."), None] for case in sorted(TORCH) if "." in case),
        ("lstm", "stacked", 4),
    ],
)
def test_a_layer_and_its_gradients_equal_pytorch(kind, form, chunk, float64):
    check_torch(kind, form, chunk, np.float64)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("form", ["single", "stacked"])
@pytest.mark.parametrize("kind", TORCH_CELLS)
def test_they_equal_pytorch_in_single_precision(kind, form):
    check_torch(kind, form, None, np.float32)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_newtons_method_equals_pytorch(kind, float64):
    check_torch(kind, "stacked", None, np.float64, implementation="newton")


def check_torch(
    kind: str,
    form: str,
    chunk: int | None,
    dtype: Any,
    times: float = 1,
    **options: Any,
) -> None:
    """Outputs, last carry and all gradients of one case, computed in one type of number.

    They may be off by `times` what the type allows; the layers have these options.
    """
    one = partial(make_layer, remat_chunk_size=chunk, **options)
    make_cell = partial(TORCH_CELLS[kind], param_dtype=dtype)
    case = {
        name: array if name == "lengths" else array.astype(dtype)
        for name, array in TORCH[f"{kind}.{form}"].items()
    }
    if form == "stacked":
        both = [one(make_cell, "bidirectional") for _ in range(2)]
        layer, names = Stack(tuple(both)), [name for name in ("h_0", "c_0") if name in case]
        carry = to_carry(layer, {name[0]: case[name] for name in names})
    else:
        layer, carry = one(make_cell, "forward"), None
    cotangents = under("cotangent/", case)
    last = {name[0]: array for name, array in cotangents.items() if name != "outputs"}
    (outputs, ours_last), gradients = run_with_gradients(
        layer,
        from_torch(layer, torch_weights(case)),
        case["inputs"],
        carry,
        case.get("lengths"),
        (cotangents["outputs"], to_carry(layer, last)),
    )
    ours = {"outputs": outputs} | {f"{name}_n": s for name, s in to_states(ours_last).items()}
    assert_close(ours, {name: case[name] for name in cotangents}, times)

    of_params, of_inputs, of_carry = gradients
    ours = torch_gradients(layer, of_params, hidden_candidate=kind == "gru")
    if form == "no_bias":
        ours = {name: gradient for name, gradient in ours.items() if "bias" not in name}
    ours |= {"inputs": of_inputs}
    if form == "stacked":
        ours |= {f"{name}_0": state for name, state in to_states(of_carry).items()}
    assert_close(ours, under("grad/", case), times)


def counted(targets: jax.Array) -> jax.Array:
    """PyTorch ignores a step whose target is -100; we give it no weight."""
    return (targets != -100).astype(jnp.float64)


def test_the_loss_equals_pytorchs_with_ignore_index(float64):
    case = TORCH["masked_loss"]
    targets = jnp.asarray(case["targets"])
    loss, gradient = jax.value_and_grad(sequence_cross_entropy)(
        case["logits"], targets, counted(targets)
    )
    ours = {"loss": loss, "grad/logits": gradient}
    assert_close(ours, {name: case[name] for name in ours})


def test_a_model_from_inputs_to_loss_equals_pytorch(float64):
    case = TORCH["readout"]
    layer = make_layer(partial(LSTMCell, param_dtype=jnp.float64), "forward")
    model, targets = SequenceModel(layer, V), jnp.asarray(case["targets"])
    readout = {"kernel": case["readout.weight"].T, "bias": case["readout.bias"]}
    params = {"recurrent": from_torch(layer, torch_weights(case)), "readout": readout}

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def measure(params, inputs):
        logits, _ = model.apply({"params": params}, inputs, lengths=jnp.asarray(case["lengths"]))
        return sequence_cross_entropy(logits, targets, counted(targets)), logits

    (loss, logits), (of_params, of_inputs) = measure(params, case["inputs"])
    ours = {"loss": loss, "logits": logits}
    assert_close(ours, {name: case[name] for name in ours})
    ours = torch_gradients(layer, of_params["recurrent"], hidden_candidate=False) | {
        "readout.weight": of_params["readout"]["kernel"].T,
        "readout.bias": of_params["readout"]["bias"],
        "inputs": of_inputs,
    }
    assert_close(ours, under("grad/", case))


# Keras

KERAS = read("keras_recurrent.npz")
KERAS_CELLS: dict[str, MakeCell] = {
    "lstm": partial(LSTMCell, param_dtype=jnp.float64),
    "gru": partial(GRUCell, param_dtype=jnp.float64),
    "gru_reset_before": partial(GRUCell, reset_after=False, param_dtype=jnp.float64),
    "rnn": partial(ElmanCell, param_dtype=jnp.float64),
}


def keras_states(prefix: str, case: Arrays, kind: str) -> dict[str, np.ndarray]:
    """A layer's states by name; Keras counts them, each direction's h before its c."""
    states = np.stack([case[name] for name in sorted(case) if name.startswith(prefix)])
    return {"h": states[::2], "c": states[1::2]} if kind == "lstm" else {"h": states}


@pytest.mark.parametrize("form", ["forward", "bidirectional", "sum"])
@pytest.mark.parametrize("kind", KERAS_CELLS)
def test_a_layer_equals_keras(kind, form, float64):
    case = KERAS[f"{kind}.{form}"]
    direction = "forward" if form == "forward" else "bidirectional"
    layer = make_layer(KERAS_CELLS[kind], direction, "sum" if form == "sum" else "concat")
    carry = None
    if direction == "bidirectional":
        carry = to_carry(layer, keras_states("initial_state/", case, kind))
    weights = {name: array for name, array in case.items() if name.endswith(("kernel", "bias"))}
    params = from_keras(layer, weights)
    outputs, last = run(layer, params, case["inputs"], carry, case["lengths"])
    assert_close({"outputs": outputs}, {"outputs": case["outputs"]})
    assert_close(to_states(last), keras_states("state/", case, kind))


# TensorFlow 1

TF1 = read("tf1_recurrent.npz")
TF1_LAYERS = {  # by case, each layer's H, and the forget bias
    "one": ((3,), 0.5),
    "two": ((3, 5), 1.0),
}


@pytest.mark.parametrize("form", TF1_LAYERS)
def test_a_layer_equals_tensorflow(form, float64):
    case, (sizes, forget_bias) = TF1[form], TF1_LAYERS[form]
    layers = tuple(Recurrent(LSTMCell(size, param_dtype=jnp.float64)) for size in sizes)
    layer = layers[0] if len(layers) == 1 else Stack(layers)
    variables = {name: array for name, array in case.items() if name.startswith("rnn/")}
    params = from_tf1(layer, variables, forget_bias)
    carry = to_carry(layer, {s: [case[f"{s}_{n}"] for n in range(len(sizes))] for s in "ch"})
    outputs, last = run(layer, params, case["inputs"], carry, case["lengths"])
    ours = {"outputs": outputs}
    for n, part in enumerate([last] if len(layers) == 1 else last):
        ours |= {f"last_c_{n}": part.c, f"last_h_{n}": part.h}
    assert_close(ours, {name: case[name] for name in ours})


TF1_CLIPPED: dict[str, tuple[str, dict[str, Any]]] = {  # each case, and the options of its cell
    "clip-scan": ("clip", {}),
    "clip-fused": ("clip", {}),
    "peepholes-scan": ("clip_peepholes", {"peepholes": True}),
    "projection-scan": ("clip_projection", {"projection_size": 2}),
}


@pytest.mark.parametrize("form", TF1_CLIPPED)
def test_cell_clip_equals_tensorflows(form, float64):
    name, options = TF1_CLIPPED[form]
    case, clip = TF1[name], 0.3
    cell = LSTMCell(3, cell_clip=clip, param_dtype=jnp.float64, **options)
    layer = Recurrent(cell, implementation=form.split("-")[1])
    params = {"cell": tf1_lstm_params(under("rnn/lstm_cell/", case))}
    carry = to_carry(layer, {"c": [case["c_0"]], "h": [case["h_0"]]})
    outputs, last = run(layer, params, case["inputs"], carry, case["lengths"])
    ours = {"outputs": outputs, "last_c_0": last.c, "last_h_0": last.h}
    assert_close(ours, {name: case[name] for name in ours})


def test_tensorflows_cells_were_clipped_on_both_sides():
    ends = [TF1[name]["last_c_0"] for name, _ in TF1_CLIPPED.values()]
    assert (np.max(ends), np.min(ends)) == (0.3, -0.3)


def tf1_lstm_params(weights: Arrays) -> dict[str, Any]:
    """The parameters of our cell from those of TensorFlow's `LSTMCell`, with a forget bias of 1."""
    params: dict[str, Any] = {}
    gates = (np.split(weights[name], 4, axis=-1) for name in ("kernel", "bias"))
    for gate, kernel, bias in zip("igfo", *gates, strict=True):
        params["i" + gate] = {"kernel": kernel[:F]}
        params["h" + gate] = {"kernel": kernel[F:], "bias": bias + (gate == "f")}
        if f"w_{gate}_diag" in weights:
            params["p" + gate] = weights[f"w_{gate}_diag"]
    if "projection/kernel" in weights:
        params["projection"] = {"kernel": weights["projection/kernel"]}
    return params


# ONNX

LENGTHS = np.array([T, 2, 4, 0], np.int32)  # as the operators want them
ONNX_CELLS: dict[str, tuple[str, dict[str, Any], MakeCell]] = {
    "lstm": ("LSTM", {}, LSTMCell),
    "lstm_peepholes": ("LSTM", {}, partial(LSTMCell, peepholes=True)),
    "lstm_coupled": ("LSTM", {"input_forget": 1}, partial(LSTMCell, coupled_gates=True)),
    "lstm_coupled_peepholes": (
        *("LSTM", {"input_forget": 1}),
        partial(LSTMCell, coupled_gates=True, peepholes=True),
    ),
    "gru": ("GRU", {"linear_before_reset": 1}, GRUCell),
    "gru_reset_before": ("GRU", {"linear_before_reset": 0}, partial(GRUCell, reset_after=False)),
    "rnn": ("RNN", {}, ElmanCell),
}
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
RANKS = {"X": 3, "W": 3, "R": 3, "B": 2, "sequence_lens": 1, "initial_h": 3, "initial_c": 3}
RANKS |= {"P": 2, "Y": 4, "Y_h": 3, "Y_c": 3}


def onnx_inputs(kind: str, direction: str, dtype: Any) -> dict[str, np.ndarray]:
    """Random inputs of an operator, but for the lengths, by the operator's names."""
    operator = ONNX_CELLS[kind][0]
    k, count = GATES[operator], 2 if direction == "bidirectional" else 1
    batch = len(LENGTHS)
    shapes = {
        "X": (T, batch, F),
        "W": (count, k * H, F),
        "R": (count, k * H, H),
        "B": (count, 2 * k * H),
        "initial_h": (count, batch, H),
    }
    if operator == "LSTM":
        shapes["initial_c"] = (count, batch, H)
    if kind.endswith("peepholes"):
        shapes["P"] = (count, 3 * H)
    rng = np.random.default_rng(20)
    scale = {"X": 1.0}
    return {
        name: (scale.get(name, 0.5) * rng.normal(size=shape)).astype(dtype)
        for name, shape in shapes.items()
    }


def onnx_model(kind: str, direction: str, given: Arrays) -> onnx.ModelProto:
    """A model of one operator, with all that is given as its inputs."""
    operator, attributes, _ = ONNX_CELLS[kind]
    order = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
    inputs = [name if name in given else "" for name in order]
    outputs = ["Y", "Y_h", "Y_c"][: 3 if operator == "LSTM" else 2]
    node = onnx.helper.make_node(
        operator,
        inputs[: max(n for n, name in enumerate(inputs) if name) + 1],
        outputs,
        hidden_size=H,
        direction=direction,
        **attributes,
    )

    def info(name: str) -> onnx.ValueInfoProto:
        dtype = given[name if name in given else "X"].dtype
        element = onnx.helper.np_dtype_to_tensor_dtype(dtype)
        return onnx.helper.make_tensor_value_info(name, element, [None] * RANKS[name])

    graph = onnx.helper.make_graph(
        [node], "layer", list(map(info, given)), list(map(info, outputs))
    )
    opset = onnx.helper.make_opsetid("", 14)  # old enough for every runtime, as is version 10
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    onnx.checker.check_model(model)
    return model


def ours_by_onnx_names(
    kind: str, direction: str, given: Arrays, lengths: np.ndarray | None
) -> dict[str, np.ndarray]:
    """What our layer makes of an operator's inputs, as the operator's outputs."""
    make_cell = partial(ONNX_CELLS[kind][2], param_dtype=given["X"].dtype)
    layer = make_layer(make_cell, direction)
    params = from_onnx(layer, {name: given[name] for name in ("W", "R", "B", "P") if name in given})
    carry = to_carry(layer, under("initial_", given))
    outputs, last = run(layer, params, given["X"].swapaxes(0, 1), carry, lengths)
    batch, count = len(LENGTHS), len(given["W"])
    y = np.asarray(outputs).reshape(batch, T, count, H).transpose(1, 2, 0, 3)  # [T, D, B, H]
    return {"Y": y} | {f"Y_{name}": state for name, state in to_states(last).items()}


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", [kind for kind in ONNX_CELLS if "coupled" not in kind])
def test_a_layer_equals_the_onnx_operator(kind, direction, float64):
    """ONNX's own reference ignores `input_forget`; the runtime, below, does not."""
    given = onnx_inputs(kind, direction, np.float64)
    model = onnx_model(kind, direction, given)
    results = ReferenceEvaluator(model).run(None, dict(given))
    theirs = dict(zip((out.name for out in model.graph.output), results, strict=True))
    assert_close(ours_by_onnx_names(kind, direction, given, None), theirs)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ONNX_CELLS)
def test_a_layer_over_padded_rows_equals_onnxruntime(kind, direction):
    given = onnx_inputs(kind, direction, np.float32)
    feeds = given | {"sequence_lens": LENGTHS}
    model = onnx_model(kind, direction, feeds)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    results: Any = session.run(None, feeds)
    theirs = dict(zip((out.name for out in model.graph.output), results, strict=True))
    for name, initial in under("initial_", given).items():
        # Of a row without steps the runtime says zero; we, as Keras, that the state is still the
        # initial one.
        assert not theirs[f"Y_{name}"][:, LENGTHS == 0].any()
        theirs[f"Y_{name}"][:, LENGTHS == 0] = initial[:, LENGTHS == 0]
    assert_close(ours_by_onnx_names(kind, direction, given, LENGTHS), theirs)
