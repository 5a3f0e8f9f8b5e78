"""Grapheme to phoneme on a small dictionary of its own."""

import collections
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tasks.same_batches import check_batches

from jaxrnn.cells import GRUCell
from jaxrnn.errors import RunError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import EncoderDecoder
from jaxrnn.runs.config_json import from_json, to_json
from jaxrnn.tasks.sequence_to_sequence import Pronunciation
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.loop import make_train

SOUNDS = {"b": "B", "d": "D", "a": "AA1", "i": "IY0"}


@pytest.fixture
def dictionary(tmp_path: Path) -> Path:
    """Words of 2 or 4 letters, each said as it is written; every third has a second way."""
    lines = []
    words = (itertools.product(SOUNDS, repeat=length) for length in (2, 4))
    for n, letters in enumerate(itertools.chain(*words)):
        word, sounds = "".join(letters), " ".join(SOUNDS[letter] for letter in letters)
        lines += [f"{word} {sounds}"] + [f"{word}(2) {sounds} D"] * (n % 3 == 0)
    file = tmp_path / "small.dict"
    file.write_text("\n".join(lines))
    return file


def pairs(task, batch):
    split = task.source_length
    return [
        (task.source_text(inputs[:split]), task.target_text(targets[split:]))
        for inputs, targets in zip(*jax.device_get(batch[:2]), strict=True)
    ]


def test_batches_are_pairs_of_the_training_part(dictionary):
    task = Pronunciation(dictionary, max_length=5, batch_size=4000)
    arrays = jax.tree.map(jnp.asarray, task.arrays())
    batch = jax.jit(task.sample_batch)(jax.random.key(0), 0, arrays)
    found = collections.Counter(pairs(task, batch))
    known = {(w, " ".join(way)) for w, ways in task.lexicon.train.items() for way in ways}
    assert set(found) == known
    share = 1 / len(known)
    counts = np.array(list(found.values()))
    assert (abs(counts / 4000 - share) < 5 * np.sqrt(share / 4000)).all()
    assert not {w for w, _ in found} & {*task.lexicon.validation, *task.lexicon.test}


def test_a_key_gives_the_same_batch_from_one_program_and_under_vmap(dictionary):
    check_batches(Pronunciation(dictionary, max_length=5, batch_size=3))


def test_the_validation_batch_is_its_part_with_first_pronunciations(dictionary):
    task = Pronunciation(dictionary, max_length=5)
    arrays = jax.tree.map(jnp.asarray, task.arrays())
    compiled = jax.jit(task.validation_batch)
    found = pairs(task, compiled(0, arrays))
    first = [(word, " ".join(ways[0])) for word, ways in task.lexicon.validation.items()]
    assert found == first and task.validation_size == len(first)
    arrays = jax.tree.map(jnp.asarray, task.test_arrays())
    found = pairs(task, compiled(0, arrays))
    assert found == [(word, " ".join(ways[0])) for word, ways in task.lexicon.test.items()]


def test_the_memoryless_loss_is_the_entropy_of_the_tokens(dictionary):
    task = Pronunciation(dictionary, max_length=5)
    counts = collections.Counter[str]()
    for ways in task.lexicon.train.values():
        for way in ways:
            counts.update([*way, "end"])
    shares = np.array(list(counts.values())) / sum(counts.values())
    assert task.memoryless_loss == pytest.approx(-(shares * np.log(shares)).sum(), rel=1e-6)
    arrays = jax.tree.map(jnp.asarray, task.arrays())
    many = Pronunciation(dictionary, max_length=5, batch_size=2000)
    batch = jax.jit(many.sample_batch)(jax.random.key(0), 0, arrays)
    chances = np.full(task.output_size, 1e-9)
    for sound, count in counts.items():
        token = 0 if sound == "end" else task.target_vocabulary.index(sound)
        chances[token] = count / sum(counts.values())
    logits = np.broadcast_to(np.log(chances).astype(np.float32), (*batch.targets.shape, 40))
    assert float(jax.jit(task.loss)(logits, batch)) == pytest.approx(task.memoryless_loss, rel=0.02)


def test_words_are_encoded_and_the_task_is_saved(dictionary):
    task = Pronunciation(dictionary, stress=True)
    assert task.source_text(task.encode_source("Dab")) == "dab"
    assert task.target_vocabulary[-1] == "UW2" and task.files == (dictionary,)
    assert from_json(json.loads(json.dumps(to_json(task)))) == task
    assert task.solved({}) is None
    with pytest.raises(RunError, match="not a word and its phonemes"):
        dictionary.write_text("this is no dictionary")
        Pronunciation(dictionary)


@pytest.mark.slow
def test_a_small_instance_is_learned(tmp_path):
    """Words that are not among those it is trained on are pronounced."""
    lines = []
    for length in (2, 3, 4):
        for letters in itertools.product(SOUNDS, repeat=length):
            lines.append(" ".join(["".join(letters), *(SOUNDS[letter] for letter in letters)]))
    (tmp_path / "small.dict").write_text("\n".join(lines))
    task = Pronunciation(tmp_path / "small.dict", max_length=4, batch_size=32)
    assert task.validation_size == 9
    sizes = task.source_length, len(task.source_vocabulary), task.output_size
    encoder, decoder = Recurrent(GRUCell(32)), Recurrent(GRUCell(32))
    model = EncoderDecoder(encoder, decoder, *sizes, attention_size=32)
    train = TrainConfig(150, 2e-2, schedule="linear", flatten=True)
    _, metrics = jax.jit(make_train(ExperimentConfig(task, model, train)))(0)
    assert metrics["loss"][0] > 0.8 * task.memoryless_loss
    assert metrics["loss"][-1] < 0.2 * task.memoryless_loss
    assert metrics["validation_exact_match"][-1] > 0.9
