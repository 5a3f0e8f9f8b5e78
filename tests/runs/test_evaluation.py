"""Scores of trained networks on parts of a text, other texts, and fresh batches."""

import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_tasks import Echo

from jaxrnn import losses
from jaxrnn.analysis.report import summarize_evaluation
from jaxrnn.cells import GRUCell
from jaxrnn.errors import RunError, SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import LanguageModel, SequenceModel
from jaxrnn.rng import child_key, root_key
from jaxrnn.runs import runner
from jaxrnn.runs.evaluation import evaluate
from jaxrnn.runs.loading import load
from jaxrnn.tasks.language import Language
from jaxrnn.training.config import ExperimentConfig, TrainConfig

TEXT = "the rain in Spain stays mainly in the plain. " * 30


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """Two seeds on a text with all three parts."""
    folder = tmp_path_factory.mktemp("evaluation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        (folder / "text.txt").write_text(TEXT)
        task = Language.from_file(
            folder / "text.txt",
            batch_size=4,
            sequence_length=10,
            val_fraction=0.2,
            test_fraction=0.3,
        )
        model = LanguageModel(Recurrent(GRUCell(8)), task.output_size)
        train = TrainConfig(60, 0.05, log_every=20, validate_every=20)
        config = ExperimentConfig(task, model, train, seed=3, seeds=2, vmap_size=2)
        return runner.run(config, run_dir=folder / "run").run_dir


def stream_loss(run_dir, ids, seed, **options):
    """The loss of a text read from a zero carry, token by token after each other."""
    one = load(run_dir, model_seed=seed, **options)
    logits, _ = one.model.apply({"params": one.params}, jnp.asarray(ids[None, :-1], jnp.int32))
    targets = jnp.asarray(ids[None, 1:], jnp.int32)
    return float(losses.sequence_cross_entropy(logits, targets, jnp.ones(targets.shape)))


@pytest.mark.sampled(6)
@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("split", ["val", "test"])
def test_the_parts_of_a_text_are_scored_for_each_seed(run_dir, split, final):
    result = evaluate(run_dir, split, final=final)
    task: Any = result.networks.config.task
    ids = {"val": task.corpus.validation, "test": task.corpus.test}[split].astype(int)
    wanted = [stream_loss(run_dir, ids, seed, final=final) for seed in (3, 4)]
    np.testing.assert_allclose(np.asarray(result.stream_loss), wanted, rtol=1e-5)
    assert result.metrics["loss"].shape == (2,)
    if split == "val" and not final:
        best = np.array([load(run_dir, model_seed=seed).validation_loss for seed in (3, 4)])
        np.testing.assert_allclose(result.metrics["loss"], best, rtol=1e-6)
    text = summarize_evaluation(result)
    assert text.splitlines()[0].startswith(f"Scored on the {'test' if split == 'test' else 'val'}")
    assert f"  seed 4, {'final' if final else 'best'}, " in text
    mean, bits = result.metrics["loss"].mean(), result.metrics["loss"].mean() / math.log(2)
    assert f"Mean of 2 seeds: {mean:.4g} nats per character ({bits:.4g} bits" in text


def test_another_text_is_scored(run_dir, tmp_path):
    (tmp_path / "other.txt").write_text("in the plain. " * 12)
    result = evaluate(run_dir, text=tmp_path / "other.txt")
    task: Any = result.networks.config.task
    ids = task.encode("in the plain. " * 12)
    stream = np.asarray(result.stream_loss)
    np.testing.assert_allclose(stream[1], stream_loss(run_dir, ids, 4), rtol=1e-5)
    shares = np.bincount(ids) / len(ids)
    entropy = -np.sum(shares[shares > 0] * np.log(shares[shares > 0]))
    assert result.memoryless_loss == pytest.approx(entropy)
    assert f"The memoryless loss is {entropy:.4g}." in summarize_evaluation(result)
    with pytest.raises(SettingError, match="--split is for the data of the run"):
        evaluate(run_dir, "test", tmp_path / "other.txt")
    (tmp_path / "unknown.txt").write_text("in the plain? " * 12)
    with pytest.raises(RunError, match=r"outside the vocabulary: \?"):
        evaluate(run_dir, text=tmp_path / "unknown.txt")
    (tmp_path / "short.txt").write_text("in the")
    with pytest.raises(SettingError, match="has 6 characters, but scoring needs 11, one window"):
        evaluate(run_dir, text=tmp_path / "short.txt")


@pytest.mark.slow
def test_a_task_without_validation_is_scored_on_fresh_batches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = SequenceModel(Recurrent(GRUCell(8)), 4)
    config = ExperimentConfig(Echo(), model, TrainConfig(200, 0.02, log_every=50), seeds=2)
    runner.run(config, run_dir=tmp_path / "a")
    result = evaluate(tmp_path / "a")
    loss, _ = result.metrics["loss"]
    text = summarize_evaluation(result)
    first, mean = result.metrics["accuracy"][0], result.metrics["accuracy"].mean()
    assert f"  seed 0, final, 200 updates: {loss:.4g}; accuracy {first:.4g}\n" in text
    assert f"\nMean accuracy of 2 seeds: {mean:.4g}, 95% interval " in text
    assert loss < 0.5 * Echo().memoryless_loss
    np.testing.assert_array_equal(evaluate(tmp_path / "a").metrics["loss"][0], loss)
    params = jax.tree.map(lambda leaf: leaf[0], result.networks.params)

    def score(n):
        key = jax.random.fold_in(child_key(root_key(0), "sample"), n)
        batch = Echo().sample_batch(key, n)  # scaled by n
        logits, _ = model.apply({"params": params}, batch.inputs)
        return Echo().loss(logits, batch)

    found = jax.vmap(score)(jnp.arange(100))
    np.testing.assert_allclose(np.mean(found), loss, rtol=1e-5)
    with pytest.raises(SettingError, match="the task of this run, Echo, has no test part"):
        evaluate(tmp_path / "a", "test")
    with pytest.raises(SettingError, match="only language models can read another text"):
        evaluate(tmp_path / "a", text=tmp_path / "text.txt")


@pytest.mark.slow
def test_a_run_without_validation_and_without_its_text(run_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text(TEXT)
    settings = {"batch_size": 4, "sequence_length": 10, "val_fraction": 0.0}
    task = Language.from_file(tmp_path / "text.txt", **settings)
    config = replace(load(run_dir).config, task=task, seeds=1, vmap_size=1)
    config = replace(config, train=replace(config.train, steps=1, validate_every=None))
    runner.run(config, run_dir=tmp_path / "a")
    parts: Any = {"val": "validation", "test": "test"}
    for split, part in parts.items():
        message = f"there is no {part} part of .*: the run was made with --{split}-fraction 0"
        with pytest.raises(SettingError, match=message):
            evaluate(tmp_path / "a", split)
    (tmp_path / "text.txt").rename(tmp_path / "other.txt")
    result = evaluate(tmp_path / "a", text=tmp_path / "other.txt")
    (stream,) = np.asarray(result.stream_loss)
    np.testing.assert_allclose(stream, stream_loss(tmp_path / "a", task.encode(TEXT), 3), rtol=1e-5)
    assert summarize_evaluation(result).startswith(f"Scored on {tmp_path / 'other.txt'}:")
