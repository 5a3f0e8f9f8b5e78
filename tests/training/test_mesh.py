"""Runs spread over several devices: the same results, without needless communication."""

import re
import tempfile
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_tasks import Echo
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrnn.cells import GRUCell, LSTMCell
from jaxrnn.errors import SettingError
from jaxrnn.layers.functional import LSTMParams, lstm
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional
from jaxrnn.models import LanguageModel, SequenceModel
from jaxrnn.tasks.language import Language
from jaxrnn.training.calls import compile_loop, train_in_memory
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.loop import TrainLoop
from jaxrnn.training.mesh import MeshShape, shard_rows

TEXT = "".join(chr(97 + (n * n + n // 7) % 11) for n in range(900))


@cache
def text_file():
    file = Path(tempfile.mkdtemp()) / "text.txt"
    file.write_text(TEXT)
    return file


def echo(**options):
    model = SequenceModel(Recurrent(LSTMCell(6)), 4)
    return ExperimentConfig(Echo(ragged=True), model, TrainConfig(6, 0.01), seed=7, **options)


def language(**options):
    """Stateful, validated, with resets and dropout: everything that has batch rows."""
    task = Language.from_file(text_file(), batch_size=8, sequence_length=10, reset_probability=0.2)
    model = LanguageModel(Recurrent(LSTMCell(6)), task.output_size, dropout=0.2)
    train = TrainConfig(12, 0.01, validate_every=4)
    return ExperimentConfig(task, model, train, seed=3, **options)


@cache
def trained(experiment, shape, seeds=1, vmap_size=None):
    config = experiment(seeds=seeds, vmap_size=vmap_size, mesh=MeshShape.parse(shape))
    run = train_in_memory(config)
    return run.history.values, run.state


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize(("shape", "seeds"), [("seed=3", 7), ("seed=4", 4)])
def test_seeds_one_at_a_time_have_the_bits_of_one_device(shape, seeds):
    """Also if there are more seeds than devices, or the last device has fewer."""
    expected = trained(echo, "seed=1", seeds, 1)
    chex.assert_trees_all_equal(trained(echo, shape, seeds, 1), expected)
    assert len(set(expected[0]["loss"][:, -1].tolist())) == seeds


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [5, 4])
def test_spread_groups_change_rounding_only(seeds):
    """XLA simplifies divisions in another order for several devices (docs/scaling.md)."""
    values, state = trained(echo, "seed=2", seeds, 2)
    expected, expected_state = trained(echo, "seed=1", seeds, 2)
    chex.assert_trees_all_close(values, expected, rtol=1e-5)
    chex.assert_trees_all_close(state, expected_state, atol=1e-5)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("shape", ["data=4", "data=2"])
def test_spread_rows_change_rounding_only(shape):
    """Carries, resets, dropout masks and validation are those of one device."""
    expected, state = trained(language, "seed=1")
    values, spread = trained(language, shape)
    for name in ("loss", "validation_loss", "grad_norm"):
        np.testing.assert_allclose(values[name], expected[name], rtol=2e-5, err_msg=name)
    chex.assert_trees_all_close(spread.carry, state.carry, atol=1e-4)
    chex.assert_trees_all_close(spread.params, state.params, atol=1e-4)


@pytest.mark.slow
def test_seeds_and_rows_together():
    expected, _ = trained(language, "seed=1", 3, 1)
    values, _ = trained(language, "seed=2,data=2", 3, 1)
    np.testing.assert_allclose(values["loss"], expected["loss"], rtol=2e-5)


def collectives(text):
    """Return what a compiled program sends between devices: by kind, each as its text.

    Validation is left out: it runs rarely, in a `cond`, and gathers [B] losses to find the worst.
    """
    text = "\n".join(line for line in text.splitlines() if "/cond/" not in line)
    kinds = "all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter"
    found = {kind: re.findall(rf"= (.*) {kind}(?:-start)?\(", text) for kind in kinds}
    return {kind: shapes for kind, shapes in found.items() if shapes}


@pytest.mark.slow
@pytest.mark.optimized
def test_a_step_sums_the_gradients_at_once_and_gathers_nothing():
    config = language(mesh=MeshShape(data=2))
    config = replace(config, train=replace(config.train, validate_every=None))
    found = collectives(compile_loop(TrainLoop(config)).executable.as_text())
    assert found.keys() == {"all-reduce"}
    arrays = [re.findall(r"f32\[[\d,]+\]", shapes) for shapes in found["all-reduce"]]
    kernels = [each for each in arrays if each]
    assert len(kernels) == 1  # the others are sums of a few numbers, such as the loss
    leaves = jax.tree.leaves(TrainLoop(config).blank.params)
    assert len(kernels[0]) < 2 * len(leaves)


@pytest.mark.slow
@pytest.mark.optimized
def test_seeds_do_not_communicate():
    config = echo(seeds=4, vmap_size=2, mesh=MeshShape(seed=2))
    found = collectives(compile_loop(TrainLoop(config)).executable.as_text())
    assert found.keys() <= {"all-gather"}  # of the metrics, once per call
    assert all("f32[4,7" in shape or "s32[4,7" in shape for shape in found.get("all-gather", ()))


def layers():
    both = Bidirectional(Recurrent(LSTMCell(6)), Recurrent(GRUCell(6), reverse=True))
    return {
        "lstm": Recurrent(LSTMCell(6)),
        "gru": Recurrent(GRUCell(6)),
        "scan": Recurrent(LSTMCell(6), implementation="scan"),
        "both": both,
    }


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto])
@pytest.mark.parametrize("name", layers())
def test_a_layer_takes_sharded_inputs(name, kind):
    """Under the user's own mesh: the same gradients, summed at once; no row on two devices."""
    layer = layers()[name]
    inputs = jax.random.normal(jax.random.key(0), (8, 5, 3))
    lengths = jnp.array([5, 3, 0, 1, 2, 5, 4, 5])
    params = layer.init(jax.random.key(1), inputs)

    def loss(params, inputs, lengths):
        outputs, _ = layer.apply(params, inputs, lengths=lengths)
        return jnp.mean(jnp.sin(outputs))

    gradients = jax.value_and_grad(loss, argnums=(0, 1))
    expected = jax.jit(gradients)(params, inputs, lengths)
    mesh = jax.make_mesh((4,), ("rows",), (kind,))
    with jax.set_mesh(mesh):
        rows, everywhere = NamedSharding(mesh, P("rows")), NamedSharding(mesh, P())
        sharded = jax.device_put((params, inputs, lengths), (everywhere, rows, rows))
        compiled = jax.jit(gradients).lower(*sharded).compile()
        chex.assert_trees_all_close(compiled(*sharded), expected, atol=1e-6)
    found = collectives(compiled.as_text())
    assert "all-gather" not in found
    sums = [shapes for shapes in found["all-reduce"] if shapes.count("f32") > 1]
    assert len(sums) == 1  # of the parameters' gradients; XLA may sum the loss apart


def test_explicitly_sharded_rows_without_flax():
    """The outputs are sharded as the inputs are."""
    kernels = jax.random.normal(jax.random.key(1), (7, 16))
    params = LSTMParams(kernels[:3], kernels[3:], kernels[0])
    inputs = jax.random.normal(jax.random.key(0), (8, 5, 3))
    expected = lstm(params, inputs, reverse=True)
    mesh = jax.make_mesh((4,), ("rows",), (AxisType.Explicit,))
    with jax.set_mesh(mesh):
        inputs = jax.device_put(inputs, NamedSharding(mesh, P("rows")))
        result = jax.jit(partial(lstm, reverse=True))(params, inputs)
        assert jax.typeof(result[0]).sharding.spec == P("rows", None, None)
        chex.assert_trees_all_close(result, expected, atol=1e-6)


def test_explicit_sharding_that_cannot_work_is_refused():
    layer, mesh = Recurrent(LSTMCell(6)), jax.make_mesh((4,), ("n",), (AxisType.Explicit,))
    with jax.set_mesh(mesh):
        rows = jax.device_put(jnp.ones((8, 4, 3)), NamedSharding(mesh, P("n")))
        with pytest.raises(ValueError, match="need inputs that are not sharded"):
            layer.init(jax.random.key(0), rows)
        steps = jax.device_put(jnp.ones((8, 4, 3)), NamedSharding(mesh, P(None, "n")))
        with pytest.raises(ValueError, match="may be sharded over B only"):
            layer.init(jax.random.key(0), steps)


def test_rows_are_spread_under_a_mesh_only():
    batch = jnp.ones((8, 2)), None
    assert shard_rows(batch) is batch
    with jax.set_mesh(jax.make_mesh((2,), ("rows",), (AxisType.Auto,))):
        assert shard_rows(batch) is batch
    with jax.set_mesh(jax.make_mesh((2,), ("data",), (AxisType.Auto,))):
        spread = jax.jit(shard_rows)(batch)[0]
    assert spread.sharding.spec == P("data")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (MeshShape(data=3), "cannot spread 8 batch rows evenly: data may be 1, 2"),
        (MeshShape(seed=2), "only 1"),
        (MeshShape(data=8), "needs 8 devices, but JAX has 4"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(shape, message):
    with pytest.raises(SettingError, match=message):
        TrainLoop(language(mesh=shape))


@pytest.mark.parametrize("text", ["", "2", "data", "data=0", "rows=2", "data=2,", "data=2 seed=2"])
def test_a_mesh_that_cannot_be_read_is_refused(text):
    with pytest.raises(SettingError, match=r"(mesh|data) must be"):
        MeshShape.parse(text)


@pytest.mark.parametrize("text", ["data=2", "seed=4", "seed=2,data=3"])
def test_a_mesh_is_written_as_it_is_read(text):
    assert str(MeshShape.parse(text)) == text
    assert MeshShape.parse("auto") is None
