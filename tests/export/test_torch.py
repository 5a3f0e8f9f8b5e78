"""PyTorch: the written module computes what jaxrnn computes, and holds no pickle."""

import importlib.util

import pytest
from exported_networks import LENGTHS, ONNX_ONLY, SHARED, TORCH_ONLY, H, draw, make, ours, sequence
from variants import assert_close

from jaxrnn.cells import LSTMCell
from jaxrnn.errors import SettingError
from jaxrnn.export import torch_module
from jaxrnn.interop import save_params
from jaxrnn.layers.recurrent import Recurrent

torch = pytest.importorskip("torch", reason="it is not among the packages of tests")


def loaded(network, folder):
    """The network as a user of the files has it."""
    module = torch_module(*network)
    save_params(folder / "written.safetensors", module.state_dict)
    (folder / "written.py").write_text(module.source)
    spec = importlib.util.spec_from_file_location("written", folder / "written.py")
    assert spec and spec.loader
    written = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(written)
    return written.load()


def as_arrays(logits, carry):
    return logits.detach().numpy(), {name: array.detach().numpy() for name, array in carry.items()}


@pytest.mark.sampled(10)
@pytest.mark.parametrize("name", SHARED | TORCH_ONLY)
def test_the_module_computes_the_same(name, key, tmp_path):
    network = make((SHARED | TORCH_ONLY)[name], key)
    there, case = loaded(network, tmp_path), draw(network, LENGTHS)
    carry = {name: torch.tensor(array) for name, array in case.carry.items()}
    got = there(torch.tensor(case.inputs), torch.tensor(case.lengths), carry)
    assert_close(as_arrays(*got), ours(network, case))


@pytest.mark.slow
def test_lengths_and_carry_may_be_left_out(key, tmp_path):
    network = make(SHARED["lstm"], key)
    case = draw(network, (6, 6))
    case = case._replace(carry={name: 0 * array for name, array in case.carry.items()})
    got = loaded(network, tmp_path)(torch.tensor(case.inputs))
    assert_close(as_arrays(*got), ours(network, case))


@pytest.mark.slow
def test_the_module_is_trainable(key, tmp_path):
    network = make(SHARED["both, two layers"], key)
    there = loaded(network, tmp_path)
    logits, _ = there(torch.tensor(draw(network, LENGTHS).inputs), torch.tensor(LENGTHS))
    logits.square().mean().backward()
    assert all(float(weight.grad.abs().sum()) > 0 for weight in there.parameters())


@pytest.mark.parametrize(
    ("make_model", "message"),
    [
        (ONNX_ONLY["peepholes"], "torch has no LSTMCell with peepholes"),
        (ONNX_ONLY["coupled"], "torch has no LSTMCell with coupled_gates"),
        (ONNX_ONLY["reset before"], "torch has no GRUCell with reset_after=False"),
        (
            lambda: sequence(Recurrent(LSTMCell(H, layer_norm=True))),
            "torch has no LSTMCell with layer_norm",
        ),
    ],
    ids=["peepholes", "coupled", "reset before", "layer norm"],
)
def test_what_torch_does_not_have_is_refused_by_name(make_model, message, key):
    with pytest.raises(SettingError, match=message):
        torch_module(*make(make_model, key))
