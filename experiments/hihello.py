"""An LSTM learns, from the one sequence `hihell`, to say `ihello`.

The classic lab of the RNN courses (TensorFlow 1.14: BasicLSTMCell, dynamic_rnn, a dense readout,
sequence_loss, Adam 0.1, 50 steps) as one compiled JAX program. Any text of two characters or more
can be taught instead, to one network or to a thousand at once.
"""

import gc
import os

if __name__ == "__main__":  # before JAX is imported:
    gc.disable()  # collecting garbage meanwhile takes 0.2 s and finds none
    # jaxlib takes two hints on tuning for instruction sets, and on some processors logs an error
    # for each program that it loads from the cache (jax issue 38445), though nothing is wrong.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from jaxrnn import cli, compilation_cache, keys, losses, report, runs, train
from jaxrnn.benchmark import run_timed
from jaxrnn.cells import CELLS
from jaxrnn.gates import read_gates
from jaxrnn.models import SequenceModel
from jaxrnn.recurrent import Recurrent
from jaxrnn.stack import Stack
from jaxrnn.tasks.next_character import NextCharacter
from jaxrnn.text import decode, visible
from jaxrnn.types import Params

MOST_LAYERS = 100  # each is compiled by itself
PANELS = {
    "i": "input gate",
    "f": "forget gate",
    "o": "output gate",
    "r": "reset gate",
    "z": "update gate",
    "c": "cell state",
    "h": "hidden state",
}
"""Titles of the pictures of a trained layer, by the names that `read_gates` gives."""


@dataclass(frozen=True)
class Config:
    """Teach a small recurrent network to say each next character of one text."""

    text: str = "hihello"
    """What to learn: input text[:-1], target text[1:]."""
    cell: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(CELLS) + "}")] = "lstm"
    """The recurrent cell."""
    layers: int = 1
    """Recurrent layers, one above the other."""
    hidden_size: int = 5
    """Hidden units of each layer."""
    steps: int = 50
    """Training steps (Adam updates)."""
    learning_rate: float = 0.1
    """Adam's learning rate."""
    seed: int = 0
    """Seed of the (first) network."""
    seeds: int = 1
    """How many networks to train at once, with seeds SEED, SEED+1, ..."""
    run_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """Where to keep the run, a new or empty directory. Without it: a new number in runs/hihello."""
    no_plots: bool = False
    """Draw no pictures."""
    quiet: bool = False
    """Print only the last sentence."""

    def __post_init__(self) -> None:
        NextCharacter(self.text)  # raises for a text that is too short
        if self.cell not in CELLS:
            raise ValueError(f"--cell must be one of {', '.join(CELLS)}, not {self.cell!r}")
        for name in ("layers", "hidden_size", "steps", "seeds"):
            option, value = f"--{name.replace('_', '-')}", getattr(self, name)
            if value < 1:
                raise ValueError(f"{option} must be at least 1")
            if value >= 2**31:
                raise ValueError(f"{option} must be less than 2**31")
        single = np.finfo(np.float32)
        if not single.tiny <= self.learning_rate <= single.max:
            raise ValueError(
                "--learning-rate must be a positive finite number (in single precision:"
                f" {single.tiny:.3g} to {single.max:.3g})"
            )
        if self.layers > MOST_LAYERS:
            raise ValueError(f"--layers must be at most {MOST_LAYERS}")
        if not 0 <= self.seed <= keys.MAX_SEED - self.seeds + 1:
            raise ValueError(f"--seed must be from 0, and no seed above {keys.MAX_SEED}")


class Curves(NamedTuple):
    """How the training of one network went; over several seeds, each with a leading axis S."""

    loss: jax.Array  # [N] nats, before each update
    correct: jax.Array  # [N] bool: whether every character was right after each update
    learned_at: jax.Array  # [] int: the first step that was right and stayed right, N if none


class Lesson(NamedTuple):
    """All that is known of one network's training."""

    curves: Curves
    params: Params  # after the last update
    prediction: jax.Array  # [N, T] int: the likeliest character, after each update
    probability: jax.Array  # [N, T, V] of each character, after each update


def make_model(config: Config) -> SequenceModel:
    """The network: recurrent layers, read out to a score for each character."""
    cells = (CELLS[config.cell](config.hidden_size) for _ in range(config.layers))
    characters = NextCharacter(config.text).characters
    return SequenceModel(Stack(tuple(map(Recurrent, cells))), len(characters))


def learn(key: jax.Array, config: Config) -> Lesson:
    """The whole run, a pure function of a key: initialise, update N times, look after each."""
    task, model = NextCharacter(config.text), make_model(config)
    # Flattened: one update of one vector, not of fourteen small arrays, compiles and runs faster.
    optimizer = optax.flatten(optax.adam(config.learning_rate))
    state, before = train.fit(key, model, optimizer, task.sample_batch, config.steps)
    # The batch never changes, so what the network says after update n is what step n+1 sees
    # before its own; only after the last update does it take one more look.
    batch = task.sample_batch(key)
    last = train.measure(model, state.params, batch)
    logits, prediction = (
        jnp.concatenate([before[name][1:], last[name][None]])[:, 0]
        for name in ("logits", "prediction")
    )
    correct = jnp.all(prediction == batch.targets, axis=-1)
    curves = Curves(before["loss"], correct, losses.learned_at(correct))
    return Lesson(curves, state.params, prediction, jax.nn.softmax(logits))


def main(config: Config) -> None:
    """Train, save and report: what `python experiments/hihello.py` does."""
    compilation_cache.enable()
    seeds = np.arange(config.seed, config.seed + config.seeds, dtype=np.uint32)

    def learn_one(seed: jax.Array) -> Lesson:
        return learn(keys.root_key(seed), config)

    def learn_all(seeds: jax.Array) -> Curves:
        return jax.vmap(lambda seed: learn_one(seed).curves)(seeds)

    with runs.new_run("hihello", config.run_dir) as run_dir:
        lesson = None
        if config.seeds == 1:
            lesson, clock = run_timed(learn_one, seeds[0])
            curves = jax.tree.map(lambda value: value[None], lesson.curves)
        else:
            curves, clock = run_timed(learn_all, seeds)
        metrics = {"loss": curves.loss, "correct": curves.correct}
        runs.save(run_dir, config, seeds, metrics)
        if not config.no_plots:
            draw(run_dir, config, lesson or run_timed(learn_one, seeds[0])[0], curves)
        if not config.quiet:
            if lesson:
                print_steps(NextCharacter(config.text), lesson)
            else:
                print(report.distribution(curves.learned_at, config.steps))
        print(
            f"{outcome(config, lesson, curves)}; the training took {clock}, on"
            f" {jax.default_backend()}; {'the run is' if config.no_plots else 'pictures are'} in"
            f" {run_dir}."
        )


def print_steps(task: NextCharacter, lesson: Lesson) -> None:
    """Print each step as the lab does: the loss before its update, the prediction after it."""
    true = one_line(task.ids[None, 1:])
    for n, (loss, prediction) in enumerate(zip(lesson.curves.loss, lesson.prediction, strict=True)):
        print(f"{n} loss: {loss!s} prediction: {one_line(prediction[None])} true Y: {true}")
        print("\tPrediction str: ", visible(decode(prediction, task.characters)))


def one_line(array: np.ndarray) -> str:
    """An array of any size as NumPy prints it, without line breaks or dots."""
    return np.array2string(array, max_line_width=sys.maxsize, threshold=sys.maxsize)


def outcome(config: Config, lesson: Lesson | None, curves: Curves) -> str:
    """The main clause of the last sentence."""
    task = NextCharacter(config.text)
    target = f"'{visible(task.text[1:])}'"
    finite = np.isfinite(curves.loss)  # [S, N]
    if lesson is None:
        learned = np.sum(finite.all(1) & (curves.learned_at < config.steps))
        broken = np.sum(~finite.all(1))
        but = f" (the loss of {broken} did not stay finite)" if broken else ""
        return f"{learned} of {config.seeds} seeds learned {target}{but}"
    if not finite.all():
        return f"Did not learn {target}: the loss is not finite from step {finite[0].argmin()} on"
    if curves.learned_at[0] < config.steps:
        return f"Learned {target}: right at step {curves.learned_at[0]} and ever after"
    said = visible(decode(np.asarray(lesson.prediction[-1]), task.characters))
    return f"Did not learn {target}: the last prediction is '{said}'"


def draw(run_dir: Path, config: Config, lesson: Lesson, curves: Curves) -> None:
    """Draw the pictures: the loss of all seeds; of the first what it says, and its top layer."""
    from jaxrnn import fonts, plots  # not at the top: Matplotlib takes a second to import

    task = NextCharacter(config.text)
    inputs, targets = task.ids[:-1].tolist(), task.ids[1:].tolist()
    network = f"{config.cell}, {config.hidden_size} hidden units, seed {config.seed}"
    top = f", layer {config.layers} of {config.layers}" if config.layers > 1 else ""
    plots.loss_curve(run_dir / "loss.png", np.asarray(curves.loss), np.asarray(curves.learned_at))
    plots.probabilities(
        run_dir / "probabilities.png",
        np.asarray(lesson.probability),
        task.characters,
        inputs,
        targets,
        network,
    )
    batch = task.sample_batch(jax.random.key(0))
    gates = read_gates(make_model(config), lesson.params, batch.inputs)[-1]
    panels = {PANELS[name]: np.asarray(gates[name][0]) for name in PANELS if name in gates}
    said = lesson.prediction[-1].tolist()
    plots.states(run_dir / "states.png", panels, task.characters, inputs, said, network + top)
    missing = fonts.undrawable(task.text)
    if missing:
        print(
            f"note: no usable font here has {' '.join(sorted(missing))}; the pictures show their"
            " code points instead (for Korean, a font such as Noto Sans CJK or NanumGothic helps)",
            file=sys.stderr,
        )


if __name__ == "__main__":
    cli.run(Config, main)
