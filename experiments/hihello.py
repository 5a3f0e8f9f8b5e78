"""An LSTM learns to turn the one sequence `hihell` into `ihello`.

The classic lab of RNN courses (TensorFlow 1.14: BasicLSTMCell, dynamic_rnn, a dense readout,
sequence_loss, Adam 0.1, 50 steps) as one compiled JAX program. It works for any text of two or more
characters, and for one network or a thousand at once.
"""

import gc
import os

if __name__ == "__main__":  # before JAX is imported:
    gc.disable()  # garbage collection during the imports takes 0.2 s and finds nothing
    # On some processors jaxlib mistakes tuning hints for instruction sets, and logs an error for
    # each program it loads from the cache (jax issue 38445), although nothing is wrong.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxrnn import cli
from jaxrnn.analysis import report
from jaxrnn.cells import CELLS, make_cell
from jaxrnn.checks import check_counts
from jaxrnn.choices import check_choice
from jaxrnn.layers.gates import read_gates
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Stack
from jaxrnn.models import SequenceModel
from jaxrnn.runs import runner
from jaxrnn.runs.initialization import initial_state
from jaxrnn.runs.progress import note
from jaxrnn.runs.runner import RunResult
from jaxrnn.tasks.next_character import NextCharacter
from jaxrnn.text.characters import decode, escape_unprintable
from jaxrnn.training.calls import train_in_memory
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.history import History
from jaxrnn.training.loop import TrainLoop
from jaxrnn.training.mesh import MeshShape
from jaxrnn.training.processes import Processes, is_first

MAX_LAYERS = 100  # each is compiled separately
MAX_POSITIONS = 24  # positions whose probabilities are logged and drawn
PANELS = {
    "i": "input gate",
    "f": "forget gate",
    "o": "output gate",
    "r": "reset gate",
    "z": "update gate",
    "c": "cell state",
    "h": "hidden state",
}
"""Panel titles, by the names that `read_gates` returns."""


@dataclass(frozen=True)
class Config:
    """Train a small recurrent network to predict each next character of one text."""

    text: str = "hihello"
    """The text to learn: inputs text[:-1], targets text[1:]."""
    cell: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(CELLS) + "}")] = "lstm"
    """The recurrent cell."""
    layers: int = 1
    """Number of stacked recurrent layers."""
    hidden_size: int = 5
    """Hidden units per layer."""
    projection_size: int | None = None
    """Project the hidden state to this size; for the cells lstm and cifg."""
    steps: int = 50
    """Training steps (updates)."""
    learning_rate: float = 0.1
    """The learning rate."""
    optimizer: Literal["adam", "adam-tf1", "adamw", "rmsprop", "sgd"] = "adam"
    """The optimizer; adam-tf1 is TensorFlow 1's variant of Adam."""
    seed: int = 0
    """Seed of the (first) network."""
    seeds: int = 1
    """Number of networks to train at once, with seeds SEED, SEED+1, ..."""
    mesh: Annotated[str, tyro.conf.arg(metavar="auto|seed=N|data=N|seed=N,data=N")] = "auto"
    """Devices to spread the seeds and the batch rows over; auto takes what is fastest here."""
    processes: Annotated[Processes, tyro.conf.arg(name="")] = Processes()
    init_from: Annotated[
        Path | None, tyro.conf.arg(metavar="RUN_DIR|FILE.npz", help_behavior_hint="")
    ] = None
    """Start from the trained networks of another run, or from the initial weights of TensorFlow's
    lab: a .npz file with init.lstm_kernel, init.lstm_bias, init.readout_kernel and
    init.readout_bias, or with rnn/basic_lstm_cell/kernel, rnn/basic_lstm_cell/bias,
    fully_connected/weights and fully_connected/biases."""
    final: bool = False
    """With --init-from: start from its final, not its best, parameters."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Take the options from the config.json of a run, or from another JSON file of options; those
    given here override them, and --no-NAME turns a flag off."""
    run_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """A new or empty directory for the run; by default the next number in runs/hihello."""
    no_plots: bool = False
    """Do not draw plots."""
    quiet: bool = False
    """Print only the last line."""

    def __post_init__(self) -> None:
        check_choice("--cell", self.cell, CELLS)
        check_counts(self, "layers", "hidden_size")
        if self.layers > MAX_LAYERS:
            raise ValueError(f"layers must be at most {MAX_LAYERS}")
        make_config(self)  # raises if the settings do not fit each other


def make_config(config: Config) -> ExperimentConfig:
    """Return the experiment, without gradient clipping, as in the lab."""
    task = NextCharacter(
        config.text, num_logged_positions=MAX_POSITIONS if config.seeds == 1 else 0
    )
    size = config.hidden_size
    cells = [
        make_cell(config.cell, size, projection_size=config.projection_size)
        for _ in range(config.layers)
    ]
    model = SequenceModel(Stack(tuple(map(Recurrent, cells))), task.output_size)
    # Updating one flat vector compiles and runs faster than updating fourteen small arrays.
    train = TrainConfig(
        config.steps, config.learning_rate, config.optimizer, clip_norm=None, flatten=True
    )
    first = cli.init_from(config.init_from, config.final)
    seeds, mesh = (config.seed, config.seeds), MeshShape.parse(config.mesh)
    options = cli.options_of(config)
    return ExperimentConfig(task, model, train, *seeds, init_from=first, mesh=mesh, options=options)


def main(config: Config) -> None:
    """Train, draw and report."""
    result = runner.run(make_config(config), run_dir=config.run_dir, name="hihello")
    if not is_first():
        return
    if not config.no_plots:
        draw(config, result)
    if not config.quiet:
        if config.seeds == 1:
            print_steps(NextCharacter(config.text), result.history)
        else:
            print(report.distribution(learned_at(result.history), config.steps))
    print(
        f"{outcome(config, result)}; the training took {report.format_seconds(result)}, on"
        f" {jax.default_backend()}; {'the run is' if config.no_plots else 'plots are'} in"
        f" {result.run_dir}."
    )


def learned_at(history: History) -> np.ndarray:
    """Return [S] int, the first step from which on every prediction is right; N if there is none.

    Row n+1 of the metrics holds the prediction after update n.
    """
    return report.learned_at(np.nan_to_num(history.values["correct"][:, 1:]) > 0)


def print_steps(task: NextCharacter, history: History) -> None:
    """Print each step as the lab does: the loss before the update, the prediction after it."""
    true = one_line(task.ids[None, 1:])
    losses, predictions = (history.values[name][0] for name in ("loss", "prediction"))
    for n, (loss, prediction) in enumerate(zip(losses[:-1], predictions[1:], strict=True)):
        print(f"{n} loss: {loss!s} prediction: {one_line(prediction[None])} true Y: {true}")
        print("\tPrediction str: ", escape_unprintable(decode(prediction, task.characters)))


def one_line(array: np.ndarray) -> str:
    """Format an array of any size on one line, without dots."""
    return np.array2string(array, max_line_width=sys.maxsize, threshold=sys.maxsize)


def outcome(config: Config, result: RunResult) -> str:
    """Return the main clause of the last line."""
    task, history = NextCharacter(config.text), result.history
    target, solved = f"'{escape_unprintable(task.text[1:])}'", np.asarray(result.solved)
    if config.seeds > 1:
        learned, diverged = np.sum(solved), len(result.diverged)
        note = f" ({diverged} diverged)" if diverged else ""
        return f"{learned} of {config.seeds} seeds learned {target}{note}"
    if solved[0]:
        return f"Learned {target}: correct from step {learned_at(history)[0]}"
    predicted = escape_unprintable(decode(history.values["prediction"][0, -1], task.characters))
    return f"Did not learn {target}: the last prediction is '{predicted}'"


def draw(config: Config, result: RunResult) -> None:
    """Draw the loss of all seeds, and the first seed's probabilities and top-layer states."""
    from jaxrnn.analysis import fonts, plots  # not at the top: Matplotlib takes a second to import

    run_dir, history = result.run_dir, result.history
    task, model = NextCharacter(config.text), result.config.model
    inputs, targets = task.ids[:-1].tolist(), task.ids[1:].tolist()
    network = f"{config.cell}, {config.hidden_size} hidden units, seed {config.seed}"
    top = f", layer {config.layers} of {config.layers}" if config.layers > 1 else ""
    plots.loss_curve(run_dir / "loss.png", history.values["loss"][:, :-1], learned_at(history))
    if config.seeds > 1:  # predictions of many seeds are not logged
        one = make_config(replace(config, seeds=1, mesh="seed=1"))
        first, _ = initial_state(TrainLoop(one))
        history = train_in_memory(one, first=first).history
    predicted, probability = (history.values[name][0, 1:] for name in ("prediction", "probability"))
    plots.probabilities(
        run_dir / "probabilities.png", probability, task.characters, inputs, targets, network
    )
    batch = task.sample_batch(jax.random.key(0), jnp.int32(0))
    params = jax.tree.map(lambda leaf: leaf[0], result.state.params)
    gates = read_gates(model, params, batch.inputs)[-1]
    panels = {PANELS[name]: np.asarray(gates[name][0]) for name in PANELS if name in gates}
    plots.states(
        run_dir / "states.png",
        panels,
        task.characters,
        inputs,
        predicted[-1].tolist(),
        network + top,
    )
    missing = fonts.undrawable(task.text)
    if missing:
        note(
            f"no usable font here has {' '.join(sorted(missing))}; the plots show their code"
            " points instead (for Korean, a font such as Noto Sans CJK or NanumGothic helps)"
        )


if __name__ == "__main__":
    cli.run_command(Config, main, make_config=make_config)
