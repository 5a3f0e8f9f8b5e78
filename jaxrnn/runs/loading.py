"""A trained language model, read from its run: what sampling and looking inside start from."""

from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxrnn.text.corpus import encode, number
from jaxrnn.runs import checkpoints, run_metadata, run_directory
from jaxrnn.errors import RunError, SettingError
from jaxrnn.models import LanguageModel
from jaxrnn.runs.progress import note
from jaxrnn.training.config import ExperimentConfig
from jaxrnn.tasks.language import Language
from jaxrnn.training.step import TrainState
from jaxrnn.types import Params
from jaxrnn.training.validation import Best


class TrainedModel(NamedTuple):
    """One network of a run, and what it learned to say."""

    task: Language  # its vocabulary and units; its file need not be there any more
    model: nn.Module
    params: Params
    seed: int
    updates: int  # that it has had
    loss: float | None  # its validation loss, if it is the best of its seed

    def encode(self, text: str) -> np.ndarray:
        """[T] ids of a text; a SettingError names the units that are not in the vocabulary."""
        return encode(text, self.task.units, self.task.vocabulary)

    def number(self, units_text: str) -> np.ndarray:
        """[T] ids of a text that is in units already; a SettingError as `encode`."""
        return number(units_text, self.task.units, self.task.vocabulary)

    def units(self, ids: np.ndarray) -> str:
        """The units of [T] ids, as `units.detokenize` takes them."""
        return "".join(self.task.vocabulary[i] for i in ids.tolist())


def load(run_dir: Path | str, seed: int | None = None, last: bool = False) -> TrainedModel:
    """The network of a language model's run, from its newest whole checkpoint.

    Neither the text nor the device that it was trained on is needed.

    Args:
      run_dir: the run's directory; it may be at work still.
      seed: which network of a study; None for the one with the lowest validation loss.
      last: the network as it was in the end, not as it was when its validation loss was lowest.

    Raises:
      SettingError: if the run has no such seed.
      RunError: if it is no language model's, has no checkpoint yet, or does not fit itself.
      OSError: if there is no run, or no checkpoint is whole.
    """
    run_dir = Path(run_dir)
    run_directory.require_run(run_dir)
    study = run_metadata.load_config(run_dir)
    task, model = _language(study, run_dir)
    networks = study.seed_numbers.tolist()
    if seed is not None and seed not in networks:
        raise SettingError(f"the run has the seeds {networks[0]} to {networks[-1]}, not {seed}")
    restored = checkpoints.restore(run_dir / run_directory.CHECKPOINTS, _shapes(study), some=True)
    if restored is None:
        raise RunError(f"{run_dir} has no checkpoint yet; go on with {run_directory.resume_command(run_dir)}")
    for path, reason in restored.damaged:
        note(f"{path} is passed over: {reason}")
    state: TrainState = restored.state
    place = _which(networks, seed, state.best)
    if seed is None and len(networks) > 1 and (not state.best or np.isinf(state.best.loss).all()):
        note(f"nothing was validated, so no network is the best: it is that of seed {networks[0]}")
    one: TrainState = jax.tree.map(lambda leaf: leaf[place], state)
    if last or one.best is None or not np.isfinite(one.best.loss):
        return TrainedModel(task, model, one.params, networks[place], int(one.step), None)
    best = one.best
    return TrainedModel(task, model, best.params, networks[place], int(best.step), float(best.loss))


def _language(study: ExperimentConfig, run_dir: Path) -> tuple[Language, LanguageModel]:
    """The task and the model of a study, if they are of a language."""
    task, model = study.task, study.model
    if not isinstance(task, Language) or not isinstance(model, LanguageModel):
        raise RunError(f"{run_dir} is no run of a language model, but of {type(task).__name__}")
    if len(task.vocabulary) != model.vocabulary_size:
        raise RunError(
            f"{run_dir / run_directory.CONFIG} has a vocabulary of {len(task.vocabulary)} units, and a model"
            f" of {model.vocabulary_size}; put back the file that the run began with"
        )
    return task, model


def _shapes(study: ExperimentConfig) -> TrainState:
    """What is read of a checkpoint: the parameters, each leaf [S, ...]; nothing else."""
    inputs = jax.ShapeDtypeStruct((1, 1), np.int32)
    params = jax.eval_shape(study.model.init, jax.random.key(0), inputs)["params"]

    def of_all(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((study.seeds, *leaf.shape), leaf.dtype)

    params = jax.tree.map(of_all, params)
    step, loss = of_all(jnp.int32(0)), of_all(jnp.float32(0))
    held_out = cast(Language, study.task).splits[1] > 0
    best = Best(cast(Any, step), cast(Any, loss), params, cast(Any, step)) if held_out else None
    return TrainState(cast(Any, step), params, None, None, best)


def _which(networks: list[int], seed: int | None, best: Best | None) -> int:
    """The place of a network among those of the run."""
    if seed is not None:
        return networks.index(seed)
    return 0 if best is None else int(np.argmin(best.loss))
