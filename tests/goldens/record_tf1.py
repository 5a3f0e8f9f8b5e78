"""Record what TensorFlow 1's cells compute, into `tf1_recurrent.npz`.

    pip install tensorflow-cpu==2.15.1 && python tests/goldens/record_tf1.py

That release still has TensorFlow 1's `dynamic_rnn`, `BasicLSTMCell` and `MultiRNNCell`, under
`tf.compat.v1`. Two cases, in float64: one cell with a forget bias of its own, and two cells of
different sizes. By case: each variable by its name, inputs [B, T, F], lengths [B], outputs
[B, T, H], zero past the lengths, and by layer n the states `c_n` and `h_n` [B, H] before the first
step and, as `last_c_n` and `last_h_n`, after the last.
"""

# pyright: reportMissingImports=false, reportMissingModuleSource=false
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

TARGET = Path(__file__).parent / "tf1_recurrent.npz"
B, T, F = 3, 6, 4
CASES = {"one": [(3, 0.5)], "two": [(3, 1.0), (5, 1.0)]}  # by layer, H and the forget bias
v1 = tf.compat.v1


def record(cells: list[tuple[int, float]], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Run one case on random weights, inputs and states."""
    inputs, lengths = rng.normal(size=(B, T, F)), np.array([6, 2, 4])
    rnn = v1.nn.rnn_cell
    layers = [rnn.BasicLSTMCell(h, forget_bias=bias, dtype=tf.float64) for h, bias in cells]
    states = [(rng.normal(size=(B, h)), rng.normal(size=(B, h))) for h, _ in cells]
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
        for case, cells in CASES.items()
        for name, array in record(cells, rng).items()
    }
    arrays["versions"] = np.array(f"tensorflow {tf.__version__}, numpy {np.__version__}")
    np.savez_compressed(TARGET, **arrays)
    print(f"{len(arrays)} arrays in {TARGET}, {arrays['versions']}")


if __name__ == "__main__":
    main()
