"""Trained weights that wheels carry: their package's own numbers, by weights from `interop`.

tests/goldens/README.md says how the file was made. It has a part of each network's weights. The
whole networks are compared where the wheels are installed, without what they depend on:

    pip install --no-deps g2p-en==2.1.0 silero-vad==6.2.3
"""

import importlib.util
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from test_oracles import Arrays, assert_close, read, run, to_carry, torch_weights

from jaxrnn.cells import GRUCell, LSTMCell
from jaxrnn.interop import from_torch
from jaxrnn.layers.recurrent import Recurrent

GOLDEN = read("wheels_recurrent.npz")
START, END = 2, 3  # phonemes
IMPLEMENTATIONS = ["scan", "fused", "newton"]


def wheel_file(package: str, inside: str) -> Path:
    """A file of an installed package, which is not imported; skip the test without it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"needs the wheel of {package}, see above")
    return Path(spec.origin).parent / inside


def outputs_of(layer: Recurrent, weights: Arrays, inputs: Any, carry: Any, lengths: Any) -> Any:
    return run(layer, from_torch(layer, weights), inputs, carry, lengths)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_part_of_a_trained_gru_equals_g2p_en(side, implementation):
    case: Any = GOLDEN[f"g2p_en.{side}"]
    layer = Recurrent(GRUCell(32), implementation=implementation)
    outputs, last = outputs_of(layer, torch_weights(case), case["inputs"], case["h_0"], None)
    ours = {"outputs": outputs, "last": last}
    assert_close(ours, {"outputs": case["outputs"], "last": case["outputs"][:, -1]})


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_part_of_a_trained_lstm_equals_silero_vad(implementation):
    case: Any = GOLDEN["silero_vad.lstm"]
    layer = Recurrent(LSTMCell(32), implementation=implementation)
    outputs, last = outputs_of(layer, torch_weights(case), case["inputs"], None, None)
    ours = {"outputs": outputs, "c_n": last.c}
    assert_close(ours, {name: case[name] for name in ours})


def test_the_goldens_states_are_neither_small_nor_saturated():
    for case in GOLDEN.values():
        if "outputs" in case:
            assert 0.1 < np.abs(case["outputs"]).mean() < 0.5
            assert np.abs(case["outputs"][:, 0] - case["outputs"][:, -1]).max() > 0.1


@pytest.mark.slow
def test_g2p_en_pronounces_its_words():
    """The whole encoder and decoder; the decoder reads the phonemes that it said."""
    weights = np.load(wheel_file("g2p_en", "checkpoint20.npz"))
    case, layer = GOLDEN["g2p_en.words"], Recurrent(GRUCell(256))

    def of(side: str) -> dict[str, Any]:
        return {
            f"{kind}_{at}_l0": weights[f"{side}_{kind[0]}_{at}"]
            for kind in ("weight", "bias")
            for at in ("ih", "hh")
        }

    letters, phonemes = case["letters"], case["phonemes"]
    lengths = jnp.asarray((letters >= 0).sum(1))
    inputs = weights["enc_emb"][letters]  # -1 past a word has no effect
    _, last = outputs_of(layer, of("enc"), inputs, None, lengths)
    assert_close({"last": last}, {"last": case["last"]})
    said = np.pad(phonemes, ((0, 0), (1, 0)), constant_values=START)[:, :-1]
    outputs, _ = outputs_of(layer, of("dec"), weights["dec_emb"][said], last, None)
    heard = (np.asarray(outputs) @ weights["fc_w"].T + weights["fc_b"]).argmax(-1)
    for ours, theirs in zip(heard, phonemes, strict=True):
        length = list(theirs).index(END) + 1
        np.testing.assert_array_equal(ours[:length], theirs[:length])


@pytest.mark.slow
def test_silero_vad_hears_as_its_onnx_model_does():
    model = onnx.load(wheel_file("silero_vad", "data/silero_vad_16k_op15.onnx"))
    prefix = "model.decoder.rnn."
    weights = {
        f"{array.name.removeprefix(prefix)}_l0": numpy_helper.to_array(array)
        for array in model.graph.initializer
        if array.name.startswith(prefix)
    }
    case: Any = GOLDEN["silero_vad.audio"]
    layer = Recurrent(LSTMCell(128))
    start = to_carry(layer, {name: np.zeros((1, 2, 128), np.float32) for name in "hc"})
    outputs, last = outputs_of(layer, weights, case["inputs"], start, None)
    ours = {"outputs": outputs, "c_n": last.c}
    assert_close(ours, {name: case[name] for name in ours})
