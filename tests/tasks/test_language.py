"""The language task: inputs and targets of each batch, and which tokens are scored."""

import math
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn import losses
from jaxrnn.cells import GRUCell, LSTMCell
from jaxrnn.errors import RunError, SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Stack
from jaxrnn.models import LanguageModel
from jaxrnn.tasks.language import Language
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.loop import make_train
from jaxrnn.training.validation import make_validate

TEXT = "".join(chr(97 + n * n % 23) for n in range(700)) + "xyz\n" * 25  # 800 characters


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def decoded(task, ids):
    return ["".join(task.vocabulary[i] for i in row) for row in np.asarray(ids)]


@pytest.mark.parametrize(("batch_size", "length", "share"), [(1, 7, 0.9), (3, 10, 0.8), (8, 4, 1)])
def test_each_row_continues_where_it_stopped(file, key, batch_size, length, share):
    """Over three epochs, each row reads its part of the text, with a reset at each start."""
    task = Language.from_file(
        file,
        batch_size=batch_size,
        sequence_length=length,
        val_fraction=0,
        test_fraction=1 - share,
        reset_probability=0.0,
    )
    windows, arrays = task.batches_per_epoch, task.arrays()
    used = TEXT[: batch_size * windows * length]
    assert len(TEXT) * share - len(used) <= batch_size * length
    read, said = [""] * batch_size, [""] * batch_size
    sample = jax.jit(task.sample_batch)
    for step in range(3 * windows):
        batch = sample(key, step, arrays)
        assert batch.inputs.shape == (batch_size, length) and batch.inputs.dtype == jnp.int32
        assert np.all(batch.weights == 1)
        first = np.zeros((batch_size, length), bool)
        first[:, 0] = step % windows == 0
        np.testing.assert_array_equal(batch.resets, first)
        read = [a + b for a, b in zip(read, decoded(task, batch.inputs), strict=True)]
        said = [a + b for a, b in zip(said, decoded(task, batch.targets), strict=True)]
    part = windows * length
    for row in range(batch_size):
        assert read[row] == 3 * used[row * part : (row + 1) * part]
        assert said[row] == 3 * TEXT[row * part + 1 : (row + 1) * part + 1]


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5])
def test_rows_start_with_a_zero_carry_with_the_reset_probability(file, key, probability):
    """Independently of each other and of the step, always at the first step of a window."""
    task = Language.from_file(
        file, batch_size=8, sequence_length=4, reset_probability=probability, val_fraction=0
    )
    arrays, steps = task.arrays(), jnp.arange(2000)
    keys = jax.random.split(key, 2000)
    compiled = jax.jit(jax.vmap(task.sample_batch, (0, 0, None)))
    resets = np.asarray(compiled(keys, steps, arrays).resets)
    assert not resets[..., 1:].any()
    starts = np.asarray(resets[..., 0])  # [steps, B]
    epochs = np.arange(2000) % task.batches_per_epoch == 0
    assert starts[epochs].all()
    rest = starts[~epochs]
    error = 4 * np.sqrt(probability * (1 - probability) / rest.size)  # four standard deviations
    assert abs(rest.mean() - probability) <= error
    both = (rest[:, 0] & rest[:, 1]).mean()
    assert abs(both - probability**2) <= 4 * np.sqrt(probability**2 / len(rest)) + 1e-9
    again = jax.jit(task.sample_batch)(keys[7], 7, arrays)
    np.testing.assert_array_equal(again.resets, resets[7])


@pytest.mark.parametrize(("batch_size", "length"), [(1, 5), (4, 16), (34, 16), (50, 5)])
def test_every_validation_token_is_scored_once(file, batch_size, length):
    task = Language.from_file(
        file, batch_size=batch_size, sequence_length=length, val_fraction=0.19, test_fraction=0.11
    )
    arrays, held_out = task.arrays(), TEXT[560:712]
    compiled = jax.jit(task.validation_batch)
    scored, said = Counter(), {}
    rows: list[str] = []
    for n in range(task.num_validation_batches(arrays)):
        batch = jax.device_get(compiled(jnp.int32(n), arrays))
        lengths = np.asarray(batch.lengths).tolist()
        if n == 0:
            assert not batch.weights.any()
            rows = [""] * len(batch.inputs)
            assert lengths == [0] + [length] * (len(rows) - 1)
        for row, (read, target) in enumerate(
            zip(decoded(task, batch.inputs), decoded(task, batch.targets), strict=True)
        ):
            rows[row] += read[: lengths[row]]
            for t in np.flatnonzero(batch.weights[row]):
                before = rows[row][: len(rows[row]) - length + t + 1]
                assert held_out.count(before + target[t]) >= 1  # it is what follows
                scored[row, n, t] += 1
                said.setdefault(row, []).append(target[t])
    assert "".join("".join(said[row]) for row in sorted(said)) == held_out[1:]
    assert set(scored.values()) == {1}


def network(cell=LSTMCell, vocabulary=26, **settings):
    model = LanguageModel(Stack((Recurrent(cell(5)), Recurrent(cell(4)))), vocabulary, **settings)
    params = jax.jit(model.init)(jax.random.key(3), jnp.zeros((1, 1), jnp.int32))["params"]
    return model, jax.tree.map(lambda leaf: 3 * leaf, params)


@pytest.mark.slow
@pytest.mark.parametrize("cell", [LSTMCell, GRUCell])
def test_validation_of_one_row_is_the_loss_of_the_whole_text(file, cell):
    """With one row, the carry is passed from the first token to the last."""
    task = Language.from_file(
        file, batch_size=1, sequence_length=13, val_fraction=0.3, test_fraction=0.2
    )
    model, params = network(cell, len(task.vocabulary))
    ids = jnp.asarray(task.corpus.validation.astype(np.int32))[None]
    outputs, _ = jax.jit(model.apply)({"params": params}, ids[:, :-1])
    expected = losses.sequence_cross_entropy(outputs, ids[:, 1:], jnp.ones(outputs.shape[:2]))
    right = (outputs.argmax(-1) == ids[:, 1:]).mean()
    found = jax.jit(make_validate(task, model))(params, task.arrays())
    np.testing.assert_allclose(found["validation_loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(found["validation_accuracy"], right, rtol=1e-5)


def test_each_validation_row_is_warmed_up_by_the_window_before_it(file):
    task = Language.from_file(
        file, batch_size=4, sequence_length=6, val_fraction=0.45, test_fraction=0.05
    )
    model, params = network(LSTMCell, len(task.vocabulary))
    ids = task.corpus.validation.astype(np.int32)
    part = (task.num_validation_batches(task.arrays()) - 1) * 6
    total, count, apply = 0.0, 0, jax.jit(model.apply)
    for row in range(4):
        start = max(row * part - 6, 0)
        stop = min((row + 1) * part, len(ids) - 1)
        outputs, _ = apply({"params": params}, ids[None, start:stop])
        chances = np.asarray(jax.nn.log_softmax(outputs[0]))[row * part - start :]
        targets = ids[row * part + 1 : stop + 1]
        total -= chances[np.arange(len(targets)), targets].sum()
        count += len(targets)
    assert count == len(ids) - 1
    found = jax.jit(make_validate(task, model))(params, task.arrays())
    np.testing.assert_allclose(found["validation_loss"], total / count, rtol=1e-5)


@pytest.mark.slow
def test_validation_of_a_stateless_task_resets_the_carry_for_each_batch(file):
    class Apart(Language):
        stateful = False

        def metrics(self, outputs, batch):
            return {"scores": outputs[0, 0]}  # many numbers: they are not validated

    task = Apart.from_file(
        file, batch_size=2, sequence_length=6, val_fraction=0.2, test_fraction=0.3
    )
    model, params = network(LSTMCell, len(task.vocabulary))
    total, count, apply = 0.0, 0.0, jax.jit(model.apply)
    for n in range(task.num_validation_batches(task.arrays())):
        batch = task.validation_batch(jnp.int32(n), task.arrays())
        outputs, _ = apply({"params": params}, batch.inputs)
        loss = losses.sequence_cross_entropy(outputs, batch.targets, batch.weights)
        total, count = total + loss * batch.weights.sum(), count + batch.weights.sum()
    found = jax.jit(make_validate(task, model))(params, task.arrays())
    assert found.keys() == {"validation_loss"}
    np.testing.assert_allclose(found["validation_loss"], total / count, rtol=1e-5)


def test_baseline_is_the_entropy_of_the_tokens(file):
    task = Language.from_file(file, batch_size=2, sequence_length=5, val_fraction=0.4)
    counts = Counter(TEXT[:480])
    expected = -sum(n / 480 * math.log(n / 480) for n in counts.values())
    assert task.memoryless_loss == pytest.approx(expected)
    assert task.output_size == len(set(TEXT))


def test_format_loss_gives_bits_and_perplexity(tmp_path):
    (tmp_path / "한글.txt").write_text("한국어 문장입니다.\n" * 40)
    said = Language.from_file(tmp_path / "한글.txt", batch_size=2, sequence_length=5).format_loss(
        math.log(8)
    )
    assert said == " nats per character (3 bits, perplexity 8)"
    jamo = Language.from_file(tmp_path / "한글.txt", "jamo", batch_size=2, sequence_length=5)
    each = len(jamo.corpus.validation) / jamo.corpus.characters[1]
    assert 2 < each < 3
    assert jamo.format_loss(math.log(8)) == (
        f" nats per jamo (3 bits, perplexity 8; {3 * each:.4g} bits per character)"
    )


def test_a_short_text_raises_with_the_length_needed(file):
    with pytest.raises(RunError, match="720 characters, but one batch of 80 windows of 9 needs"):
        Language.from_file(file, batch_size=80, sequence_length=9)
    Language.from_file(file, batch_size=79, sequence_length=9)
    with pytest.raises(
        RunError, match="80 characters, but one window of 80 needs 81: use a longer"
    ):
        Language.from_file(file, batch_size=1, sequence_length=80)
    Language.from_file(file, batch_size=1, sequence_length=79)
    Language.from_file(file, batch_size=1, sequence_length=400, val_fraction=0.0)


def test_invalid_counts_raise():
    with pytest.raises(SettingError, match="batch size must be at least 1"):
        Language(Path("none"), ("a", "b"), batch_size=0)


def test_a_changed_file_with_new_tokens_raises(file):
    task = Language.from_file(file, batch_size=2, sequence_length=5)
    file.write_text(TEXT + "Ü")
    again = Language(file, task.vocabulary, batch_size=2, sequence_length=5)
    with pytest.raises(RunError, match="outside the vocabulary: Ü"):
        _ = again.corpus


@pytest.mark.slow
def test_a_small_instance_is_learned(tmp_path):
    """After an a comes b or c, in turn, so the letter before the a is needed."""
    (tmp_path / "text.txt").write_text("abac" * 200)
    task = Language.from_file(tmp_path / "text.txt", batch_size=4, sequence_length=8)
    model = LanguageModel(Recurrent(LSTMCell(8)), task.output_size)
    train = TrainConfig(100, 0.05, flatten=True)
    _, metrics = jax.jit(make_train(ExperimentConfig(task, model, train)))(0)
    assert metrics["loss"][0] > 0.8 * task.memoryless_loss
    assert metrics["validation_loss"][-1] < 0.1 * task.memoryless_loss
