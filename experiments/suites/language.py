"""Whole train steps of a language model, beside PyTorch."""

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
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.loop import TrainLoop, compile_loop
from suites import peers
from suites.timing import Row, interleave, product, rows

Sizes = tuple[int, int, int]

SIZES: tuple[Sizes, ...] = ((2, 128, 50), (1, 512, 50), (1, 32, 16))
"""Layers, H and B; T is 50, the vocabulary 65."""

SAME = 1e-3
"""How far the first losses may lie apart: rounding, and a dozen updates that let it grow."""


def train(repeats: int, steps: int = 10, sizes: tuple[Sizes, ...] = SIZES) -> Iterator[list[Row]]:
    """Updates of one network, from the same weights on the same batches, the systems in turn."""
    measured, rate = product("train")
    yield measured
    for layers, hidden, batch in sizes:
        with random_config((layers, hidden, batch)) as (config, study):
            runs = {
                "jaxrnn": losses(study, steps),
                "jaxrnn, nn.scan": losses(scanned(study), steps),
            }
            if peers.PYTORCH not in peers.missing():
                runs[peers.PYTORCH] = peer_losses(config, study, steps)
            compare({system: next(run) for system, run in runs.items()})
            calls = {system: cast(Any, run).__next__ for system, run in runs.items()}
            burst = 1 if hidden >= 512 else 3
            seconds = interleave(calls, repeats, burst)
        a_step = {system: taken / steps for system, taken in seconds.items()}
        case = f"language model, {layers}x{hidden}, B={batch}, T={config.sequence_length}"
        tokens, vocabulary = batch * config.sequence_length, study.task.output_size
        flops = 6.0 * tokens * weights(layers, hidden, vocabulary)
        yield rows("train", case, "a train step", a_step, flops, rate)


def weights(layers: int, hidden: int, vocabulary: int) -> int:
    """How many weights a token meets: of the LSTMs, but for the lowest kernel, and the readout.

    Each costs a product and a sum forward, and two of both backward. What a one-hot token picks
    from the lowest kernel is no product.
    """
    return (2 * layers - 1) * hidden * 4 * hidden + hidden * vocabulary


@contextlib.contextmanager
def random_config(sizes: Sizes) -> Iterator[tuple[char_lm.Config, ExperimentConfig]]:
    """What `char_lm.py` trains, on text in which nothing can be learned; while the file is there.

    The text is 200,000 characters of 65. Of the steps there are more than will be taken, as the
    last one only looks.
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


def scanned(study: ExperimentConfig) -> ExperimentConfig:
    """The same study, its layers step by step with `nn.scan`."""
    model = cast(LanguageModel, study.model)
    stack = cast(Stack, model.recurrent)
    layers = tuple(cast(Recurrent, layer).clone(implementation="scan") for layer in stack.layers)
    return replace(study, model=model.clone(recurrent=stack.clone(layers=layers)))


def losses(study: ExperimentConfig, steps: int) -> Iterator[np.ndarray]:
    """The losses of so many more steps, each time; of the first network, if there are several."""
    program = TrainLoop(study)
    compiled, state = compile_loop(program), program.blank
    for start in range(0, study.train.steps, steps):
        state, metrics = compiled(state, study.seed_numbers, start, start + steps)
        jax.block_until_ready(state)
        yield np.asarray(metrics["loss"])[0, :steps]


def peer_losses(
    config: char_lm.Config, study: ExperimentConfig, steps: int
) -> Iterator[np.ndarray]:
    """The same of the same model in PyTorch."""
    import char_lm_torch

    peer = char_lm_torch.PeerConfig(**vars(config))
    model = char_lm_torch.Model(peer, study.task.output_size)
    char_lm_torch.set_params(model, study, char_lm_torch.first_params(study))
    each = char_lm_torch.updates(peer, study, model)
    while True:
        yield np.array([next(each).item() for _ in range(steps)])


def compare(first: dict[str, np.ndarray]) -> None:
    """Refuse to time systems that do not do the same."""
    ours, *others = first.values()
    for other in others:
        apart = float(np.abs(ours - other).max())
        if not apart < SAME:
            raise AssertionError(f"the first losses of {', '.join(first)} lie {apart:.2g} apart")
