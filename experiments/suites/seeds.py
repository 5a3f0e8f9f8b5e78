"""Many seeds in one program, and one at a time."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import jax
import numpy as np

from jaxrnn.runs.tuning import spread_seeds
from jaxrnn.training.config import ExperimentConfig
from suites import language, peers
from suites.lab import compiled, hihello_config
from suites.timing import Row, interleave, rows, timed

FEW = 20  # networks that PyTorch trains; their time is multiplied


def seeds(repeats: int, networks: int, models: int) -> Iterator[list[Row]]:
    """Time whole trainings of the lab, and train steps of a small language model.

    Args:
      repeats: turns of each system.
      networks: of the lab.
      models: language models.
    """
    yield from lab(repeats, networks)
    yield from language_models(repeats, models)


def lab(repeats: int, networks: int) -> Iterator[list[Row]]:
    """Time many networks of hihello, each trained for its 50 steps, on all devices."""
    one, many, root = compiled(hihello_config()), hihello_config(networks), math.isqrt(networks)
    chunked, compile_s = timed(compiled, spread_seeds(many, root))
    share = -(-networks // jax.device_count())
    turns = many.seed_numbers[:, None]
    systems: dict[str, Callable[[], object]] = {
        f"jaxrnn, vmap size {root}": chunked,
        f"jaxrnn, vmap size {share}": compiled(spread_seeds(many, share)),
        "jaxrnn, vmap size 1": compiled(spread_seeds(many, 1)),
        "jaxrnn, one call per seed": lambda: [one(seeds=seed) for seed in turns],
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
    compiling = {f"jaxrnn, vmap size {root}": np.array([[compile_s]])}
    yield rows("seeds", f"hihello, S={networks}", "compiling, once", compiling)


def language_models(repeats: int, models: int, steps: int = 10) -> Iterator[list[Row]]:
    """Time a train step of many language models: LSTM, H=32, B=16, T=50, vocabulary 65."""
    with language.random_config((1, 32, 16)) as (config, experiment):
        many = replace(experiment, seeds=models, vmap_size=None)
        share = -(-models // jax.device_count())
        together = spread_seeds(many, share)
        systems: dict[str, Callable[[], object]] = {
            "jaxrnn, vmap size 1": steps_of(spread_seeds(many, 1), steps),
            f"jaxrnn, vmap size {share}": steps_of(together, steps),
            f"jaxrnn, nn.scan, vmap size {share}": steps_of(
                language.with_layers(together, "scan"), steps
            ),
            "jaxrnn, one model, multiplied": steps_of(experiment, steps),
        }
        if peers.PYTORCH not in peers.missing():
            run = language.peer_losses(config, experiment, steps)
            systems[f"{peers.PYTORCH}, one model, multiplied"] = run.__next__
        seconds = interleave(systems, repeats, burst=3)
    alone = [name for name in seconds if name.endswith("multiplied")]
    per_step = {
        name: taken / steps * (models if name in alone else 1) for name, taken in seconds.items()
    }
    case = f"language model, H=32, B=16, T=50, S={models}"
    yield rows("seeds", case, "train step of each", per_step)


def steps_of(experiment: ExperimentConfig, steps: int) -> Callable[[], object]:
    """Return a function that trains every network for another `steps` steps."""
    return language.losses(experiment, steps).__next__
