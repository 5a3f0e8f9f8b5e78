"""Runs that start from the networks of another run."""

import json
from dataclasses import replace
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from example_tasks import Echo
from flax import linen as nn

from jaxrnn.cells import GRUCell, LSTMCell
from jaxrnn.cli import info
from jaxrnn.errors import RunError, SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import LanguageModel, SequenceModel
from jaxrnn.runs import compatibility, runner
from jaxrnn.runs.initialization import initial_state
from jaxrnn.runs.loading import load, load_all
from jaxrnn.runs.verification import verify
from jaxrnn.tasks.language import Language
from jaxrnn.tasks.next_character import NextCharacter
from jaxrnn.training.calls import train_in_memory
from jaxrnn.training.config import ExperimentConfig, InitFrom, TrainConfig
from jaxrnn.training.loop import TrainLoop, make_train

TEXT = "the rain in spain stays mainly in the plain. " * 20
TRAIN = TrainConfig(12, 0.05, log_every=4, validate_every=4)


def language_config(file, vocabulary=None, hidden=6, seeds=2, cell=None, **options):
    task = Language.from_file(file, batch_size=3, sequence_length=8, vocabulary=vocabulary)
    model = LanguageModel(Recurrent(cell or GRUCell(hidden)), task.output_size)
    return ExperimentConfig(task, model, TRAIN, 5, seeds, seeds, **options)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run of two seeds."""
    folder = tmp_path_factory.mktemp("source")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        (folder / "text.txt").write_text(TEXT)
        return runner.run(language_config(folder / "text.txt"), run_dir=folder / "run")


@pytest.fixture(autouse=True)
def cache(cache_home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))


@pytest.mark.slow
@pytest.mark.parametrize("final", [False, True])
def test_each_seed_starts_from_the_same_seed(source, tmp_path, final):
    config = replace(source.config, init_from=InitFrom(source.run_dir, final))
    loop = TrainLoop(config)
    state, _ = initial_state(loop)
    wanted = load_all(source.run_dir, final=final)
    chex.assert_trees_all_equal(state.params, wanted.params)
    result = runner.run(config, run_dir=tmp_path / "a")
    again = train_in_memory(config, first=state)
    chex.assert_trees_all_equal(result.state, again.state)
    # The first line of metrics measures the network that it starts from.
    first = result.history.values["validation_loss"][:, 0]
    if not final:
        losses = [load(source.run_dir, model_seed=seed).validation_loss for seed in (5, 6)]
        np.testing.assert_allclose(first, np.array(losses), rtol=1e-6)
    assert (first < source.history.values["validation_loss"][:, 0]).all()
    assert verify(result.run_dir).holds
    manifest = json.loads((result.run_dir / "manifest.json").read_text())
    assert manifest["init_from"]["checkpoint"] == str(wanted.checkpoint)
    assert len(manifest["init_from"]["sha256"]) == 64


@pytest.mark.slow
def test_one_network_can_start_many_seeds(source, tmp_path):
    single = replace(source.config, seeds=1, vmap_size=1)
    runner.run(single, run_dir=tmp_path / "single")
    many = replace(source.config, seeds=3, vmap_size=3, init_from=InitFrom(tmp_path / "single"))
    params = initial_state(TrainLoop(many))[0].params
    for leaf in jax.tree.leaves(params):
        np.testing.assert_array_equal(leaf[0], leaf[2])
    with pytest.raises(SettingError, match="has the seeds 5 to 6, not 7"):
        three = replace(source.config, seeds=3, vmap_size=3, init_from=InitFrom(source.run_dir))
        initial_state(TrainLoop(three))


@pytest.mark.slow
def test_a_changed_source_is_refused(source, tmp_path):
    first = runner.run(source.config, run_dir=tmp_path / "first")
    config = replace(source.config, init_from=InitFrom(first.run_dir))
    result = runner.run(config, run_dir=tmp_path / "second")
    longer = replace(source.config, train=replace(TRAIN, learning_rate=0.01))
    for entry in ("checkpoints", "config.json"):
        (first.run_dir / entry).rename(tmp_path / entry)
    other = runner.run(longer, run_dir=tmp_path / "other")
    for entry in ("checkpoints", "config.json"):
        (other.run_dir / entry).rename(first.run_dir / entry)
    with pytest.raises(RunError, match="has other parameters than those that this run started"):
        verify(result.run_dir)


def started_from(source, cell, **options):
    """The experiment of another cell that starts from the run."""
    file = source.config.task.file
    return language_config(file, cell=cell, init_from=InitFrom(source.run_dir), **options)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (GRUCell(7), r"model\.recurrent\.cell\.features is 6 in .*, and 7 in this model"),
        (LSTMCell(6), r"model\.recurrent\.cell is GRUCell in .*, and LSTMCell in this model"),
        (GRUCell(6, reset_after=False), r"cell\.reset_after is True in .*, and False in"),
        (GRUCell(6, activation_fn=nn.relu), r"cell\.activation_fn is tanh in .*, and relu in"),
        (GRUCell(6, carry_init=nn.initializers.ones), r"carry_init is zeros in .*, and ones in"),
    ],
    ids=["size", "cell", "reset_after", "activation_fn", "carry_init"],
)
def test_another_model_is_refused(source, cell, message):
    with pytest.raises(SettingError, match="run to start from do not fit: .*" + message):
        initial_state(TrainLoop(started_from(source, cell)))


def test_what_may_differ_between_models(source):
    cell = GRUCell(6, dtype=jnp.bfloat16, kernel_init="lecun_normal")
    layer = Recurrent(cell, recurrent_dropout=0.2, remat_chunk_size=4, implementation="scan")
    config = started_from(source, cell)
    model = LanguageModel(layer, source.config.task.output_size, dropout=0.1)
    state, _ = initial_state(TrainLoop(replace(config, model=model)))
    chex.assert_trees_all_equal(state.params, load_all(source.run_dir).params)


def test_parameters_of_another_type_are_named(source):
    config = started_from(source, GRUCell(6, param_dtype=jnp.bfloat16))
    with pytest.raises(SettingError, match=r"param_dtype is float32 in RUN, and bfloat16 in this"):
        compatibility.check_model(config, source.config, "RUN")


def test_another_tokenizer_is_named(source, tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    task = Language.from_file(tmp_path / "a.txt", "bytes", batch_size=3, sequence_length=8)
    config = replace(source.config, task=task, init_from=InitFrom(source.run_dir))
    with pytest.raises(SettingError, match="has the tokenizer characters, not bytes"):
        initial_state(TrainLoop(config))


def test_a_hidden_size_is_not_taken_for_a_vocabulary(source, tmp_path):
    """The run's vocabulary has as many tokens as this one's hidden size."""
    old, new = source.config.task.vocabulary, tuple(sorted({*source.config.task.vocabulary, "!"}))
    (tmp_path / "other.txt").write_text(TEXT.replace("rain", "rain!"))
    start = InitFrom(source.run_dir)
    config = language_config(tmp_path / "other.txt", new, len(old), init_from=start)
    with pytest.raises(SettingError, match=r"cell\.features is 6 in .*, and 14 in this model"):
        initial_state(TrainLoop(config))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("text", ["abcdeabc", "abcd", "olleh"], ids=["five", "four", "reordered"])
def test_another_texts_characters_are_refused(tmp_path, text):
    def config(text, **options):
        task = NextCharacter(text)
        model = SequenceModel(Recurrent(GRUCell(5)), task.output_size)
        return ExperimentConfig(task, model, TrainConfig(2), **options)

    first = InitFrom(runner.run(config("hihello"), run_dir=tmp_path / "hi").run_dir)
    named = f"must be 'h', 'i', 'e', 'l', 'o', .* not '{text[0]}', '{text[1]}'"
    with pytest.raises(SettingError, match="the characters " + named):
        initial_state(TrainLoop(config(text, init_from=first)))
    initial_state(TrainLoop(config("hiello", init_from=first)))


def test_info_names_the_source(source, tmp_path):
    config = replace(source.config, init_from=InitFrom(source.run_dir))
    result = runner.run(config, run_dir=tmp_path / "a")
    assert f"\n  started from {source.run_dir}/checkpoints/00000012\n" in info.of_run(
        result.run_dir
    )
    assert "started from" not in info.of_run(source.run_dir)


def test_a_vocabulary_can_be_extended_but_not_changed(source, tmp_path):
    task: Any = source.config.task
    old = task.vocabulary
    (tmp_path / "other.txt").write_text(TEXT.replace("rain", "Regen!"))
    new = tuple(sorted({*old, *"Rg!"}))
    config = language_config(tmp_path / "other.txt", new, init_from=InitFrom(source.run_dir))
    params = initial_state(TrainLoop(config))[0].params
    one = load(source.run_dir, model_seed=6)
    new_task: Any = config.task
    ids, text = new_task.encode("in the plain"), task.encode("in the plain")
    logits, _ = config.model.apply({"params": jax.tree.map(lambda a: a[1], params)}, ids[None])
    wanted, _ = one.model.apply({"params": one.params}, text[None])
    keep = [new.index(token) for token in old]
    np.testing.assert_allclose(logits[..., jnp.array(keep)], wanted, atol=1e-6)
    fresh = TrainLoop(replace(config, init_from=None)).init(np.uint32(6)).params
    added = new.index("!")
    np.testing.assert_array_equal(
        params["readout"]["kernel"][1][:, added], fresh["readout"]["kernel"][:, added]
    )
    (tmp_path / "third.txt").write_text("other words only. " * 40)
    third = language_config(tmp_path / "third.txt", init_from=InitFrom(source.run_dir))
    with pytest.raises(SettingError, match="must include that of the run to start from, but lacks"):
        initial_state(TrainLoop(third))


def test_without_a_disk_there_is_no_other_run(source):
    config = replace(source.config, init_from=InitFrom(source.run_dir))
    with pytest.raises(SettingError, match="init_from must be None"):
        make_train(config)
    other = ExperimentConfig(Echo(), SequenceModel(Recurrent(GRUCell(6)), 4), TrainConfig(2))
    with pytest.raises(SettingError, match="do not fit"):
        initial_state(TrainLoop(replace(other, init_from=InitFrom(source.run_dir), seed=5)))
