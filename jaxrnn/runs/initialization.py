"""The state that a run starts from: fresh parameters, those of another run, or a file's."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrnn.errors import RunError, SettingError
from jaxrnn.runs import compatibility
from jaxrnn.runs.checksums import SUMS
from jaxrnn.runs.files import sha256_of
from jaxrnn.runs.loading import TrainedModels, load_all
from jaxrnn.tasks.language import Language
from jaxrnn.training.config import ExperimentConfig, InitFrom, TF1Weights
from jaxrnn.training.joint import networks_of
from jaxrnn.training.loop import TrainLoop
from jaxrnn.training.step import TrainState

Source = dict[str, str]
"""What a run starts from: a checkpoint, and the SHA-256 of its list of checksums; or a file."""


def initial_state(
    loop: TrainLoop, recorded: Source | None = None
) -> tuple[TrainState, Source | None]:
    """Return what the first call of the compiled loop is given, and where it comes from.

    Args:
      loop: of the experiment.
      recorded: the source that was returned when the run was started; None for a new run.

    Returns:
      the state, each leaf [S, ...], and the source, which is None for fresh parameters.

    Raises:
      SettingError: if the parameters to start from do not fit the experiment.
      RunError, OSError: if they cannot be loaded, or are not those that the run started from.
    """
    config = loop.config
    if config.init_from is None:
        return loop.blank, None
    if isinstance(config.init_from, TF1Weights):
        return _from_file(loop, config.init_from.file)
    return _from_run(loop, config.init_from, recorded)


def _from_file(loop: TrainLoop, file: Path) -> tuple[TrainState, Source]:
    """Start every seed from the file. `run_metadata.check_data` refuses a file that has changed."""
    from jaxrnn.runs import tf1_weights  # few runs need it, and its imports take 20 ms

    one = jax.tree.map(lambda leaf: leaf[0], loop.blank.params)
    params, sha256 = tf1_weights.read(file, loop.config.model, one)
    params = jax.tree.map(lambda leaf: np.repeat(leaf[None], loop.config.seeds, axis=0), params)
    return loop.blank._replace(params=params), {"file": str(file), "sha256": sha256}


def _from_run(
    loop: TrainLoop, init_from: InitFrom, recorded: Source | None
) -> tuple[TrainState, Source]:
    """Start each seed from a network of another run."""
    config = loop.config
    source = load_all(init_from.run_dir, final=init_from.final)
    sums = sha256_of(source.checkpoint / SUMS)
    found = {"checkpoint": str(source.checkpoint), "sha256": sums}
    if recorded is not None and found != recorded:
        raise RunError(
            f"{init_from.run_dir} has other parameters than those that this run started"
            f" from, in {recorded['checkpoint']}"
        )
    if recorded is None:  # else the run has started
        compatibility.check_vocabularies(config, source.config)
        compatibility.check_model(config, source.config, str(init_from.run_dir))
    indices = _indices(config, source)
    params = jax.tree.map(lambda leaf: leaf[indices], source.params)
    if (tokens := _token_indices(config, source)) is not None:
        fresh = jax.device_get(jax.jit(jax.vmap(loop.init))(networks_of(config))).params
        params = _extend(params, fresh, tokens)
    _check_fit(init_from, params, loop.blank.params)
    return loop.blank._replace(params=params), found


def _indices(config: ExperimentConfig, source: TrainedModels) -> list[int]:
    """Return which of the other run's networks each seed starts from: the same seed, or its one."""
    seeds = source.config.seed_numbers.tolist()
    if len(seeds) == 1:
        return [0] * config.seeds
    missing = [seed for seed in config.seed_numbers.tolist() if seed not in seeds]
    if missing:
        raise SettingError(
            f"the run to start from has the seeds {seeds[0]} to {seeds[-1]}, not {missing[0]}"
        )
    return [seeds.index(seed) for seed in config.seed_numbers.tolist()]


def _token_indices(config: ExperimentConfig, source: TrainedModels) -> np.ndarray | None:
    """Return the new id of each token of the other run's vocabulary; None if they are the same."""
    new, old = config.task, source.config.task
    if not isinstance(new, Language) or not isinstance(old, Language):
        return None
    if new.tokenizer != old.tokenizer:
        raise SettingError(
            f"the run to start from has the tokenizer {old.tokenizer}, not {new.tokenizer}"
        )
    if new.vocabulary == old.vocabulary:
        return None
    ids = {token: n for n, token in enumerate(new.vocabulary)}
    missing = [token for token in old.vocabulary if token not in ids]
    if missing:
        raise SettingError(
            f"the vocabulary must include that of the run to start from, but lacks {missing[0]!r}"
        )
    return np.array([ids[token] for token in old.vocabulary])


def _extend(params: Any, fresh: Any, tokens: np.ndarray) -> Any:
    """Copy parameters of the old tokens into fresh ones: embeddings, input kernels, readouts.

    An axis belongs to the vocabulary if its size is the old number of tokens in `params`, and
    another one in `fresh`.
    """

    def extend(new: Any, old: Any) -> Any:
        if new.shape == old.shape or new.ndim != old.ndim:
            return old
        index = tuple(
            tokens if b == len(tokens) and a != b else np.arange(b)
            for a, b in zip(new.shape, old.shape, strict=True)
        )
        extended = np.array(new)
        extended[np.ix_(*index)] = old
        return extended

    return jax.tree.map(extend, fresh, params)


def _check_fit(init_from: InitFrom, params: Any, wanted: Any) -> None:
    """Raise SettingError unless the parameters have the names and shapes of the model's."""
    given, own = (
        {
            jax.tree_util.keystr(path, simple=True, separator="/"): leaf
            for path, leaf in jax.tree.leaves_with_path(tree)
        }
        for tree in (params, wanted)
    )
    for name in sorted(given.keys() | own.keys()):
        here, there = (
            f"{tree[name].dtype}{list(tree[name].shape[1:])}" if name in tree else "missing"
            for tree in (own, given)
        )
        if here != there:
            raise SettingError(
                f"the parameters of the run to start from do not fit: {name} is {there} in"
                f" {init_from.run_dir}, and {here} in this model"
            )
