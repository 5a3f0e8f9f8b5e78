"""Train steps of a language model, in jaxrnn and PyTorch."""

# pyright: reportMissingImports=false

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import char_lm
import jax
import numpy as np

from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Stack
from jaxrnn.models import LanguageModel
from jaxrnn.training.calls import compile_loop
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.loop import TrainLoop
from jaxrnn.training.mesh import MeshShape
from suites import peers
from suites.timing import Row, interleave, product, rows

Sizes = tuple[int, int, int]

SIZES: tuple[Sizes, ...] = ((2, 128, 50), (1, 512, 50), (1, 32, 16))
"""Layers, H and B; T is 50, the vocabulary 65."""

TOLERANCE = 1e-3
"""Tolerance of the first losses: rounding differences grow over a dozen updates."""


def train(
    repeats: int,
    steps: int = 10,
    sizes: tuple[Sizes, ...] = SIZES,
    tolerance: float = TOLERANCE,
) -> Iterator[list[Row]]:
    """Time updates of one network, from the same weights on the same batches."""
    measured, rate = product("train")
    yield measured
    for layers, hidden, batch in sizes:
        with random_config((layers, hidden, batch)) as (config, experiment):
            runs = {
                "jaxrnn": losses(experiment, steps),
                "jaxrnn, nn.scan": losses(with_layers(experiment, "scan"), steps),
            }
            if (devices := jax.device_count()) > 1 and batch % devices == 0:
                spread = replace(experiment, mesh=MeshShape(data=devices))
                runs[f"jaxrnn, data={devices}"] = losses(spread, steps)
            if peers.PYTORCH not in peers.missing():
                runs[peers.PYTORCH] = peer_losses(config, experiment, steps)
            compare({system: next(run) for system, run in runs.items()}, tolerance)
            calls = {system: cast(Any, run).__next__ for system, run in runs.items()}
            burst = 1 if hidden >= 512 else 3
            seconds = interleave(calls, repeats, burst)
        per_step = {system: taken / steps for system, taken in seconds.items()}
        case = f"language model, {layers}x{hidden}, B={batch}, T={config.sequence_length}"
        tokens, vocabulary = batch * config.sequence_length, experiment.task.output_size
        flops = 6.0 * tokens * weights(layers, hidden, vocabulary)
        yield rows("train", case, "train step", per_step, flops, rate)


def weights(layers: int, hidden: int, vocabulary: int) -> int:
    """Count the weights in a token's matrix products: all but the first layer's input kernel.

    Each weight costs two operations forward and four backward. The first layer's input is one-hot,
    so its kernel is indexed, not multiplied.
    """
    return (2 * layers - 1) * hidden * 4 * hidden + hidden * vocabulary


@contextlib.contextmanager
def random_config(sizes: Sizes) -> Iterator[tuple[char_lm.Config, ExperimentConfig]]:
    """Configure `char_lm.py` on 200,000 random characters of 65, in a temporary file.

    There are more steps than will be run, because the last one only measures.
    """
    layers, hidden, batch = sizes
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text("".join(chr(48 + n) for n in rng.integers(0, 65, 200_000)))
        config = char_lm.Config(
            text, layers=layers, hidden_size=hidden, batch_size=batch, val_fraction=0.0
        )
        yield config, char_lm.make_config(replace(config, steps=10**6, log_every=10**6))


def with_layers(experiment: ExperimentConfig, implementation: Any) -> ExperimentConfig:
    """Return the same experiment with another `Recurrent.implementation` in each layer."""
    model = cast(LanguageModel, experiment.model)
    stack = cast(Stack, model.recurrent)
    layers = tuple(
        cast(Recurrent, layer).clone(implementation=implementation) for layer in stack.layers
    )
    return replace(experiment, model=model.clone(recurrent=stack.clone(layers=layers)))


def losses(experiment: ExperimentConfig, steps: int) -> Iterator[np.ndarray]:
    """Train this many more steps for each item; yields the first network's losses."""
    loop = TrainLoop(experiment)
    compiled, state = compile_loop(loop), loop.blank
    for start in range(0, experiment.train.steps, steps):
        state, metrics = compiled(state, experiment.seed_numbers, start, start + steps)
        jax.block_until_ready(state)
        yield np.asarray(metrics["loss"])[0, :steps]


def peer_losses(
    config: char_lm.Config, experiment: ExperimentConfig, steps: int
) -> Iterator[np.ndarray]:
    """Do the same with the same model in PyTorch."""
    import char_lm_torch
    import torch

    peer = char_lm_torch.PeerConfig(**vars(config))
    model = char_lm_torch.Model(peer, experiment.task.output_size).to(peers.torch_device())
    char_lm_torch.set_params(model, experiment, char_lm_torch.first_params(experiment))
    each = char_lm_torch.updates(peer, experiment, model)
    while True:
        yield torch.stack([next(each) for _ in range(steps)]).cpu().numpy()


def compare(first: dict[str, np.ndarray], tolerance: float = TOLERANCE) -> None:
    """Raise AssertionError if the systems' losses differ."""
    ours, *others = first.values()
    for other in others:
        error = float(np.abs(ours - other).max())
        if not error < tolerance:
            raise AssertionError(f"the first losses of {', '.join(first)} differ by {error:.2g}")
