"""The suite `train` of the benchmark: whole train steps of a language model, beside PyTorch."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import char_lm
import jax
import numpy as np

from jaxrnn.benchmark import interleave, table
from jaxrnn.models import LanguageModel
from jaxrnn.program import compile_program, make_program
from jaxrnn.recurrent import Recurrent
from jaxrnn.stack import Stack
from jaxrnn.study import Study

PEER = "PyTorch"
CASES = {"2x128, B=50": (2, 128, 50), "1x512, B=50": (1, 512, 50), "1x32, B=16": (1, 32, 16)}
"""Layers, hidden size, batch size; the window is 50, the vocabulary 65."""

SAME = 1e-3
"""How far the first losses may lie apart: rounding, and a dozen updates that let it grow."""


def train(repeats: int, steps: int, peer: bool) -> str:
    """Updates of one network, from the same weights on the same batches, the systems in turn."""
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text(random_text())
        for name, (layers, hidden, rows) in CASES.items():
            config = char_lm.Config(
                text, layers=layers, hidden_size=hidden, batch_size=rows, validation=0.0
            )
            # More steps than are timed, as the last one only looks.
            study = char_lm.make_study(replace(config, steps=10**6, log_every=10**6))
            systems = {
                "jaxrnn": losses(study, steps),
                "jaxrnn, nn.scan": losses(scanned(study), steps),
            }
            if peer:
                systems[PEER] = peer_losses(config, study, steps)
            compare({system: next(run) for system, run in systems.items()})
            calls: dict[str, Callable[[], object]] = {
                system: cast(Any, run).__next__ for system, run in systems.items()
            }
            seconds = interleave(calls, repeats)
            a_step = {system: [each / steps for each in all_] for system, all_ in seconds.items()}
            tables.append(table(f"a train step, {name}, T=50", a_step, list(systems)[-1]))
    return "\n".join(tables)


def random_text() -> str:
    """200,000 characters of 65, in an order that nothing can be learned from."""
    rng = np.random.default_rng(0)
    return "".join(chr(48 + n) for n in rng.integers(0, 65, 200_000))


def scanned(study: Study) -> Study:
    """The same study, its layers step by step with `nn.scan`."""
    model = cast(LanguageModel, study.model)
    stack = cast(Stack, model.recurrent)
    layers = tuple(cast(Recurrent, layer).clone(implementation="scan") for layer in stack.layers)
    return replace(study, model=model.clone(recurrent=stack.clone(layers=layers)))


def losses(study: Study, steps: int) -> Iterator[np.ndarray]:
    """The losses of so many more steps, each time."""
    program = make_program(study)
    compiled, state = compile_program(study, program), program.blank
    for start in range(0, study.train.steps, steps):
        state, metrics = compiled(state, study.seed_numbers, start, start + steps)
        jax.block_until_ready(state)
        yield np.asarray(metrics["loss"])[0, :steps]


def peer_losses(config: char_lm.Config, study: Study, steps: int) -> Iterator[np.ndarray]:
    """The same of the same model in PyTorch."""
    import char_lm_torch

    peer = char_lm_torch.PeerConfig(**vars(config))
    model = char_lm_torch.Model(peer, study.task.output_size)
    char_lm_torch.load(model, study, char_lm_torch.first_params(study))
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
