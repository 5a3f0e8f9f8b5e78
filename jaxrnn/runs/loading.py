"""Load a trained network from its run."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxrnn.errors import RunError, SettingError
from jaxrnn.models import LanguageModel
from jaxrnn.runs import checkpoints, run_directory, run_metadata
from jaxrnn.runs.progress import note
from jaxrnn.tasks.language import Language
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.training.step import TrainState
from jaxrnn.training.validation import Best
from jaxrnn.types import Params


class TrainedModel(NamedTuple):
    """One trained network of a run: `model.apply({"params": params}, inputs)` calls it."""

    config: ExperimentConfig  # of the run; the text of a `Language` task need not exist any more
    model: nn.Module
    params: Params  # of one seed, without the axis S
    seed: int
    updates: int  # how many updates the parameters have had
    validation_loss: float | None  # None if these are not the best parameters of a validation


class TrainedModels(NamedTuple):
    """All trained networks of a run."""

    config: ExperimentConfig
    params: Params  # each leaf [S, ...]
    updates: np.ndarray  # [S] int: how many updates the parameters have had
    is_best: np.ndarray  # [S] bool: whether they are the best of a validation, not the final ones
    checkpoint: Path  # that they were loaded from


def load(
    run_dir: Path | str, *, model_seed: int | None = None, final: bool = False
) -> TrainedModel:
    """Load a network from the last intact checkpoint of a run.

    A language model needs neither its text nor the kind of device it was trained on; other tasks
    are asked for the shapes of their batches.

    Args:
      run_dir: the run's directory; it may still be training.
      model_seed: the seed of the network; None for the one with the lowest validation loss, or the
        first if nothing was validated.
      final: load the final parameters, not those with the lowest validation loss.

    Returns:
      the config, the model, and the parameters of one seed.

    Raises:
      SettingError: if the run has no such seed.
      RunError: if there is no checkpoint yet, or it does not fit the config.
      OSError: if there is no run, or no checkpoint is intact.

    >>> trained = load("runs/memory/0001")  # doctest: +SKIP
    >>> trained.model.apply({"params": trained.params}, inputs)  # doctest: +SKIP
    """
    config = _load_config(Path(run_dir))
    seeds = config.seed_numbers.tolist()
    if model_seed is not None and model_seed not in seeds:
        raise SettingError(f"the run has the seeds {seeds[0]} to {seeds[-1]}, not {model_seed}")
    state, _ = _restore(Path(run_dir), config)
    if model_seed is not None:
        index = seeds.index(model_seed)
    elif state.best is not None and np.isfinite(state.best.loss).any():
        index = int(np.argmin(state.best.loss))
    else:
        index = 0
        if len(seeds) > 1:
            note(f"nothing was validated, so no network is the best: loading seed {seeds[0]}")
    one: TrainState = jax.tree.map(lambda leaf: leaf[index], state)
    params, updates, loss = one.params, int(one.step), None
    if not final and one.best is not None and np.isfinite(one.best.loss):
        params, updates, loss = one.best.params, int(one.best.step), float(one.best.loss)
    return TrainedModel(config, config.model, params, seeds[index], updates, loss)


def load_all(run_dir: Path | str, *, final: bool = False) -> TrainedModels:
    """Load all networks from the last intact checkpoint of a run.

    Args:
      run_dir: the run's directory; it may still be training.
      final: load the final parameters of each network, not those with the lowest validation loss.

    Raises:
      RunError, OSError: as `load`.
    """
    config = _load_config(Path(run_dir))
    state, path = _restore(Path(run_dir), config)
    if final or state.best is None:
        updates = np.asarray(state.step)
        return TrainedModels(config, state.params, updates, np.zeros(config.seeds, bool), path)
    is_best = np.isfinite(state.best.loss)  # [S]

    def choose(best: Any, final: Any) -> np.ndarray:
        return np.where(is_best.reshape(-1, *[1] * (best.ndim - 1)), best, final)

    params = jax.tree.map(choose, state.best.params, state.params)
    return TrainedModels(config, params, choose(state.best.step, state.step), is_best, path)


def input_shape(config: ExperimentConfig) -> jax.ShapeDtypeStruct:
    """The shape and dtype of inputs of the model: one step of a language model, or a batch."""
    if isinstance(config.task, Language):  # without its text
        return jax.ShapeDtypeStruct((1, 1), np.int32)
    return config.batch_shape.inputs  # pyright: ignore[reportReturnType]


def _load_config(run_dir: Path) -> ExperimentConfig:
    run_directory.require_run(run_dir)
    config = run_metadata.load_config(run_dir)
    _check_vocabulary(config, run_dir)
    return config


def _restore(run_dir: Path, config: ExperimentConfig) -> tuple[TrainState, Path]:
    """Return the parameters in the last intact checkpoint, leaves [S, ...], and its path."""
    folder = run_dir / run_directory.CHECKPOINTS
    restored = checkpoints.restore(folder, _shapes(config), partial=True)
    if restored is None:
        command = run_directory.resume_command(run_dir)
        raise RunError(f"{run_dir} has no checkpoint yet; resume with {command}")
    for path, reason in restored.damaged:
        note(f"skipping {path}: {reason}")
    return restored.state, restored.path


def _check_vocabulary(config: ExperimentConfig, run_dir: Path) -> None:
    """Refuse a config.json whose vocabulary was edited: token ids would change their meaning."""
    task, model = config.task, config.model
    if not isinstance(task, Language) or not isinstance(model, LanguageModel):
        return
    if len(task.vocabulary) != model.vocabulary_size:
        raise RunError(
            f"{run_dir / run_directory.CONFIG} has a vocabulary of {len(task.vocabulary)} tokens,"
            f" but its model has {model.vocabulary_size}; restore the original file"
        )


def _shapes(config: ExperimentConfig) -> TrainState:
    """The parts of a checkpoint to read: parameters and the best ones, each leaf [S, ...]."""
    if isinstance(config.task, Language):  # without its text
        validates = config.task.val_fraction > 0
    else:
        validates = config.validates
    try:
        params = jax.eval_shape(config.model.init, jax.random.key(0), input_shape(config))["params"]
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"the model of this run does not fit its task: {reason}") from None

    def per_seed(leaf: Any) -> Any:
        return jax.ShapeDtypeStruct((config.seeds, *leaf.shape), leaf.dtype)

    params = jax.tree.map(per_seed, params)
    step, loss = per_seed(jnp.int32(0)), per_seed(jnp.float32(0))
    best = Best(step, loss, params, step) if validates else None
    return TrainState(step, params, None, None, best)
