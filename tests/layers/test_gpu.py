"""The layers and trainings on a GPU, where they are skipped without one: `pytest -m gpu`.

Products of float32 are in float32 here (`full_precision` in conftest.py), not in TF32. All but the
cases of cuDNN could run on a CPU.
"""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import hihello
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import test_golden
from suites import lab, language
from variants import assert_close, gradients, randomised

from jaxrnn.cells import CELLS, LSTMCell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional
from jaxrnn.models import SequenceModel
from jaxrnn.tasks.adding import Adding
from jaxrnn.training.calls import train_in_memory
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.optimizer import OPTIMIZERS

pytestmark = [pytest.mark.gpu, pytest.mark.optimized]

HERE = Path(__file__).parent
LSTM, GRU = ("fused", "scan", "cudnn"), ("fused", "scan")
EACH = [*(("lstm", name) for name in LSTM), *(("gru", name) for name in GRU)]
B, T, F, H = 8, 100, 24, 64
LENGTHS = jnp.array([T, 1, 0, 17, T, 99, 50, 3])

SEEDS = 10
LOSS = 5e-5
"""How far a loss of hihello may be from the CPU's over its 50 steps.

On a CPU, initial weights that are off by a random 1e-6 of themselves, more than float32's rounding,
change a loss by up to 1.4e-6, and 1e-5 by up to 1.6e-5; TF32's 5e-4 would be found.
"""


@pytest.mark.parametrize("form", ["single", "stacked"])
@pytest.mark.parametrize(("kind", "implementation"), EACH)
def test_layers_equal_pytorchs_recorded_numbers(kind, implementation, form):
    """Outputs, last carry and gradients; stacked: two bidirectional layers over padded rows."""
    oracles = pytest.importorskip("test_oracles", reason="it imports onnx")
    oracles.check_torch(kind, form, None, np.float32, 3, implementation=implementation)


@pytest.mark.parametrize("implementation", LSTM)
def test_every_loss_and_prediction_equals_tensorflows(implementation):
    """With TensorFlow's Adam; on the CPU the same losses are within 1e-5."""
    model = SequenceModel(
        Recurrent(LSTMCell(test_golden.H), implementation=implementation), test_golden.V
    )
    with np.load(test_golden.GOLDEN) as golden:
        for optimizer, atol in ((OPTIMIZERS["adam-tf1"](0.1), LOSS), (optax.adam(0.1), 2.5e-4)):
            losses, predictions, _ = test_golden.trace(golden, optimizer, model)
            np.testing.assert_allclose(losses, golden["loss"], atol=atol, rtol=0)
            np.testing.assert_array_equal(predictions, golden["prediction"])


@cache
def results(kind, implementation, direction, padded):
    """`gradients` of a layer; each implementation has the same weights, inputs and carry."""
    ahead, back = (
        Recurrent(CELLS[kind](H), reverse=reverse, implementation=implementation)
        for reverse in (False, True)
    )
    layers = {"forward": ahead, "reverse": back, "bidirectional": Bidirectional(ahead, back)}
    layer, keys = layers[direction], jax.random.split(jax.random.key(20), 3)
    inputs = jax.random.normal(keys[0], (B, T, F))
    (_, carry), params = layer.init_with_output(keys[1], inputs)
    noise = randomised(params, keys[1])  # so that no bias is zero
    params = jax.tree.map(lambda leaf, more: leaf + 0.1 * more, params, noise)
    carry = randomised(carry, keys[2])
    return jax.device_get(gradients(layer, params, inputs, carry, LENGTHS if padded else None))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("kind", "implementation"), [("lstm", "scan"), ("lstm", "cudnn"), ("gru", "scan")]
)
def test_fused_layers_equal(kind, implementation, direction, padded):
    """In values and gradients; on a CPU the fused and the scanned are within 2e-6."""
    actual = results(kind, implementation, direction, padded)
    assert_close(actual, results(kind, "fused", direction, padded), tolerance=3e-5)


def train_hihello():
    """Losses [S, N+1] of hihello, and whether each network was right at the end, [S]."""
    config = hihello.make_config(hihello.Config(seeds=SEEDS))
    values = train_in_memory(replace(config, vmap_size=SEEDS)).history.values
    return np.asarray(values["loss"]), np.asarray(values["correct"])[:, -1]


def run_apart(function, environment, **settings):
    """What a function of this module prints as JSON, in a new process with these variables."""
    paths = [str(HERE), str(HERE.parent), str(HERE.parent.parent / "experiments")]
    code = f"import sys; sys.path[:0] = {paths}; import test_gpu; test_gpu.{function}()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | settings,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def print_losses():
    print(json.dumps(train_hihello()[0].tolist()))


def test_hihello_learns_with_the_losses_of_a_cpu(environment):
    losses, learned = train_hihello()
    assert learned.shape == (SEEDS,) and learned.all()
    on_cpu = np.array(run_apart("print_losses", environment, JAX_PLATFORMS="cpu"))
    np.testing.assert_allclose(losses, on_cpu, rtol=0, atol=LOSS)


FLAGS = ("--xla_gpu_deterministic_ops=true", "--xla_gpu_exclude_nondeterministic_ops=true")


def digest(*trees):
    """One number for all bits of the arrays."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(jax.device_get(trees)):
        total.update(np.ascontiguousarray(leaf).tobytes())
    return total.hexdigest()[:16]


def print_digests():
    """Train networks as a user does, in TF32, and print the digests of the results as JSON.

    A language model's first layer picks rows of its kernel, so that the gradient is a scatter,
    which may add in any order on a GPU.
    """
    digests = {"hihello": digest(train_in_memory(lab.hihello_config(SEEDS)).history.values)}
    with language.random_config((2, 128, 50)) as (_, experiment):
        run = language.losses(experiment, 100)
        digests["language model"] = digest([next(run), next(run)])
    if jax.default_backend() == "gpu":
        digests["cuDNN"] = digest(train_adding("cudnn").state.params)
    print(json.dumps(digests))


def train_adding(implementation):
    """A run of the adding problem with a layer of that implementation."""
    layer = Recurrent(LSTMCell(128), implementation=implementation)
    return train_in_memory(
        ExperimentConfig(Adding(50, batch_size=64), SequenceModel(layer, 1), TrainConfig(steps=50))
    )


def differing(environment, **settings):
    """Train everything in two processes; name what differs. XLA autotunes again in each one."""
    first, second = (run_apart("print_digests", environment, **settings) for _ in range(2))
    return [name for name in first if first[name] != second[name]]


def test_the_same_training_twice_gives_the_same_bits(environment):
    """If not, it says which flag of XLA helps."""
    without, found = differing(environment), {}
    for flag in FLAGS if without else ():
        try:
            found[flag] = differing(environment, XLA_FLAGS=flag) or "nothing"
        except AssertionError as error:  # XLA refuses what it cannot repeat
            found[flag] = f"an error, {str(error)[-300:]}"
    assert not without, f"without a flag these differ: {without}; with a flag: {found}"


@pytest.mark.parametrize("implementation", LSTM)
def test_one_program_gives_the_same_bits_twice(implementation, key):
    layer = Recurrent(LSTMCell(H), implementation=implementation)
    inputs = jax.random.normal(key, (B, T, F))
    params = layer.init(key, inputs)
    first, second = (digest(gradients(layer, params, inputs)) for _ in range(2))
    assert first == second
