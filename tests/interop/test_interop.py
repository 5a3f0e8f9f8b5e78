"""Weights out and in again to the bit, what has no place refused, and files without holes.

That the weights mean what they mean elsewhere is in test_oracles.py.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from variants import randomised

from jaxrnn import interop
from jaxrnn.cells import ElmanCell, GRUCell, LSTMCell, MinGRUCell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional, Stack
from jaxrnn.models import SequenceModel

B, T, F, H = 2, 3, 4, 5

SYSTEMS = {
    "torch": (interop.from_torch, interop.to_torch),
    "keras": (interop.from_keras, interop.to_keras),
    "onnx": (interop.from_onnx, interop.to_onnx),
    "tf1": (interop.from_tf1, interop.to_tf1),
}


def both(cell, **options):
    forward, backward = Recurrent(cell(H, **options)), Recurrent(cell(H, **options), reverse=True)
    return Bidirectional(forward, backward)


LAYERS = {
    "lstm": lambda: Recurrent(LSTMCell(H)),
    "gru": lambda: Recurrent(GRUCell(H)),
    "rnn": lambda: Recurrent(ElmanCell(H)),
    "lstm, both directions": lambda: both(LSTMCell),
    "gru, both directions, two layers": lambda: Stack((both(GRUCell), both(GRUCell))),
    "two layers": lambda: Stack((Recurrent(LSTMCell(H)), Recurrent(LSTMCell(H + 1)))),
    "gru, reset before": lambda: Recurrent(GRUCell(H, reset_after=False)),
    "lstm, peepholes": lambda: both(LSTMCell, peepholes=True),
    "Flax's own": lambda: Stack((Recurrent(nn.OptimizedLSTMCell(H)), Recurrent(nn.LSTMCell(H)))),
}
PAIRS = [
    (system, name)
    for system in SYSTEMS
    for name in LAYERS
    if not (system == "tf1" and name not in ("lstm", "two layers", "Flax's own"))
    and not (system == "torch" and name in ("gru, reset before", "two layers"))
    and not (system != "onnx" and name == "lstm, peepholes")
]


def params_of(layer, key):
    shapes = jax.eval_shape(layer.init, key, jnp.zeros((B, T, F)))["params"]
    return jax.tree.map(np.asarray, randomised(shapes, key))


@pytest.mark.parametrize(("system", "name"), PAIRS)
def test_round_trip_is_bitwise_equal(system, name, key):
    layer, (load, save) = LAYERS[name](), SYSTEMS[system]
    params = params_of(layer, key)
    weights = save(layer, params)
    for array in jax.tree.leaves(weights):
        assert type(array) is np.ndarray
        assert array.flags.c_contiguous, "another system's writer may take the memory as it lies"
    again = load(layer, weights)
    chex.assert_trees_all_equal_shapes_and_dtypes(params, again)
    if system == "tf1":  # but for the forget bias, which is taken off and added again
        chex.assert_trees_all_close(params, again, rtol=1e-6, atol=1e-7)
    else:
        chex.assert_trees_all_equal(params, again)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float32, np.float64])
def test_loaded_params_have_the_cells_param_dtype(dtype, key):
    weights = interop.to_torch(Recurrent(LSTMCell(H)), params_of(Recurrent(LSTMCell(H)), key))
    params = interop.from_torch(Recurrent(LSTMCell(H, param_dtype=dtype)), weights)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(dtype)}


def test_torch_biases_are_summed_except_the_gru_candidates(key):
    """PyTorch adds two biases to each gate; only those of the GRU's candidate stay apart."""
    layer = Recurrent(GRUCell(H))
    weights = interop.to_torch(layer, params_of(layer, key))
    rng = np.random.default_rng(0)
    two = {side: rng.normal(size=3 * H).astype(np.float32) for side in ("bias_ih_l0", "bias_hh_l0")}
    cell = interop.from_torch(layer, weights | two)["cell"]
    r, z, n = np.split(two["bias_ih_l0"], 3)
    hidden_r, hidden_z, hidden_n = np.split(two["bias_hh_l0"], 3)
    np.testing.assert_array_equal(cell["ir"]["bias"], r + hidden_r)
    np.testing.assert_array_equal(cell["iz"]["bias"], z + hidden_z)
    np.testing.assert_array_equal(cell["in"]["bias"], n)
    np.testing.assert_array_equal(cell["hn"]["bias"], hidden_n)


@pytest.mark.parametrize("forget_bias", [0.0, 1.0, 2.5])
def test_to_tf1_subtracts_the_forget_bias(forget_bias, key):
    layer = Recurrent(LSTMCell(H))
    params = params_of(layer, key)
    ours = params["cell"]["hf"]["bias"]
    theirs = interop.to_tf1(layer, params, forget_bias)["rnn/basic_lstm_cell/bias"]
    np.testing.assert_allclose(theirs[2 * H : 3 * H], ours - forget_bias, atol=1e-6)


def torch_lstm(**changes):
    weights = {
        "weight_ih_l0": np.ones((4 * H, F)),
        "weight_hh_l0": np.ones((4 * H, H)),
        "bias_ih_l0": np.ones(4 * H),
        "bias_hh_l0": np.ones(4 * H),
    } | changes
    return {name: array for name, array in weights.items() if array is not None}


def projected(width=3):
    """Parameters of an LSTM of P = 3, with a projection of another width if there is one."""
    layer = Recurrent(LSTMCell(H, projection_size=3))
    params = params_of(layer, jax.random.key(0))
    params["cell"]["projection"]["kernel"] = np.ones((H, width), np.float32)
    return params


BAD = {
    "missing": (
        lambda: interop.from_torch(LAYERS["lstm"](), torch_lstm(weight_hh_l0=None)),
        "weights must have weight_hh_l0; those left are: bias_ih_l0, bias_hh_l0",
    ),
    "left over": (
        lambda: interop.from_torch(LAYERS["lstm"](), torch_lstm(weight_ih_l1=np.ones(3))),
        "the layer has no place for weight_ih_l1",
    ),
    "misshapen": (
        lambda: interop.from_torch(LAYERS["lstm"](), torch_lstm(weight_hh_l0=np.ones((20, 4)))),
        r"weight_hh_l0 must be \[4H, H\], that is \[20, 5\], not \[20, 4\]",
    ),
    "another rank": (
        lambda: interop.from_torch(LAYERS["lstm"](), torch_lstm(weight_ih_l0=np.ones(20))),
        r"weight_ih_l0 must be \[4H, F\], that is \[20, any\], not \[20\]",
    ),
    "no such cell": (
        lambda: interop.from_onnx(Recurrent(MinGRUCell(H)), {}),
        "ONNX has no MinGRUCell",
    ),
    "no such option": (
        lambda: interop.to_keras(Recurrent(LSTMCell(H, layer_norm=True)), {}),
        "Keras has no LSTMCell with layer_norm",
    ),
    "peepholes elsewhere": (
        lambda: interop.to_torch(Recurrent(LSTMCell(H, peepholes=True)), {}),
        "torch has no LSTMCell with peepholes",
    ),
    "torch resets after": (
        lambda: interop.to_torch(Recurrent(GRUCell(H, reset_after=False)), {}),
        "torch has no GRUCell with reset_after=False",
    ),
    "torch runs forwards": (
        lambda: interop.to_torch(Recurrent(GRUCell(H), reverse=True), {}),
        "torch has no layer that runs backwards alone",
    ),
    "BasicLSTMCell only": (
        lambda: interop.from_tf1(Recurrent(GRUCell(H)), {}),
        "BasicLSTMCell is for LSTM cells that run forwards",
    ),
    "one direction in TensorFlow": (
        lambda: interop.to_tf1(both(LSTMCell), {}),
        "BasicLSTMCell is for LSTM cells that run forwards",
    ),
    "one dictionary for two layers": (
        lambda: interop.from_keras(LAYERS["two layers"](), {}),
        "weights must be a list of 2 dictionaries, one per layer",
    ),
    "two dictionaries for one layer": (
        lambda: interop.from_onnx(LAYERS["lstm"](), [{}, {}]),
        "weights must be one dictionary, as the layer is not a Stack",
    ),
    "other parameters": (
        lambda: interop.to_keras(LAYERS["two layers"](), {"layers_1": {"cell": {}}}),
        "params must have layers_0/cell, as the layer has",
    ),
    "another cell's parameters": (
        lambda: interop.to_torch(LAYERS["gru"](), {"cell": {"ir": {}, "hr": {}, "iz": {}}}),
        "params must have hn, as a GRUCell has",
    ),
    "parameters of an option": (
        lambda: interop.to_torch(
            Recurrent(LSTMCell(H)),
            Recurrent(LSTMCell(H, peepholes=True)).init(jax.random.key(0), jnp.zeros((B, T, F)))[
                "params"
            ],
        ),
        "params have pf, which this LSTMCell does not have",
    ),
    "parameters of another size": (
        lambda: interop.to_onnx(
            Recurrent(GRUCell(H + 1)),
            Recurrent(GRUCell(H)).init(jax.random.key(0), jnp.zeros((B, T, F)))["params"],
        ),
        "params must have H = 6, as the cell has, but H = 5",
    ),
    "no such activation": (
        lambda: interop.to_torch(Recurrent(LSTMCell(H, activation_fn=nn.relu)), {}),
        "torch has no LSTMCell with this activation_fn",
    ),
    "no such residual": (
        lambda: interop.to_keras(Recurrent(ElmanCell(H, residual=True)), {}),
        "Keras has no ElmanCell with this residual",
    ),
    "two kinds of cell in one operator": (
        lambda: interop.from_onnx(
            Bidirectional(Recurrent(LSTMCell(H)), Recurrent(GRUCell(H), reverse=True)), {}
        ),
        "ONNX has one kind and size of cell",
    ),
    "two resets in one operator": (
        lambda: interop.to_onnx(
            Bidirectional(
                Recurrent(GRUCell(H)), Recurrent(GRUCell(H, reset_after=False), reverse=True)
            ),
            {},
        ),
        "ONNX has one kind and size of cell",
    ),
    "two sizes in torch": (
        lambda: interop.from_torch(LAYERS["two layers"](), {}),
        "torch has one kind and size of cell",
    ),
    "one direction above two": (
        lambda: interop.from_torch(Stack((both(GRUCell), Recurrent(GRUCell(H)))), {}),
        "torch has the same directions in all layers",
    ),
    "residual layers in torch": (
        lambda: interop.to_torch(Stack((Recurrent(GRUCell(H)),), residual=True), {}),
        "torch has no residual layers",
    ),
    "residual layers in TensorFlow": (
        lambda: interop.from_tf1(Stack((Recurrent(LSTMCell(H)),), residual=True), {}),
        "MultiRNNCell has no residual layers",
    ),
    "directions added up in torch": (
        lambda: interop.from_torch(Stack((both(GRUCell).clone(merge="sum"),)), {}),
        "torch has no merge='sum'",
    ),
    "a kernel without inputs": (
        lambda: interop.from_tf1(
            LAYERS["lstm"](),
            {
                "rnn/basic_lstm_cell/kernel": np.ones((H, 4 * H)),
                "rnn/basic_lstm_cell/bias": np.ones(4 * H),
            },
        ),
        r"kernel must have F\+H rows, more than H = 5",
    ),
    "a projection": (
        lambda: interop.from_torch(
            LAYERS["lstm"](),
            torch_lstm(weight_hh_l0=np.ones((20, 3)), weight_hr_l0=np.ones((3, H))),
        ),
        "weights have weight_hr_l0, the projection of an LSTM .* give the cell projection_size",
    ),
    "a misshapen projection": (
        lambda: interop.to_torch(Recurrent(LSTMCell(H, projection_size=3)), projected(width=2)),
        r"projection/kernel must be \[5, 3\], not \[5, 2\]",
    ),
    "hidden kernels of another projection": (
        lambda: interop.to_torch(Recurrent(LSTMCell(H, projection_size=2)), projected()),
        r"hf/kernel must be \[2, 5\], not \[3, 5\]",
    ),
    "a carry that does not start at zero": (
        lambda: interop.to_onnx(Recurrent(LSTMCell(H, carry_init=nn.initializers.ones)), {}),
        "ONNX has no LSTMCell with this carry_init",
    ),
    "a list": (
        lambda: interop.from_torch(LAYERS["lstm"](), [torch_lstm()]),  # pyright: ignore
        "weights must be a dictionary of arrays by name, not a list",
    ),
    "a model": (
        lambda: interop.to_torch(SequenceModel(LAYERS["lstm"](), 3), {}),
        "layer must be a Recurrent, Bidirectional or Stack, not a SequenceModel",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_mismatches_are_refused_with_a_message(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_file_round_trip_keeps_bits_and_dtypes(tmp_path, key):
    params = {
        "recurrent": params_of(LAYERS["gru, both directions, two layers"](), key),
        "readout": {
            "kernel": np.arange(6, dtype=np.float64).reshape(2, 3).T / 7,  # as it lies, transposed
            "bias": jax.random.normal(key, (3,), jnp.bfloat16),
        },
        "step": np.int32(7),
        "nothing": np.zeros((0, 3), np.float32),
    }
    path = tmp_path / "model.safetensors"
    interop.save_params(path, params, {"made by": "a test"})
    again = interop.load_params(path)
    chex.assert_trees_all_equal_shapes_and_dtypes(params, again)
    chex.assert_trees_all_equal(params, again)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_names_in_a_file_are_keys_joined_with_slashes(tmp_path):
    """Read as any other system does."""
    import safetensors.numpy

    interop.save_params(tmp_path / "a", {"cell": {"hf": {"bias": np.ones(2, np.float32)}}})
    assert list(safetensors.numpy.load_file(tmp_path / "a")) == ["cell/hf/bias"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"a/b": np.ones(2)}, "has a slash in a name"),
        ({"a": [np.ones(2), np.ones(2)]}, "a must be an array of a type that the file can hold"),
        ({"a": {"b": np.array(["x"])}}, "a/b must be an array of a type that the file can hold"),
    ],
    ids=["a slash", "a list", "text"],
)
def test_params_that_a_file_cannot_hold_are_refused(params, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        interop.save_params(tmp_path / "a", params)
    assert list(tmp_path.iterdir()) == []


def test_paths_may_be_strings(tmp_path):
    interop.save_params(str(tmp_path / "a"), {"b": np.ones(2)})
    np.testing.assert_array_equal(interop.load_params(str(tmp_path / "a"))["b"], np.ones(2))


def test_broken_files_are_named(tmp_path):
    whole = tmp_path / "whole"
    interop.save_params(whole, {"a": np.arange(5)})
    for name, content in {
        "short": whole.read_bytes()[:-1],
        "empty": b"",
        "text": b"not a file of numbers",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} is not a complete safetensors file"):
            interop.load_params(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        interop.load_params(tmp_path / "none")


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model"
    interop.save_params(path, {"a": np.arange(5)})
    before = path.read_bytes()

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        interop.save_params(path, {"a": np.arange(50)})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


class Leaky(LSTMCell):
    """Other equations with the same parameters."""

    def __call__(self, carry, inputs, hidden_mask=None):
        new, h = super().__call__(carry, inputs, hidden_mask)
        return new._replace(c=0.9 * new.c), h


@pytest.mark.parametrize("system", ["torch", "keras", "onnx", "tf1"])
def test_a_subclass_with_its_own_equations_is_refused(system):
    layer = Recurrent(Leaky(4))
    params = layer.init(jax.random.key(0), jnp.ones((1, 2, 3)))["params"]
    with pytest.raises(ValueError, match=r"has no Leaky \(it may differ from the LSTMCell"):
        getattr(interop, f"to_{system}")(layer, params)


class Doubled(Recurrent):
    """Other outputs with the same parameters."""

    def __call__(self, inputs, *arguments, **options):
        outputs, carry = super().__call__(inputs, *arguments, **options)
        return 2 * outputs, carry


class Alternating(Stack):
    """Other directions with the same parameters."""

    def __call__(self, inputs, *arguments, **options):
        return super().__call__(inputs[:, ::-1], *arguments, **options)


class Named(Recurrent):
    """Nothing else than its base class."""


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_layer_with_its_own_call_is_refused(system):
    save, layer = SYSTEMS[system][1], Doubled(LSTMCell(4))
    params = layer.init(jax.random.key(0), jnp.ones((1, 2, 3)))["params"]
    differs = r"not a {} \(it may differ from the {} that it extends\)"
    for outer in (
        layer,
        Stack((layer,)),
        Bidirectional(layer, Recurrent(LSTMCell(4), reverse=True)),
    ):
        with pytest.raises(ValueError, match=differs.format("Doubled", "Recurrent")):
            save(outer, params)
    with pytest.raises(ValueError, match=differs.format("Alternating", "Stack")):
        save(Alternating((Recurrent(LSTMCell(4)),)), {"layers_0": params})
    chex.assert_trees_all_equal(
        save(Named(LSTMCell(4)), params), save(Recurrent(LSTMCell(4)), params)
    )
