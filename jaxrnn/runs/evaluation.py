"""Score the trained networks of a run on data that they were not trained on."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.errors import SettingError
from jaxrnn.rng import child_key, root_key
from jaxrnn.runs import compilation_cache, run_directory, run_metadata
from jaxrnn.runs.loading import TrainedModels, load_all
from jaxrnn.tasks.base import Task
from jaxrnn.tasks.language import Language
from jaxrnn.text import corpus
from jaxrnn.training.validation import LOSS, PREFIX, ROW_LOSSES, make_validate
from jaxrnn.types import Arrays, Batch, Metrics, Params

FRESH_BATCHES = 100  # for a task without a validation set


class Evaluation(NamedTuple):
    """The scores of all networks of a run."""

    networks: TrainedModels
    data: str  # what they were scored on, in a few words
    metrics: dict[str, np.ndarray]  # by name, [S], "loss" among them; by length [S, G], rows [S, B]
    stream_loss: np.ndarray | None  # [S], of a text read as one row; None for other tasks
    tokens_per_character: float  # of the text; 1 for other tasks
    memoryless_loss: float | None  # the task's; of another text, its own


def evaluate(
    run_dir: Path | str,
    split: Literal["val", "test"] = "val",
    text: Path | None = None,
    *,
    final: bool = False,
) -> Evaluation:
    """Score every network of a run.

    A language model is scored on a part of its text or on another text, as in validation, and also
    with all of it as one row. Other tasks are scored on their validation or test set or, if they
    have no validation set, on 100 fresh batches, which depend on the run's first seed only.

    Args:
      run_dir: the run's directory.
      split: the validation or test part of the data.
      text: another text, whose tokens must be in the vocabulary.
      final: score the final, not the best, parameters.

    Raises:
      SettingError: if there is no such part, or it is too short; or if `split` is "test" for
        another text.
      RunError, OSError: as `load`; or if the text cannot be used.
    """
    run_dir = Path(run_dir)
    if text is not None and split != "val":
        raise SettingError("--split is for the data of the run: another text is scored as a whole")
    compilation_cache.enable()
    networks = load_all(run_dir, final=final)
    task, model = networks.config.task, networks.config.model
    if not isinstance(task, Language):
        if text is not None:
            raise SettingError("only language models can read another text")
        run_metadata.check_data(run_dir)
        arrays = task.arrays() if split == "val" else task.test_arrays()
        if arrays is None and split == "test":
            raise SettingError(f"the task of this run, {type(task).__name__}, has no test part")
        data, score = "fresh batches", _make_fresh(task, model, networks.config.seed)
        if task.num_validation_batches(arrays):
            part = "validation" if split == "val" else "test"
            data, score = f"its {part} set", make_validate(task, model, row_losses=True)
        metrics = _score(score, networks.params, arrays)
        return Evaluation(networks, data, metrics, None, 1.0, task.memoryless_loss)
    if text is None:
        run_directory.require_run(run_dir)
        run_metadata.check_data(run_dir)
    else:  # the run's own text need not exist any more
        found = corpus.read(text, task.tokenizer, 0.0, 0.0, vocabulary=task.vocabulary)
        task = replace(task, file=text)
        task.__dict__["corpus"] = found
    ids, characters, data = _tokens(task, "train" if text is not None else split)
    arrays = {"train": ids[:0], "validation": ids}
    metrics = _score(make_validate(task, model, row_losses=True), networks.params, arrays)
    stream = stream_losses(task, model, networks.params, ids)
    ratio = len(ids) / max(characters, 1)
    return Evaluation(networks, data, metrics, stream, ratio, task.memoryless_loss)


def stream_losses(task: Language, model: Any, params: Params, ids: np.ndarray) -> np.ndarray:
    """Return the loss of each network on token ids that are read as one row, [S].

    Args:
      task: of the networks.
      model: of the networks.
      params: each leaf [S, ...].
      ids: [N] int, at least `sequence_length` + 1.
    """
    stream = _Stream(**{field.name: getattr(task, field.name) for field in fields(task)})
    arrays = {"train": ids[:0], "validation": ids}
    return _score(make_validate(stream, model), params, arrays)["loss"]


def row_losses(task: Task, model: Any, params: Params) -> np.ndarray:
    """Return the loss of each network in each row of its validation batches, [S, B].

    Args:
      task: stateful, with a `memoryless_loss` and a validation set.
      model: of the networks.
      params: each leaf [S, ...].
    """
    metrics = _score(make_validate(task, model, row_losses=True), params, task.arrays())
    return metrics[ROW_LOSSES.removeprefix(PREFIX)]


class _Stream(Language):
    """The validation part as one row, read twice at once.

    On CPUs, XLA multiplies one row by a matrix many times slower than two rows.
    """

    def _validation_size(self, arrays: Arrays) -> tuple[int, int]:
        return 1, arrays["validation"].size - 1

    def validation_batch(self, n: jax.Array, arrays: Arrays) -> Batch:
        batch = super().validation_batch(n, arrays)
        return jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), batch)

    @property
    def memoryless_loss(self) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return None  # no loss of each row


def _tokens(task: Language, split: str) -> tuple[np.ndarray, int, str]:
    """Return the token ids to score, the number of their characters, and their name."""
    if split == "train":
        ids, characters, name = task.corpus.train, task.corpus.characters[0], str(task.file)
    else:
        part = {"val": "validation", "test": "test"}[split]
        ids = task.corpus.validation if split == "val" else task.corpus.test
        characters = task.corpus.characters[1 if split == "val" else 2]
        name = f"{part} part of {task.file}"
        if not ids.size:
            raise SettingError(f"there is no {name}: the run was made with --{split}-fraction 0")
        name = f"the {name}"
    needed = task.sequence_length + 1
    if len(ids) < needed:
        raise SettingError(
            f"{name} has {len(ids)} {task.tokenizer}, but scoring needs {needed}, one window"
        )
    return ids, characters, name


def _make_fresh(task: Task, model: Any, seed: int) -> Any:
    """Return a function that scores parameters on fresh batches."""

    def score(params: Params, arrays: Arrays) -> Metrics:
        def one(n: jax.Array) -> Metrics:
            key = jax.random.fold_in(child_key(root_key(seed), "sample"), n)
            batch = task.sample_batch(key, n, arrays)
            outputs, _ = model.apply({"params": params}, batch.inputs, None, **batch.masks())
            values = {"loss": task.loss(outputs, batch), **task.metrics(outputs, batch)}
            return {PREFIX + name: value for name, value in values.items() if value.ndim == 0}

        values = jax.lax.map(one, jnp.arange(FRESH_BATCHES, dtype=jnp.int32))
        return jax.tree.map(jnp.mean, values)

    return score


def _score(score: Any, params: Params, arrays: Arrays) -> dict[str, np.ndarray]:
    """Score each network, [S] or [S, G] numbers each, named without the prefix."""
    score_all = jax.jit(jax.vmap(score, in_axes=(0, None)))
    values = score_all(params, jax.tree.map(jnp.asarray, arrays))
    assert LOSS in values
    return {name.removeprefix(PREFIX): np.asarray(value) for name, value in values.items()}
