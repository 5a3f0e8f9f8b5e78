"""Many seeds in one program, beside one at a time."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from jaxrnn.training.config import ExperimentConfig
from suites import language, peers
from suites.lab import compiled, hihello_config
from suites.timing import Row, interleave, rows, timed

FEW = 20  # PyTorch's networks that are trained; their time is multiplied


def seeds(repeats: int, networks: int, models: int) -> Iterator[list[Row]]:
    """The lab from start to end, and steps of a small language model.

    Args:
      repeats: turns of each system.
      networks: of the lab.
      models: language models.
    """
    yield from lab(repeats, networks)
    yield from language_models(repeats, models)


def lab(repeats: int, networks: int) -> Iterator[list[Row]]:
    """Every network of hihello, trained for its 50 steps."""
    one, many, root = compiled(hihello_config()), hihello_config(networks), math.isqrt(networks)
    grouped, compile_s = timed(compiled, replace(many, vmap_size=root))
    turns = many.seed_numbers[:, None]
    systems: dict[str, Callable[[], object]] = {
        f"jaxrnn, groups of {root}": grouped,
        "jaxrnn, side by side": compiled(replace(many, vmap_size=networks)),
        "jaxrnn, in turn": compiled(replace(many, vmap_size=1)),
        "jaxrnn, a call each": lambda: [one(seeds=seed) for seed in turns],
    }
    few = min(FEW, networks)
    several = f"{peers.PYTORCH} ({few}, multiplied)"
    if peers.PYTORCH not in peers.missing():
        import hihello_torch

        systems[several] = lambda: [hihello_torch.train() for _ in range(few)]
    seconds = interleave(systems, repeats)
    if several in seconds:
        seconds[several] *= networks / few
    yield rows("seeds", f"hihello, S={networks}", "50 steps", seconds)
    compiling = {f"jaxrnn, groups of {root}": np.array([[compile_s]])}
    yield rows("seeds", f"hihello, S={networks}", "compiling, once", compiling)


def language_models(repeats: int, models: int, steps: int = 10) -> Iterator[list[Row]]:
    """A train step of each of many language models, LSTM of H=32, B=16, T=50, vocabulary 65."""
    with language.random_config((1, 32, 16)) as (config, study):
        many = replace(study, seeds=models, vmap_size=1)
        together = replace(many, vmap_size=models)
        systems: dict[str, Callable[[], object]] = {
            "jaxrnn, in turn": steps_of(many, steps),
            "jaxrnn, side by side": steps_of(together, steps),
            "jaxrnn, nn.scan, side by side": steps_of(language.scanned(together), steps),
            "jaxrnn, one model alone, multiplied": steps_of(study, steps),
        }
        if peers.PYTORCH not in peers.missing():
            run = language.peer_losses(config, study, steps)
            systems[f"{peers.PYTORCH}, one model alone, multiplied"] = run.__next__
        seconds = interleave(systems, repeats, burst=3)
    alone = [name for name in seconds if name.endswith("multiplied")]
    a_step = {
        name: taken / steps * (models if name in alone else 1) for name, taken in seconds.items()
    }
    case = f"language model, H=32, B=16, T=50, S={models}"
    yield rows("seeds", case, "a train step of each", a_step)


def steps_of(study: ExperimentConfig, steps: int) -> Callable[[], object]:
    """So many more steps of every network of a study, at each call."""
    return language.losses(study, steps).__next__
