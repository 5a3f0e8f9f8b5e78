"""Every mistake is refused with a sentence that names the argument and, of a shape, its axes.

The library's own line raises it, so that nobody has to read what JAX or Flax say of shapes further
in; and it is the same from `init`, from `apply` and inside `jit`.
"""

from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxrnn
from jaxrnn.cells import CELLS, ElmanCell, GRUCell, LSTMCarry, LSTMCell, MinGRUCell
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional, BidirectionalCarry, Stack
from jaxrnn.models import SequenceModel

B, T, F, H = 2, 5, 3, 4  # no two alike
X: Any = np.zeros((B, T, F), np.float32)
ZERO: Any = np.zeros((B, H), np.float32)
KEY = jax.random.key(0)


def lstm(hidden=H, **options):
    return Recurrent(LSTMCell(hidden), **options)


def both(backward=H, **options):
    return Bidirectional(lstm(), Recurrent(GRUCell(backward), reverse=True), **options)


LAYERS = {
    "lstm": lstm(),
    "gru": Recurrent(GRUCell(H), reverse=True, remat_chunk_size=2),
    "mingru": Recurrent(MinGRUCell(H), implementation="associative_scan"),
    "both": both(),
    "stack": Stack((lstm(), both())),
}
any_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
in_any_way = pytest.mark.parametrize("how", ["init", "apply", "jit"])


def each(names, table):
    """A test of each line of a table, called by the message that stands last in it."""
    return pytest.mark.parametrize(names, table, ids=[line[-1] for line in table])


@cache
def variables_of(layer):
    """Zeros of the right shapes."""
    return jax.tree.map(jnp.zeros_like, jax.eval_shape(layer.init, KEY, X))


def call(how, layer, inputs=X, **options) -> Any:
    """Call a layer in one of three ways."""
    if how == "init":
        return layer.init(KEY, inputs, **options)
    apply = jax.jit(layer.apply) if how == "jit" else layer.apply
    return apply(variables_of(layer), inputs, **options)


def refused(error, message, function, *arguments, **options):
    """See that the library itself refuses a call, and that it says so among other things."""
    with pytest.raises((TypeError, ValueError)) as caught:
        function(*arguments, **options)
    assert message in str(caught.value)
    assert type(caught.value) in ((ValueError, SettingError) if error is ValueError else (error,))
    assert caught.value.__context__ is None
    last = caught.traceback[-1]
    assert Path(jaxrnn.__file__).parent in Path(last.path).parents
    assert str(last.statement).lstrip().startswith("raise ")


SHAPES = [
    ("inputs", X[0], "inputs must be [B, T, F], but its shape is (5, 3)"),
    ("inputs", X[None], "inputs must be [B, T, F], but its shape is (1, 2, 5, 3)"),
    ("inputs", X[:, :0], "inputs must have at least one time step, but T = 0"),
    ("lengths", np.array(3), "lengths must be [B], but its shape is ()"),
    ("lengths", np.array([[3], [2]]), "lengths must be [B], but its shape is (2, 1)"),
    ("lengths", np.array([1]), "lengths must be [B] with B = 2, but its shape is (1,), so B = 1"),
    ("resets", X[0, :, 0] > 0, "resets must be [B, T], but its shape is (5,)"),
    ("resets", X[:, :3, 0] > 0, "resets must be [B, T] with T = 5, but its shape is (2, 3)"),
    ("resets", X[:1, :, 0] > 0, "resets must be [B, T] with B = 2, but its shape is (1, 5)"),
]
KINDS = [
    ("inputs", X.astype(int), "inputs must be floating, not int"),
    ("inputs", X > 0, "inputs must be floating, not bool"),
    ("lengths", np.array([3.0, 2.0]), "lengths must be integer, not float"),
    ("lengths", np.array([True, False]), "lengths must be integer, not bool"),
    ("resets", X[..., 0], "resets must be bool, not float"),
    ("resets", X[..., 0].astype(int), "resets must be bool, not int"),
]


@in_any_way
@any_layer
@each("error, argument, value, message", [(ValueError, *line) for line in SHAPES])
def test_another_shape(error, argument, value, message, layer, how):
    refused(error, message, call, how, layer, **{argument: value})


@in_any_way
@any_layer
@each("argument, value, message", KINDS)
def test_another_dtype(argument, value, message, layer, how):
    refused(TypeError, message, call, how, layer, **{argument: value})


@pytest.mark.parametrize("how", ["init", "apply"])
@any_layer
@each("lengths, message", [([2, -1], "lengths[1] is -1"), ([T + 1, -1], "lengths[0] is 6")])
def test_a_length_out_of_range(lengths, message, layer, how):
    message = "lengths must be from 0 to T = 5, but " + message
    refused(ValueError, message, call, how, layer, lengths=np.array(lengths))


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("implementation", ["scan", "associative_scan"])
def test_under_jit_lengths_are_clamped(implementation, reverse):
    layer: Any = Recurrent(
        MinGRUCell(H), reverse=reverse, remat_chunk_size=2, implementation=implementation
    )
    rng = np.random.default_rng(20)
    variables, inputs, start = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), (variables_of(layer), X, ZERO)
    )
    apply = jax.jit(layer.apply)
    got = apply(variables, inputs, start, lengths=np.array([-3, T + 4]))
    wanted = apply(variables, inputs, start, lengths=np.array([0, T]))
    jax.tree.map(np.testing.assert_array_equal, got, wanted)
    np.testing.assert_array_equal(got[1][0], start[0])
    assert got[0][1].all()


PAIR = LSTMCarry(ZERO, ZERO)
CARRIES = [
    ("lstm", ZERO, "initial_carry must be LSTMCarry(c, h)"),
    ("lstm", (ZERO, ZERO), "initial_carry must be LSTMCarry(c, h)"),
    (
        "lstm",
        PAIR._replace(c=None),
        "as the layer's cell makes it, not LSTMCarry(c=None, h)",
    ),
    ("lstm", PAIR._replace(c=ZERO[:1]), "initial_carry.c must be [B, H] with B = 2"),
    ("lstm", PAIR._replace(h=ZERO[:, :3]), "initial_carry.h must be [B, H] with H = 4"),
    ("lstm", PAIR._replace(h=ZERO[0]), "initial_carry.h must be [B, H], but its shape is (4,)"),
    ("gru", PAIR, "initial_carry must be one array of shape (2, 4), as the layer's cell makes it"),
    ("mingru", ZERO[:1], "initial_carry must be [B, H] with B = 2"),
    ("mingru", ZERO[:, :3], "initial_carry must be [B, H] with H = 4"),
    ("both", PAIR, "initial_carry must be a BidirectionalCarry, not LSTMCarry(c, h)"),
    ("both", (PAIR, ZERO), "initial_carry must be a BidirectionalCarry, not a tuple of 2"),
    ("both", (), "initial_carry must be a BidirectionalCarry, not a tuple of 0"),
    ("both", ZERO, "initial_carry must be a BidirectionalCarry, not one array of shape (2, 4)"),
    ("both", BidirectionalCarry(ZERO, PAIR), "initial_carry must be LSTMCarry(c, h)"),
    ("stack", (PAIR,), "initial_carry must be a tuple of 2, one per layer, not a tuple of 1"),
    ("stack", np.stack([ZERO, ZERO]), "a tuple of 2, one per layer, not one array of shape"),
    ("stack", (PAIR, PAIR), "initial_carry must be a BidirectionalCarry, not LSTMCarry(c, h)"),
]


@in_any_way
@each("name, carry, message", CARRIES)
def test_another_carry(name, carry, message, how):
    refused(ValueError, message, call, how, LAYERS[name], initial_carry=carry)


@in_any_way
def test_a_stack_names_the_layer(how):
    stack = Stack((lstm(), Stack((lstm(), lstm(), Recurrent(GRUCell(H))))))
    carry = (PAIR, (PAIR, PAIR, PAIR))
    with pytest.raises(ValueError, match="initial_carry must be one array") as caught:
        call(how, stack, initial_carry=carry)
    assert caught.value.__notes__[:2] == ["in layer 3 of 3", "in layer 2 of 2"]


@in_any_way
@each(
    "name, carry, message",
    [
        ("lstm", PAIR._replace(h=ZERO.astype(np.int32)), "initial_carry.h must be float32, as the"),
        ("lstm", PAIR._replace(c=ZERO > 0), "initial_carry.c must be float32, as the cell's carry"),
        ("gru", ZERO.astype(jnp.bfloat16), "as the cell's carry is, not bfloat16"),
        ("mingru", ZERO.astype(jnp.bfloat16), "initial_carry must be float32, as the cell's"),
    ],
)
def test_a_carry_of_another_dtype(name, carry, message, how):
    refused(TypeError, message, call, how, LAYERS[name], initial_carry=carry)


@pytest.mark.parametrize("name", LAYERS)
def test_a_carry_that_cannot_hold_the_new_dtype(name):
    """Wide inputs and narrow parameters: the step's numbers are not rounded without a word."""
    message = "the carry is float32, but a step makes it float64: give the cell param_dtype"
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):  # Flax's Dense needs it
        refused(TypeError, message, call, "apply", LAYERS[name], X.astype(np.float64))


def test_a_traced_option():
    drop_h = Recurrent(LSTMCell(H), recurrent_dropout=0.5)
    for layer in drop_h, Stack((lstm(), lstm()), dropout=0.5):
        message = "deterministic must be True or False, but is a traced array"
        refused(TypeError, message, call, "jit", layer, deterministic=False)


FLAX = {cell.__name__: cell for cell in (nn.LSTMCell, nn.GRUCell, nn.SimpleCell, nn.MGUCell)}


@pytest.mark.parametrize("how", ["apply", "jit"])
@pytest.mark.parametrize("name", CELLS | FLAX)
def test_parameters_of_another_size(name, how):
    layer: Any = Recurrent((CELLS | FLAX)[name](H))
    larger = Recurrent((CELLS | FLAX)[name](H + 3))
    message = "inputs must have F = 3, as the parameters have, but F = 2"
    refused(ValueError, message, call, how, layer, X[..., :2])
    apply = jax.jit(larger.apply) if how == "jit" else larger.apply
    message = "params must have H = 7, as the cell has, but H = 4"
    refused(ValueError, message, apply, variables_of(layer), X)


class LeakySum(nn.RNNCellBase):
    """A cell that calls its parameter as the cells here call a matrix."""

    @nn.compact
    def __call__(self, carry, inputs):
        h = carry * self.param("i", nn.initializers.ones, (1, 1)) + inputs
        return h, h

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        return jnp.zeros(input_shape)


def test_a_cell_may_name_its_parameters_freely():
    outputs, _ = call("apply", Recurrent(LeakySum()), X + 1)
    np.testing.assert_array_equal(outputs, X + 1)  # the parameter is zero


@in_any_way
@each(
    "layer, message",
    [
        (Stack((lstm(), lstm(5)), residual=True), "the outputs of layer 2 must be [B, T, H] with"),
        (both(backward=5, merge="sum"), "the backward outputs to sum must be [B, T, H] with H = 4"),
    ],
)
def test_outputs_that_cannot_be_added(layer, message, how):
    refused(ValueError, message, call, how, layer)


once, at_once = lstm(), "associative_scan"
turned = once.clone(reverse=True)  # with the same cell object
drop_h = partial(Recurrent, recurrent_dropout=0.5)
PARTS = [
    (lstm, {"recurrent_dropout": 1.0}, "recurrent_dropout must be from 0 to less than 1, not 1.0"),
    (lstm, {"recurrent_dropout": -0.1}, "recurrent_dropout must be from 0 to less than 1, not -0"),
    (lstm, {"recurrent_dropout": np.nan}, "recurrent_dropout must be from 0 to less than 1, not n"),
    (drop_h, {"cell": nn.MGUCell(H)}, "recurrent_dropout must be 0: MGUCell takes no hidden_mask"),
    (drop_h, {"cell": MinGRUCell(H)}, "recurrent_dropout must be 0: MinGRUCell takes no hidden_m"),
    (
        lstm,
        {"remat_chunk_size": 0},
        "remat_chunk_size must be a whole number from 1 or None, not 0",
    ),
    (
        lstm,
        {"remat_chunk_size": -2},
        "remat_chunk_size must be a whole number from 1 or None, not -2",
    ),
    (
        lstm,
        {"remat_chunk_size": 2.5},
        "remat_chunk_size must be a whole number from 1 or None, not 2.5",
    ),
    (Recurrent, {"cell": LSTMCell}, "cell must be a Flax cell, such as LSTMCell(8), not <class"),
    (Stack, {"layers": lstm()}, "layers must be a tuple of one"),
    (Stack, {"layers": (LSTMCell(H),)}, "a layer must be one such as Recurrent(cell), not of type"),
    (SequenceModel, {"recurrent": LSTMCell(H), "output_size": 3}, "not of type LSTMCell"),
    (
        SequenceModel,
        {"recurrent": 3, "output_size": lstm()},
        "such as Recurrent(cell), not of type ",
    ),
    (lstm, {"hidden": 0}, "LSTMCell must have a whole number of features from 1, not 0"),
    (lstm, {"hidden": "8"}, "LSTMCell must have a whole number of features from 1, not '8'"),
    (lstm, {"recurrent_dropout": None}, "recurrent_dropout must be from 0 to less than 1, not Non"),
    (
        Bidirectional,
        {"forward": LSTMCell(H), "backward": LSTMCell(H)},
        "a layer must be one such as Recurrent(cell), not of ",
    ),
    (
        lstm,
        {"implementation": "unknown"},
        "must be one of auto, scan, fused, associative_scan",
    ),
    (lstm, {"implementation": at_once}, "associative_scan is for a LinearCell; LSTMCell must be"),
    (both, {"merge": "unknown"}, "merge must be concat or sum, not 'unknown'"),
    (Bidirectional, {"forward": lstm(), "backward": lstm()}, "backward reverse=True"),
    (Bidirectional, {"forward": both().backward, "backward": lstm()}, "forward must have reverse"),
    (Bidirectional, {"forward": both().backward, "backward": both().backward}, "reverse=False"),
    (Stack, {"layers": ()}, "layers must be a tuple of one layer or more"),
    (Stack, {"layers": (once, lstm(), once)}, "every layer needs its own cell object"),
    (
        Stack,
        {"layers": (once, Stack((lstm(), once)))},
        "every layer needs its own cell object",
    ),
    (Stack, {"layers": (once, turned)}, "every layer needs its own cell object"),
    (Bidirectional, {"forward": once, "backward": turned}, "every layer needs its own cell object"),
    (Stack, {"layers": (once,), "dropout": 1.0}, "dropout must be from 0 to less than 1, not 1.0"),
    (Stack, {"layers": (once,), "dropout": -1.0}, "dropout must be from 0 to less than 1, not -1"),
]


@each("make, attributes, message", PARTS)
def test_unsupported_layers_are_refused_at_init(make, attributes, message):
    refused(ValueError, message, make, **attributes)


@pytest.mark.parametrize("how", ["init", "jit"])
@each(
    "cell, options, message",
    [
        (
            LSTMCell,
            {"kernel_init": "glorot"},
            "initializer must be one of glorot",
        ),
        (
            GRUCell,
            {"recurrent_kernel_init": "eye"},
            "initializer must be one of glorot",
        ),
        (
            ElmanCell,
            {"recurrent_kernel_init": "one"},
            "initializer must be one of glorot",
        ),
        (
            MinGRUCell,
            {"kernel_init": "normal"},
            "initializer must be one of glorot",
        ),
    ],
)
def test_an_unknown_initializer(cell, options, message, how):
    layer = Recurrent(cell(H, **options))
    init = jax.jit(layer.init) if how == "jit" else layer.init
    refused(ValueError, message, init, KEY, X)
