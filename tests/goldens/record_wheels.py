# pyright: reportMissingImports=false
"""Record what two packages compute with the trained weights that their wheels carry.

    pip install --no-deps g2p-en==2.1.0 silero-vad==6.2.3 && pip install onnx onnxruntime
    python tests/goldens/record_wheels.py

writes wheels_recurrent.npz beside this script. g2p-en is run by its own NumPy code, silero-vad by
its ONNX model in onnxruntime; both are in float32. Keys: `versions`, and by case:

    g2p_en.{encoder, decoder}   g2p-en's GRU with the first H = 32 units and inputs of its weights
    silero_vad.lstm             silero-vad's model, the weights of other units and inputs set to
                                zero, so that these units stay at zero
    g2p_en.words                the whole network: `letters` [W, T], -1 past a word, `last`
                                [W, 256], the encoder's last state, and `phonemes` [W, 20], END past
                                the last
    silero_vad.audio            the whole network

The names are PyTorch's: weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0 of the cut weights;
inputs [B, T, F], outputs [B, T, H], h_0 and c_n [B, H]. The whole networks' weights are too large
to be kept here: tests read them from the wheels, where these are installed.
"""

import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

H = 32
END = 3
WORDS = ("activationist", "jaxrnn", "recurrence", "zyzzyva")
SAMPLES, CONTEXT, CHUNKS = 512, 64, 12  # silero-vad's at 16 kHz; T
MODEL = "silero_vad_16k_op15.onnx"
ENCODED = "/model/encoder/3/activation/Relu_output_0"  # [B, 128, 1]: what the LSTM sees
CELL = "model.decoder.rnn."

Arrays = dict[str, Any]


def folder(package: str) -> Path:
    """Where a package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    assert spec and spec.origin
    return Path(spec.origin).parent


def cut(weight: np.ndarray, gates: int) -> np.ndarray:
    """The first H units of each gate and, in a matrix, the first H columns."""
    each = weight.reshape(gates, -1, *weight.shape[1:])
    return each[:, :H, :H].reshape(gates * H, -1) if weight.ndim == 2 else each[:, :H].ravel()


def g2p_en() -> dict[str, Arrays]:
    """Its NumPy code; what it imports besides serves sentences, and downloads data."""
    absent = ("nltk", "nltk.corpus", "nltk.tokenize", "inflect")
    with mock.patch.dict(sys.modules, {name: mock.MagicMock() for name in absent}):
        from g2p_en.g2p import G2p

        g2p = G2p()
    letters = np.full((len(WORDS), max(map(len, WORDS)) + 1), -1)
    phonemes, last = np.full((len(WORDS), 20), END), []
    for row, word in enumerate(WORDS):
        letters[row, : len(word) + 1] = [*(g2p.g2idx[letter] for letter in word), g2p.g2idx["</s>"]]
        said = [g2p.p2idx[name] for name in g2p.predict(word)]
        phonemes[row, : len(said)] = said
        weights = [getattr(g2p, f"enc_{name}") for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
        last.append(g2p.gru(g2p.encode(word), len(word) + 1, *weights)[0, -1])
    cases = {"words": {"letters": letters, "phonemes": phonemes, "last": np.array(last)}}
    state = np.zeros((3, H), np.float32)
    for side, name, steps in (("enc", "encoder", 8), ("dec", "decoder", 6)):
        weights = {
            f"{long}_l0": cut(getattr(g2p, f"{side}_{short}"), 3)
            for long, short in zip(
                ("weight_ih", "weight_hh", "bias_ih", "bias_hh"),
                ("w_ih", "w_hh", "b_ih", "b_hh"),
                strict=True,
            )
        }
        table = getattr(g2p, f"{side}_emb")
        inputs = table[np.arange(3 * steps).reshape(3, steps) + 3, :H]
        outputs = g2p.gru(inputs, steps, *weights.values(), h0=state)
        cases[name] = weights | {"inputs": inputs, "h_0": state, "outputs": outputs}
        state = outputs[:, -1]
    return {f"g2p_en.{name}": arrays for name, arrays in cases.items()}


def run_silero(model: onnx.ModelProto, audio: np.ndarray) -> Arrays:
    """The inputs and states of its LSTM, for audio [B, CONTEXT + CHUNKS * SAMPLES]."""
    session: Any = onnxruntime.InferenceSession(model.SerializeToString())
    state = np.zeros((2, len(audio), 128), np.float32)
    inputs, states = [], []
    for start in range(0, CHUNKS * SAMPLES, SAMPLES):
        piece = audio[:, start : start + CONTEXT + SAMPLES]
        feed = {"input": piece, "state": state, "sr": np.array(16000)}
        encoded, state = session.run([ENCODED, "stateN"], feed)
        inputs.append(encoded[:, :, 0])
        states.append(state)
    outputs = np.stack([h for h, _ in states], axis=1)
    return {"inputs": np.stack(inputs, axis=1), "outputs": outputs, "c_n": state[1]}


def silero_vad() -> dict[str, Arrays]:
    """Its ONNX model. The wheel's safetensors file has weights of another training."""
    model = onnx.load(folder("silero_vad") / "data" / MODEL)
    model.graph.output.append(helper.make_tensor_value_info(ENCODED, onnx.TensorProto.FLOAT, None))
    rng, time = np.random.default_rng(20), np.arange(CONTEXT + CHUNKS * SAMPLES) / 16000
    tones = [np.sin(2 * np.pi * pitch * time) * np.sin(9 * time) for pitch in (140, 220)]
    audio = (0.3 * np.array(tones) + 0.02 * rng.standard_normal((2, time.size))).astype(np.float32)
    cases = {"silero_vad.audio": run_silero(model, audio)}

    kept = {}
    for array in model.graph.initializer:
        if array.name.startswith(CELL):
            name, value = array.name.removeprefix(CELL), numpy_helper.to_array(array)
            kept[f"{name}_l0"] = cut(value, 4)
            masked = np.zeros_like(value).reshape(4, -1, *value.shape[1:])
            masked[:, :H, *[slice(H)] * (value.ndim - 1)] = kept[f"{name}_l0"].reshape(
                4, H, *[H] * (value.ndim - 1)
            )
            array.CopyFrom(numpy_helper.from_array(masked.reshape(value.shape), array.name))
    assert len(kept) == 4
    results = run_silero(model, audio)
    assert not results["outputs"][..., H:].any()
    cases["silero_vad.lstm"] = kept | {name: array[..., :H] for name, array in results.items()}
    return cases


def main() -> None:
    """Record all cases."""
    files = [folder("g2p_en") / "checkpoint20.npz", folder("silero_vad") / "data" / MODEL]
    made_with = [f"{package.__name__} {package.__version__}" for package in (np, onnxruntime)]
    sums = [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]
    arrays: Arrays = {"versions": ", ".join(["g2p-en 2.1.0, silero-vad 6.2.3", *made_with, *sums])}
    for case, named in (g2p_en() | silero_vad()).items():
        arrays |= {f"{case}/{name}": array for name, array in named.items()}
    np.savez_compressed(Path(__file__).with_name("wheels_recurrent.npz"), **arrays)


if __name__ == "__main__":
    main()
