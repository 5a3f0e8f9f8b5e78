"""StableHLO: a process without jaxrnn calls the program, at sizes that it has not seen."""

import pickle
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from exported_networks import FIXED_STEPS, LENGTHS, SHARED, V, draw, make, ours, sequence
from flax import linen as nn
from jax import export
from variants import assert_close

from jaxrnn.cells import CELLS, GRUCell, LSTMCell
from jaxrnn.export import describe, stablehlo
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional, Stack
from jaxrnn.models import EncoderDecoder, SequenceModel

NETWORKS = {
    "layer norm and linear": lambda: sequence(
        Stack((Recurrent(LSTMCell(5, layer_norm=True)), Recurrent(CELLS["minlstm"](4))))
    ),
    "both": SHARED["two cells and sizes"],
    "many states": lambda: sequence(Recurrent(CELLS["mlstm"](4))),
    "flatten": SHARED["classifier, flatten"],
    "from sequence to sequence": lambda: EncoderDecoder(
        Bidirectional(Recurrent(GRUCell(4)), Recurrent(GRUCell(4), reverse=True)),
        Recurrent(GRUCell(5)),
        source_length=4,
        source_size=V,
        output_size=V,
        attention_size=3,
    ),
}

CALLER = """
import pickle, sys
from pathlib import Path
from jax import export
network = export.deserialize(Path("program").read_bytes())
results = [network.call(*case) for case in pickle.loads(Path("cases").read_bytes())]
assert not {"jaxrnn", "flax"} & set(sys.modules)
Path("results").write_bytes(pickle.dumps(results))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_process_without_jaxrnn_calls_the_program(name, key, tmp_path, environment):
    network = make(NETWORKS[name], key)
    exported = stablehlo(*network)
    assert exported.platforms == ("cpu", "cuda")
    (tmp_path / "program").write_bytes(exported.serialize())
    case = draw(network, [min(n, 4) for n in LENGTHS])
    steps = FIXED_STEPS if name in ("flatten", "from sequence to sequence") else 4
    cases = [tuple(part) for part in (case, case.cut(slice(1, 3), steps))]
    (tmp_path / "cases").write_bytes(pickle.dumps(cases))
    command, settings = [sys.executable, "-c", CALLER], {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    subprocess.run(command, cwd=tmp_path, env=environment | settings, check=True, timeout=120)
    logits, last = ours(network, case)
    some = {name: array[1:3] for name, array in last.items()}
    wanted = [(logits, last), (logits[1:3, :steps], some)]
    assert_close(pickle.loads((tmp_path / "results").read_bytes()), wanted)


@pytest.mark.sampled(len(SHARED))
@pytest.mark.parametrize("name", SHARED)
def test_the_program_computes_the_same(name, key):
    network = make(SHARED[name], key)
    case = draw(network, LENGTHS)
    assert_close(stablehlo(*network).call(*case), ours(network, case))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["lstm", "gru", "both, two layers"])
def test_the_program_computes_the_same_on_a_gpu(name, key):
    """It was exported for both platforms, here to be read again."""
    network = make(SHARED[name], key)
    content, case = stablehlo(*network).serialize(), draw(network, LENGTHS)
    assert_close(export.deserialize(content).call(*case), ours(network, case))


def without_locations(text):
    """A program without the lines of the source that it came from."""
    return re.sub(r"#loc.*|loc\([^)]*\)", "", text)


def test_the_plain_scan_is_exported_whatever_the_layers_use(key):
    """Also where a layer asks for cuDNN, whose call is not stable."""
    model = SequenceModel(Recurrent(LSTMCell(4), implementation="cudnn"), V)
    network = make(lambda: model.clone(recurrent=Recurrent(LSTMCell(4))), key)
    exported = stablehlo(model, network.params, network.inputs)
    text = exported.mlir_module()
    assert "stablehlo.while" in text
    assert set(re.findall(r"custom_call @(\w+)", text)) <= {"shape_assertion"}  # JAX's own, of B, T
    assert not exported.disabled_safety_checks
    assert without_locations(text) == without_locations(stablehlo(*network).mlir_module())


class Remembering(nn.Module):
    """A user's model: one more array in its carry than its layer has."""

    recurrent: nn.Module

    @nn.compact
    def __call__(self, inputs, initial_carry=None, *, lengths=None, deterministic=True):
        hidden, carry = self.recurrent(inputs, initial_carry, lengths=lengths)
        return hidden, (carry, hidden[:, -1])


def test_a_carry_without_names_is_refused(key):
    with pytest.raises(ValueError, match="the carry of a Remembering is not that of its recurrent"):
        stablehlo(*make(lambda: Remembering(Recurrent(GRUCell(4))), key))


@pytest.mark.slow
def test_bfloat16_is_exported(key):
    network = make(lambda: sequence(Recurrent(GRUCell(4, dtype=jax.numpy.bfloat16))), key)
    assert describe(*network).carry[0].dtype == "float32"
    content = stablehlo(*network).serialize()
    case = draw(network, LENGTHS)
    got, _ = export.deserialize(content).call(*case)
    np.testing.assert_allclose(got, ours(network, case)[0], atol=0.05)
