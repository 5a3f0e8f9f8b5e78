# pyright: reportMissingImports=false, reportMissingModuleSource=false
"""Recurrent layers as Keras 3 itself computes them on TensorFlow, in float64, forward only.

    pip install keras tensorflow-cpu && python tests/goldens/record_keras.py

writes keras_recurrent.npz beside this script. On NumPy or JAX Keras rounds to 32 bits inside a
step, whatever its floatx (`keras.ops.tanh` of float64 is float32); on TensorFlow it does not.

The keys are "case/name". The cases are a kind of layer and a form:

    {lstm, gru, gru_reset_before, rnn}.forward        one direction, zero initial state
    {lstm, gru, gru_reset_before, rnn}.bidirectional  both, their outputs side by side (concat),
                                                      and with an initial state
    {lstm, gru, gru_reset_before, rnn}.sum            the same, their outputs added up

The weights have Keras's names: kernel, recurrent_kernel, bias, of two directions after "forward/"
or "backward/". inputs [B, T, F]; lengths [B], of which the mask was made; initial_state/N and
state/N [B, H], in Keras's order (an LSTM: h, c; forward before backward); outputs [B, T, H], or
twice H side by side, zero past the lengths.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"  # both are read when Keras is imported
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

B, T, F, H = 4, 6, 4, 3
LENGTHS = np.array([4, T, 0, 2])  # not sorted; one row is all padding
KINDS = {
    "lstm": (keras.layers.LSTM, {}),
    "gru": (keras.layers.GRU, {"reset_after": True}),
    "gru_reset_before": (keras.layers.GRU, {"reset_after": False}),
    "rnn": (keras.layers.SimpleRNN, {}),
}
FORMS = {"forward": None, "bidirectional": "concat", "sum": "sum"}

Record = dict[str, np.ndarray]


def randomise(layer: Any, generator: np.random.Generator, prefix: str = "") -> Record:
    """Give a layer of one direction weights and biases of a good size; they come back by name."""
    names = [weight.name for weight in layer.weights]
    values = [0.5 * generator.normal(size=weight.shape) for weight in layer.weights]
    layer.set_weights(values)
    return {prefix + name: value for name, value in zip(names, values, strict=True)}


def case(kind: str, form: str, generator: np.random.Generator) -> Record:
    """One layer, in one direction or both, over masked rows."""
    make, options = KINDS[kind]
    layer = make(H, return_sequences=True, return_state=True, zero_output_for_mask=True, **options)
    if FORMS[form]:
        layer = keras.layers.Bidirectional(layer, merge_mode=FORMS[form])
    layer.build((B, T, F))
    record = {"inputs": generator.normal(size=(B, T, F)), "lengths": LENGTHS}
    first = None
    if FORMS[form]:
        record |= randomise(layer.forward_layer, generator, "forward/")
        record |= randomise(layer.backward_layer, generator, "backward/")
        states = 4 if kind == "lstm" else 2
        first = [generator.normal(size=(B, H)) for _ in range(states)]
        record |= {f"initial_state/{n}": state for n, state in enumerate(first)}
    else:
        record |= randomise(layer, generator)
    mask = np.arange(T) < LENGTHS[:, None]
    outputs, *last = layer(record["inputs"], mask=mask, initial_state=first)
    return record | {"outputs": outputs} | {f"state/{n}": state for n, state in enumerate(last)}


def main() -> None:
    """Compute all cases and write the file."""
    keras.config.set_floatx("float64")
    generator = np.random.default_rng(20)
    arrays: dict[str, Any] = {
        f"{kind}.{form}/{name}": np.asarray(value)
        for kind in KINDS
        for form in FORMS
        for name, value in case(kind, form, generator).items()
    }
    assert all(array.dtype in (np.float64, np.int64) for array in arrays.values())
    versions = f"keras {keras.__version__}, tensorflow {tf.__version__}, numpy {np.__version__}"
    path = Path(__file__).parent / "keras_recurrent.npz"
    np.savez_compressed(path, versions=np.array(versions), **arrays)
    print(f"{versions}: {len(arrays)} arrays, {path.stat().st_size} bytes in {path.name}")


if __name__ == "__main__":
    main()
