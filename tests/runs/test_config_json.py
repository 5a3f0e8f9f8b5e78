"""What config.json can hold comes back equal and of the same types; the rest is refused."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax.core import FrozenDict
from hypothesis import given
from hypothesis import strategies as st
from variants import VARIANTS

from jaxrnn.cells import CELLS, ElmanCell, GRUCell, LSTMCell, MinGRUCell, positive
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional, Stack
from jaxrnn.models import SequenceModel
from jaxrnn.runs.config_json import MARKS, from_json, to_json
from jaxrnn.runs.import_paths import REMEDY


def through_file(written):
    """What a strict reader makes of the JSON text: NaN and Infinity are no JSON."""
    text = json.dumps(written, allow_nan=False)
    return json.loads(text, parse_constant=pytest.fail)


def again(value):
    return from_json(through_file(to_json(value)))


keys = st.text(max_size=3) | st.sampled_from([*sorted(MARKS), "type"])
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.builds(Path, keys)
values = st.recursive(
    plain,
    lambda parts: (
        st.lists(parts, max_size=3).map(tuple)
        | st.dictionaries(keys, parts, max_size=2)
        | st.dictionaries(keys, parts, max_size=2).map(FrozenDict)
    ),
    max_leaves=8,
)


@given(values)
def test_nested_values_come_back(value):
    assert repr(again(value)) == repr(value)  # == would take 1 for True, and no nan for nan


@pytest.mark.parametrize("key", [*sorted(MARKS), "type"])
def test_an_ambiguous_dict_stays_a_dict(key):
    for value in ({key: "inf"}, {key: {key: "inf"}}, {key: {}}, {key: 1, "path": 2}):
        assert again(value) == value
        assert again(FrozenDict(value)) == value and hash(again(FrozenDict(value)))


def test_a_list_comes_back_as_a_tuple():
    assert again([1, [2], {"a": [3]}]) == (1, (2,), {"a": (3,)})


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        (np.float32(0.1), float(np.float32(0.1))),
        (np.float64(-math.inf), -math.inf),
        (jnp.bfloat16.dtype.type(1.5), 1.5),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.str_("안녕"), "안녕"),
    ],
)
def test_numpy_scalars_come_back_as_python_numbers(scalar, value):
    assert again(scalar) == value == scalar and type(again(scalar)) is type(value)


class Outer:
    @dataclass(frozen=True)
    class Inner:
        """Named with a dot."""

        size: int = 1

    @staticmethod
    def twice(x):
        """Named with a dot."""
        return 2 * x


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (nn.tanh, {"function": "jax.numpy:tanh"}),
        (nn.relu, {"function": "jax.nn:relu"}),
        (jnp.add, {"function": "jax.numpy:add"}),
        (jax.lax.tanh, {"function": "jax.lax:tanh"}),
        (nn.initializers.zeros, {"function": "flax.linen:zeros"}),
        (optax.adam, {"function": "optax:adam"}),
        (positive, {"function": "jaxrnn.cells.minimal:positive"}),
        (Outer.twice, {"function": f"{__name__}:Outer.twice"}),
        (nn.GRUCell, {"class": "flax.linen:GRUCell"}),
        (jnp.bfloat16, {"class": "jax.numpy:bfloat16"}),
        (np.float32, {"class": "numpy:float32"}),
        (bool, {"class": "builtins:bool"}),
        (Outer.Inner, {"class": f"{__name__}:Outer.Inner"}),
    ],
)
def test_functions_and_classes_by_their_public_names(value, written):
    assert to_json(value) == written
    assert again(value) is value


@pytest.mark.parametrize("name", ["float32", "bfloat16", "int4", "bool", "complex64"])
def test_dtypes(name):
    assert to_json(jnp.dtype(name)) == {"dtype": name}
    assert again(jnp.dtype(name)) == jnp.dtype(name)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings as a run has them, with what is awkward in a dataclass."""

    steps: int
    rate: float = 0.1
    clip: float = math.inf
    data: Path | None = None
    schedule: tuple[Any, ...] = ()
    name: str | None = None
    parent: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    total: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError("steps must be at least 1")
        object.__setattr__(self, "total", 2 * self.steps)


def test_a_dataclass_is_written_field_by_field():
    settings = Settings(steps=3, data=Path("a/b"), schedule=((1, 0.5), Outer.Inner(2)), parent="x")
    assert to_json(settings) == {
        "type": f"{__name__}:Settings",
        "steps": 3,
        "rate": 0.1,
        "clip": {"float": "inf"},
        "data": {"path": "a/b"},
        "schedule": [[1, 0.5], {"type": f"{__name__}:Outer.Inner", "size": 2}],
        "name": None,
        "parent": "x",
        "options": {},
    }
    assert again(settings) == settings
    assert again(Settings(steps=4)) == Settings(steps=4) != settings


OTHER = {  # than the default, for each field of a cell
    "features": 10,
    "gate_fn": nn.hard_sigmoid,
    "activation_fn": nn.gelu,
    "kernel_init": "he_uniform",
    "recurrent_kernel_init": nn.initializers.ones,
    "bias_init": nn.initializers.ones,
    "carry_init": nn.initializers.ones,
    "dtype": jnp.bfloat16,
    "param_dtype": np.dtype("float16"),
    "forget_bias": 2.5,
    "input_bias": -2.0,
    "peepholes": True,
    "layer_norm": True,
    "projection_size": 2,
    "coupled_gates": True,
    "cell_clip": 50.0,
    "reset_after": False,
    "residual": True,
    "recurrent_clip": 0.5,
    "state_size": 3,
    "min_radius": 0.5,
    "max_radius": 0.95,
    "max_phase": 0.25,
    "num_heads": 5,
    "forget_gate": "exp",
    "forget_bias_range": (1.0, 2.0),
    "name": "cell",
}


@pytest.mark.parametrize("name", CELLS)
def test_every_field_of_every_cell_is_written_and_comes_back(name):
    cell = CELLS[name](5)
    options = [each.name for each in dataclasses.fields(cell) if each.name != "parent"]
    assert set(to_json(cell)) == {"type", *options} - {"name"}
    assert again(cell) == cell
    others: dict[str, Any] = {
        name: not value if isinstance(value := getattr(cell, name), bool) else OTHER[name]
        for name in options
    }
    for option in options:
        changed = cell.clone(**{option: others[option]})
        assert changed != cell
        assert again(changed) == changed
        assert to_json(changed)["type"] == f"{type(cell).__module__}:{type(cell).__name__}"
    changed = cell.clone(**others)
    assert set(to_json(changed)) == {"type", *options}
    assert again(changed) == changed and hash(again(changed)) == hash(changed)


MODELS = {
    **{name: variant.make_layer() for name, variant in VARIANTS.items()},
    "recurrent": Recurrent(
        GRUCell(3), reverse=True, recurrent_dropout=0.5, remat_chunk_size=4, implementation="scan"
    ),
    "both": Bidirectional(Recurrent(GRUCell(3)), Recurrent(LSTMCell(3), reverse=True), merge="sum"),
    "stack": Stack(
        (Recurrent(MinGRUCell(3), name="low"), Stack((Recurrent(nn.MGUCell(3)),))),
        dropout=0.25,
        variational_dropout=True,
        residual=True,
    ),
    "model": SequenceModel(Recurrent(nn.OptimizedLSTMCell(3)), 5),
}


@pytest.mark.parametrize("name", MODELS)
def test_layers_and_models_come_back(name):
    rebuilt = again(MODELS[name])
    assert rebuilt == MODELS[name]
    same = [other for other, model in MODELS.items() if model == rebuilt]
    assert name in same and len(same) == 1


def test_a_rebuilt_model_has_the_same_parameters_to_the_bit(key):
    cell = ElmanCell(3, kernel_init="he_normal", bias_init=nn.initializers.ones)
    model = SequenceModel(Recurrent(cell, reverse=True), 2)
    inputs = jnp.ones((1, 2, 4))
    chex.assert_trees_all_equal(again(model).init(key, inputs), model.init(key, inputs))


def test_only_unnamed_defaults_are_left_out():
    written = to_json(nn.GRUCell(4))
    assert "kernel_init" not in written and "recurrent_kernel_init" not in written
    assert written["bias_init"] == {"function": "flax.linen:zeros"}
    assert again(nn.GRUCell(4)) == nn.GRUCell(4)
    with pytest.raises(TypeError, match=r"^kernel_init: variance_scaling.<locals>.init, which is"):
        to_json(nn.GRUCell(4, kernel_init=nn.initializers.lecun_normal()))


class Tied(nn.Module):
    one: nn.Module
    other: nn.Module = nn.Dense(2)


def test_modules_that_share_parameters_are_refused():
    dense = nn.Dense(2)
    assert again(Tied(dense, nn.Dense(2))) == Tied(dense, nn.Dense(2))
    with pytest.raises(ValueError, match=r"^model.other: the same module as model.one, so they sh"):
        to_json({"model": Tied(dense, dense)})
    with pytest.raises(ValueError, match=r"^\[1\].other: the same module as \[0\].other"):
        to_json([Tied(nn.Dense(1)), Tied(nn.Dense(1))])  # the default is one object


def local(x):
    def inner(y):
        return x + y

    return inner


def renamed(x):
    return x


renamed.__qualname__ = "local"


@dataclass
class Typed:
    type: str = "a"


class Twice:
    """A function that is no function, and has one that is none."""

    def __call__(self, x):
        """Called."""
        return 2 * x

    def method(self, x):
        """Bound."""
        return 2 * x


DEF = "cannot be written in config.json; define it with def at the top of its file"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda x: x, f"a lambda {DEF}"),
        (local(1), f"local.<locals>.inner, which is defined inside a function, {DEF}"),
        (Twice().method, f"the bound method Twice.method {DEF}"),
        (Twice(), f"a Twice {DEF}"),
        (partial(nn.gelu, approximate=False), f"a partial {DEF}"),
        (renamed, f"local, which is no longer what its module calls local, {DEF}"),
        (np.zeros(2), "an array cannot be written in config.json; compute it where it is used"),
        (jnp.zeros(()), "an array cannot be written in config.json; compute it where it is used"),
        ({1, 2}, "a set cannot be written in config.json; use numbers, strings,"),
        (np.complex64(1), "a complex cannot"),
        (np.longdouble(1), "a longdouble cannot"),
        (jax.lax.Precision.HIGHEST, "a Precision cannot"),
        (np.dtype(">f4"), "a Float32DType cannot"),
        ({1: 2}, "keys must be strings in config.json, not 1"),
        (Typed(), "a field must not be called type in config.json; rename it"),
    ],
)
def test_values_that_cannot_be_written_are_named(value, message):
    for whole, where in [
        (value, ""),
        ({"a": (0, value)}, "a[1]: "),
        (Settings(steps=1, schedule=(value,)), "schedule[0]: "),
    ]:
        with pytest.raises(TypeError) as raised:
            to_json(whole)
        assert str(raised.value).startswith(where + message)
    with pytest.raises(TypeError) as raised:
        to_json(FrozenDict(b=value), "model.cell")
    assert str(raised.value).startswith(f"model.cell.b: {message}")
    assert "\n" not in str(raised.value)


def test_a_class_defined_inside_a_function_is_refused():
    @dataclass
    class Local:
        size: int = 1

    message = r"^task: test_a.*<locals>.Local, which is defined inside a function, .*; define it at"
    for value in (Local(), Local):
        with pytest.raises(TypeError, match=message):
            to_json({"task": value})


SETTINGS = f"{__name__}:Settings"
MEND = f"; {REMEDY}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"type": "nosuch:Thing"}, "nosuch:Thing cannot be imported (ModuleNotFoundError: No mod"),
        ({"type": "jaxrnn.cells:Gone"}, "there is no 'Gone' in "),
        ({"class": f"{__name__}:Outer.Gone"}, f"there is no 'Outer.Gone' in {__file__}{MEND}"),
        ({"type": SETTINGS, "step": 3}, f"{SETTINGS} has no field 'step'{MEND}"),
        ({"type": SETTINGS, "steps": 3, "total": 6}, f"{SETTINGS} has no field 'total'{MEND}"),
        ({"type": "flax.linen:Dropout", "parent": None}, "flax.linen:Dropout has no field 'parent"),
        ({"type": SETTINGS}, f"{SETTINGS} cannot be created (TypeError: "),
        (
            {"type": SETTINGS, "steps": 0},
            f"{SETTINGS} cannot be created (ValueError: steps must be at least 1){MEND}",
        ),
        (
            {"type": "builtins:eval", "source": "1"},
            "builtins:eval is not a dataclass or Fl",
        ),
        ({"type": "pathlib:Path"}, "pathlib:Path is not a dataclass"),
        ({"type": "Settings"}, "Settings cannot be imported"),
        ({"type": 3}, "3 cannot be imported"),
        ({"function": ""}, " cannot be imported (ValueError: Empty module name)"),
        ({"function": ".a:b"}, ".a:b cannot be imported"),
        ({"class": None}, "None cannot be imported"),
        ({"float": "1,5"}, "'1,5' cannot be a float"),
        ({"dtype": "float33"}, "'float33' cannot be a dtype"),
        ({"dtype": None}, "None cannot be a dtype"),  # for NumPy that would be float64
        ({"dict": 3}, "3 cannot be a dict"),
    ],
)
def test_values_that_cannot_be_rebuilt_are_named(value, message):
    for whole, where in [
        (value, ""),
        ({"a": [0, value]}, "a[1]: "),
        ({"a": {"frozen_dict": {"b": value}}}, "a.b: "),
        ({"type": SETTINGS, "schedule": [value]}, "schedule[0]: "),
    ]:
        with pytest.raises(ValueError) as raised:
            from_json(whole)
        assert str(raised.value).startswith(where + message)
    with pytest.raises(ValueError) as raised:
        from_json([value], None, "task")
    assert str(raised.value).startswith(f"task[0]: {message}")
    assert "\n" not in str(raised.value)
