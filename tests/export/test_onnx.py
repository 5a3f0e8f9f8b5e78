"""ONNX: ONNX Runtime computes what jaxrnn computes, whatever the sizes; what has no operator."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from exported_networks import (
    FIXED_STEPS,
    LENGTHS,
    ONNX_ONLY,
    SHARED,
    F,
    H,
    V,
    draw,
    language,
    make,
    ours,
    sequence,
)
from variants import assert_close

from jaxrnn.cells import CELLS, GRUCell, LSTMCell
from jaxrnn.errors import RunError, SettingError
from jaxrnn.export import describe, onnx_model
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Stack
from jaxrnn.models import EncoderDecoder, SequenceModel


def session_of(model):
    content = model.SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def run(session, case):
    """The outputs of a session by name."""
    first = session.get_inputs()[0].name
    feeds = {first: case.inputs, "lengths": case.lengths}
    feeds |= {f"initial_{name}": array for name, array in case.carry.items()}
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def axes_of(values):
    """The axes of a graph's inputs or outputs, by name: letters, or numbers."""
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in values
    }


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", SHARED | ONNX_ONLY)
def test_onnxruntime_computes_the_same_at_several_sizes(name, key):
    """Rows and steps are cut, so that one result of ours holds for all sizes."""
    network = make((SHARED | ONNX_ONLY)[name], key)
    session, case = session_of(onnx_model(*network)), draw(network, LENGTHS)
    logits, last = ours(network, case)
    wanted = {"logits": logits} | {f"last_{name}": array for name, array in last.items()}
    assert_close(run(session, case), wanted)
    for rows, steps in ((slice(1, 4), FIXED_STEPS), (slice(0, 1), FIXED_STEPS), (slice(1, 3), 3)):
        if describe(*network).inputs.axes[1] != "T" and steps < FIXED_STEPS:
            continue
        part = case.cut(rows, steps)
        some = {name: array[rows] for name, array in wanted.items()}
        some["logits"] = some["logits"][:, :steps]
        assert_close(run(session, part), some)


def test_the_graph_is_one_operator_per_direction_with_free_sizes(key):
    model = onnx_model(*make(SHARED["both, two layers"], key), {"vocabulary": '["a"]'})
    operators = [node.op_type for node in model.graph.node]
    assert [name for name in operators if name in ("LSTM", "GRU")] == ["LSTM"] * 2 + ["GRU"] * 2
    assert not {"Loop", "Scan", "If"} & set(operators)
    states = {"layers_0_forward_c": ["B", H], "layers_0_forward_h": ["B", H]}
    states |= {name.replace("forward", "backward"): axes for name, axes in states.items()}
    states |= {"layers_1_forward_h": ["B", H], "layers_1_backward_h": ["B", H]}
    inputs, outputs = axes_of(model.graph.input), axes_of(model.graph.output)
    assert list(inputs) == ["features", "lengths", *(f"initial_{name}" for name in states)]
    assert list(outputs) == ["logits", *(f"last_{name}" for name in states)]
    assert inputs.pop("features") == ["B", "T", F] and outputs.pop("logits") == ["B", "T", V]
    assert inputs.pop("lengths") == ["B"]
    assert {name.removeprefix("initial_"): axes for name, axes in inputs.items()} == states
    assert {name.removeprefix("last_"): axes for name, axes in outputs.items()} == states
    assert [(entry.key, entry.value) for entry in model.metadata_props] == [("vocabulary", '["a"]')]


def test_an_export_is_the_same_each_time_and_warns_of_nothing(key, capfd):
    network = make(SHARED["classifier, flatten"], key)
    model = onnx_model(*network)
    assert model.SerializeToString() == onnx_model(*network).SerializeToString()
    assert axes_of(model.graph.input)["features"] == ["B", FIXED_STEPS, F]
    session_of(model)
    assert capfd.readouterr().err == ""


def test_padding_may_hold_anything(key):
    network = make(SHARED["both, two layers"], key)
    session, case = session_of(onnx_model(*network)), draw(network, LENGTHS)
    wanted = run(session, case)
    for row, length in enumerate(LENGTHS):
        case.inputs[row, length:] = np.nan
    assert_close(run(session, case), wanted)


class Doubled(SequenceModel):
    """Other outputs with the same parameters."""

    def __call__(self, *arguments, **options):
        logits, carry = super().__call__(*arguments, **options)
        return 2 * logits, carry


class Leaky(GRUCell):
    """Another equation with the same parameters."""

    def __call__(self, carry, inputs, hidden_mask=None):
        carry, outputs = super().__call__(carry, inputs, hidden_mask)
        return 0.9 * carry, outputs


REFUSED = {
    "layer norm": (
        lambda: sequence(Recurrent(LSTMCell(H, layer_norm=True))),
        "ONNX has no LSTMCell with layer_norm",
    ),
    "projection": (
        lambda: sequence(Stack((Recurrent(GRUCell(4)), Recurrent(LSTMCell(4, projection_size=2))))),
        "ONNX has no LSTMCell with projection_size",
    ),
    "clip": (
        lambda: language(Recurrent(LSTMCell(H, cell_clip=3.0))),
        "ONNX has no LSTMCell with cell_clip",
    ),
    "minlstm": (lambda: sequence(Recurrent(CELLS["minlstm"](H))), "ONNX has no MinLSTMCell"),
    "lru": (lambda: sequence(Recurrent(CELLS["lru"](H))), "ONNX has no LRUCell"),
    "slstm": (lambda: sequence(Recurrent(CELLS["slstm"](H))), "ONNX has no SLSTMCell"),
    "a subclass of a cell": (lambda: sequence(Recurrent(Leaky(H))), "ONNX has no Leaky"),
    "a subclass of a model": (
        lambda: Doubled(Recurrent(GRUCell(H)), V),
        r"ONNX has no Doubled \(it may differ from the SequenceModel that it extends\)",
    ),
    "encoder-decoder": (
        lambda: EncoderDecoder(Recurrent(GRUCell(H)), Recurrent(GRUCell(H)), 2, V, V),
        "ONNX has no EncoderDecoder",
    ),
    "bfloat16": (
        lambda: sequence(Recurrent(GRUCell(H, dtype=jnp.bfloat16))),
        "a network for ONNX must be float32, but this has bfloat16",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_onnx_does_not_have_is_refused_by_name(name, key):
    make_model, message = REFUSED[name]
    with pytest.raises(SettingError, match=message) as caught:
        onnx_model(*make(make_model, key))
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named(key, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(RunError, match=r"need the package onnx: pip install 'jaxrnn\[export\]'"):
        onnx_model(*make(SHARED["gru"], key))


def test_a_network_too_large_for_the_format_is_refused(key, monkeypatch):
    monkeypatch.setattr("jaxrnn.export.onnx.MAX_BYTES", 1000)
    with pytest.raises(SettingError, match="an ONNX file holds 2 GB, but the parameters have"):
        onnx_model(*make(SHARED["lstm"], key))


def test_parameters_of_another_model_are_refused(key):
    network = make(SHARED["gru"], key)
    other = make(SHARED["gru"], jax.random.key(1)).model.clone(embedding_size=F + 1)
    with pytest.raises(ValueError, match="embedding"):
        onnx_model(other, network.params, network.inputs)
