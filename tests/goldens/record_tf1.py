"""Record what TensorFlow 1's cells compute, into `tf1_recurrent.npz`.

    pip install tensorflow-cpu==2.15.1 && python tests/goldens/record_tf1.py

That release still has TensorFlow 1's `dynamic_rnn`, `BasicLSTMCell`, `LSTMCell` and `MultiRNNCell`,
under `tf.compat.v1`. The cases, in float64: one cell with a forget bias of its own, two cells of
different sizes, and an `LSTMCell` that clips its cell state, plain, with peepholes, and with a
projection. By case: each variable by its name, inputs [B, T, F], lengths [B], outputs [B, T, H],
zero past the lengths, and by layer n the states `c_n` and `h_n` [B, H] before the first step and,
as `last_c_n` and `last_h_n`, after the last. Of a projection to P, outputs and h have P, not H.
"""

# pyright: reportMissingImports=false, reportMissingModuleSource=false
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

TARGET = Path(__file__).parent / "tf1_recurrent.npz"
B, T, F = 3, 6, 4
v1 = tf.compat.v1
CLIP = {"num_units": 3, "cell_clip": 0.3}  # small, so that it clips often
CASES = {  # by layer; new ones come last, so that the numbers of the others stay
    "one": ("BasicLSTMCell", [{"num_units": 3, "forget_bias": 0.5}]),
    "two": ("BasicLSTMCell", [{"num_units": 3}, {"num_units": 5}]),
    "clip": ("LSTMCell", [CLIP]),
    "clip_peepholes": ("LSTMCell", [CLIP | {"use_peepholes": True}]),
    "clip_projection": ("LSTMCell", [CLIP | {"num_proj": 2}]),
}


def record(
    kind: str, cells: list[dict[str, Any]], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Run one case on random weights, inputs and states."""
    inputs, lengths = rng.normal(size=(B, T, F)), np.array([6, 2, 4])
    rnn = v1.nn.rnn_cell
    layers = [getattr(rnn, kind)(**options, dtype=tf.float64) for options in cells]
    states = [[rng.normal(size=(B, size)) for size in layer.state_size] for layer in layers]
    with tf.Graph().as_default(), v1.Session() as session:
        initial = tuple(rnn.LSTMStateTuple(*map(tf.constant, state)) for state in states)
        cell, first = (
            (layers[0], initial[0]) if len(layers) == 1 else (rnn.MultiRNNCell(layers), initial)
        )
        outputs, last = v1.nn.dynamic_rnn(cell, tf.constant(inputs), lengths, first)
        session.run(v1.global_variables_initializer())
        weights = {}
        for variable in v1.trainable_variables():
            weights[variable.name.removesuffix(":0")] = rng.normal(size=variable.shape) / 2
            variable.load(weights[variable.name.removesuffix(":0")], session)
        outputs, last = session.run((outputs, last))
    arrays = {"inputs": inputs, "lengths": lengths, "outputs": outputs, **weights}
    for n, (state, end) in enumerate(zip(states, last if len(layers) > 1 else [last], strict=True)):
        arrays |= {f"c_{n}": state[0], f"h_{n}": state[1]}
        arrays |= {f"last_c_{n}": end.c, f"last_h_{n}": end.h}
    return arrays


def main() -> None:
    """Record every case."""
    warnings.simplefilter("ignore")  # all of it is deprecated there
    v1.logging.set_verbosity(v1.logging.ERROR)
    v1.disable_eager_execution()
    rng = np.random.default_rng(777)
    arrays: dict[str, Any] = {
        f"{case}/{name}": array
        for case, (kind, cells) in CASES.items()
        for name, array in record(kind, cells, rng).items()
    }
    arrays["versions"] = np.array(f"tensorflow {tf.__version__}, numpy {np.__version__}")
    np.savez_compressed(TARGET, **arrays)
    print(f"{len(arrays)} arrays in {TARGET}, {arrays['versions']}")


if __name__ == "__main__":
    main()
