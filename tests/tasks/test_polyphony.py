"""The music task against statements of its definition on small files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io

from jaxrnn.analysis.report import summarize_evaluation
from jaxrnn.cells import GRUCell
from jaxrnn.errors import RunError, SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import SequenceModel
from jaxrnn.runs import runner
from jaxrnn.runs.config_json import from_json, to_json
from jaxrnn.runs.evaluation import evaluate
from jaxrnn.tasks.music import Music
from jaxrnn.training.config import ExperimentConfig, TrainConfig


def cells(pieces):
    """Pieces as the cell array of a .mat file."""
    array = np.empty((1, len(pieces)), object)
    for n, piece in enumerate(pieces):
        array[0, n] = piece
    return array


def draw_pieces(seed, lengths):
    """Random pieces in which low keys are frequent and high keys never sound."""
    draw = np.random.default_rng(seed)
    chances = np.linspace(0.3, 0.0, 88)
    return [(draw.random((length, 88)) < chances).astype(np.uint8) for length in lengths]


PIECES = {
    "traindata": draw_pieces(0, [5, 9, 2, 7, 6]),
    "validdata": draw_pieces(1, [4, 8, 3, 6, 5]),
    "testdata": draw_pieces(2, [11, 3, 4]),
}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    file = tmp_path_factory.mktemp("music") / "small.mat"
    scipy.io.savemat(file, {name: cells(pieces) for name, pieces in PIECES.items()})
    return Music(file, batch_size=2)


def scored(batch):
    """What a batch asks: for each row, pairs of the frames read so far and the next frame."""
    asked = []
    for b, length in enumerate(batch.lengths):
        assert batch.weights[b].tolist() == [1.0] * length + [0.0] * (
            len(batch.weights[b]) - length
        )
        asked.append((batch.inputs[b, :length], batch.targets[b, :length]))
    return asked


def is_piece(pair, piece):
    return pair[0].shape == piece[:-1].shape and (
        (pair[0] == piece[:-1]).all() and (pair[1] == piece[1:]).all()
    )


@pytest.mark.parametrize(("arrays", "name"), [("arrays", "validdata"), ("test_arrays", "testdata")])
def test_every_piece_of_a_part_is_scored_once(task, arrays, name):
    arrays = getattr(task, arrays)()
    assert task.num_validation_batches(arrays) == -(-len(PIECES[name]) // 2)
    compiled = jax.jit(task.validation_batch)
    pairs = []
    for n in range(task.num_validation_batches(arrays)):
        batch = jax.device_get(compiled(n, arrays))
        assert batch.inputs.dtype == batch.targets.dtype == np.float32
        pairs += scored(batch)
    *pairs, rest = pairs  # an odd number of pieces, in twos
    assert not len(rest[0])
    assert all(is_piece(pair, piece) for pair, piece in zip(pairs, PIECES[name], strict=True))


@pytest.mark.slow
@pytest.mark.optimized
def test_a_training_batch_has_different_pieces_which_its_key_decides(task):
    arrays, compiled = task.arrays(), jax.jit(task.sample_batch)
    keys = jax.random.split(jax.random.key(0), 300)
    batches = jax.device_get(jax.jit(jax.vmap(task.sample_batch, (0, None, None)))(keys, 0, arrays))
    counts = np.zeros(5, int)
    for n in range(300):
        batch = jax.tree.map(lambda part, n=n: part[n], batches)
        drawn = [[is_piece(pair, piece) for piece in PIECES["traindata"]] for pair in scored(batch)]
        assert np.sum(drawn) == 2 and np.sum(drawn, axis=0).max() == 1
        counts += np.sum(drawn, axis=0)
    share = counts / 300  # each is in a batch with probability 2/5
    np.testing.assert_allclose(share, 0.4, atol=5 * np.sqrt(0.24 / 300))
    jax.tree.map(
        np.testing.assert_array_equal,
        compiled(keys[7], 3, arrays),
        jax.tree.map(lambda part: part[7], batches),
    )


def test_the_loss_is_summed_over_keys_and_averaged_over_frames(task):
    arrays = task.arrays()
    total = frames = 0.0
    logits = np.random.default_rng(3).normal(size=(2, 7, 88)).astype(np.float32)
    weighted = []
    for n in range(3):
        batch = jax.device_get(task.validation_batch(jnp.int32(n), arrays))
        weighted.append((float(task.loss(jnp.asarray(logits), batch)), batch.weights.sum()))
        for b in range(2):
            for t in range(batch.lengths[b]):
                for key in range(88):
                    p = 1 / (1 + np.exp(-float(logits[b, t, key])))
                    total -= np.log(p if batch.targets[b, t, key] else 1 - p)
                frames += 1
    losses, weights = np.array(weighted).T
    np.testing.assert_allclose(np.sum(losses * weights) / weights.sum(), total / frames, rtol=1e-5)


def test_the_memoryless_loss_is_that_of_the_best_constant(task):
    targets = np.concatenate([piece[1:] for piece in PIECES["traindata"]]).astype(float)
    share = targets.mean(axis=0)

    def loss(share):
        share = np.clip(share, 1e-12, 1 - 1e-12)
        return -np.mean(np.sum(targets * np.log(share) + (1 - targets) * np.log(1 - share), axis=1))

    np.testing.assert_allclose(task.memoryless_loss, loss(share), rtol=1e-6)
    draw = np.random.default_rng(0)
    for _ in range(20):
        assert loss(share + 0.02 * draw.normal(size=88)) > task.memoryless_loss


def test_accuracy_is_of_the_keys_that_sound_or_are_predicted(task):
    batch = task.validation_batch(jnp.int32(0), task.arrays())
    outputs = np.where(batch.targets > 0, 3.0, -3.0).astype(np.float32)
    np.testing.assert_allclose(task.metrics(jnp.asarray(outputs), batch)["accuracy"], 1.0)
    outputs[:, :, 40:] = -3.0
    outputs[0, 1, 80:84] = 1.0
    found, shares = task.metrics(jnp.asarray(outputs), batch)["accuracy"], []
    for b in range(2):
        for t in range(batch.lengths[b]):
            true = set(np.flatnonzero(batch.targets[b, t]).tolist())
            said = set(np.flatnonzero(outputs[b, t] > 0).tolist())
            shares.append(len(true & said) / len(true | said) if true | said else 1.0)
    np.testing.assert_allclose(found, np.mean(shares), rtol=1e-5)


def test_the_task_is_rebuilt_from_json(task):
    assert from_json(json.loads(json.dumps(to_json(task)))) == task
    assert task.files == (task.file,) and task.solved({}) is None
    with pytest.raises(SettingError, match="batch size must be at least 1"):
        Music(task.file, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"validdata": None}, "validdata of .* is not there, or is not a cell array of pieces"),
        ({"testdata": np.zeros((3, 88))}, "testdata of .* is not there, or is not a cell array"),
        ({"traindata": cells([np.zeros((9, 88)), np.zeros((4, 87))])}, r"piece 2 in traindata of"),
        ({"traindata": cells([np.zeros((1, 88))] * 2)}, r"at least 2 frames, but its shape is"),
        ({"testdata": cells([np.full((3, 88), 2)])}, "piece 1 in testdata .* than 0 and 1"),
        ({"testdata": cells([np.full((3, 88), np.nan)])}, "has other numbers than 0 and 1"),
        (
            {"traindata": cells([np.zeros((9, 88))] * 1)},
            "has 1 pieces to train on, but a batch has",
        ),
    ],
)
def test_bad_files_are_one_line(tmp_path, change, message):
    content = {name: cells(pieces) for name, pieces in PIECES.items()} | change
    content = {name: part for name, part in content.items() if part is not None}
    scipy.io.savemat(tmp_path / "bad.mat", content)
    with pytest.raises(RunError, match=message) as refused:
        Music(tmp_path / "bad.mat", 2).arrays()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "content", [b"", b"text\n" * 100, b"MATLAB 7.3 MAT-file".ljust(600, b"\0")]
)
def test_other_files_are_refused_in_one_line(tmp_path, content):
    (tmp_path / "bad.mat").write_bytes(content)
    with pytest.raises(RunError, match=r"bad\.mat is not a \.mat file that SciPy can read"):
        Music(tmp_path / "bad.mat").arrays()


def test_a_truncated_file_is_refused(task, tmp_path):
    whole = task.file.read_bytes()
    (tmp_path / "bad.mat").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match=r"bad\.mat"):
        Music(tmp_path / "bad.mat").arrays()


@pytest.mark.slow
def test_a_network_learns_and_its_test_part_is_scored(tmp_path, monkeypatch):
    """Each piece alternates between two chords; the network says the other one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    chords = np.zeros((2, 88), np.uint8)
    chords[0, [30, 34, 37]] = chords[1, [32, 35, 39]] = 1
    pieces = [np.tile(chords, (5, 1))[n % 2 : 9 - n % 3] for n in range(6)]
    file = tmp_path / "chords.mat"
    scipy.io.savemat(
        file, {name: cells(pieces) for name in PIECES} | {"testdata": cells(pieces[:2])}
    )
    task, model = Music(file, 3), SequenceModel(Recurrent(GRUCell(8)), 88)
    train = TrainConfig(150, 0.05, validate_every=50, log_every=50)
    run_dir = runner.run(ExperimentConfig(task, model, train), run_dir=tmp_path / "a").run_dir
    found, validated = evaluate(run_dir, "test"), evaluate(run_dir)
    assert found.metrics["loss"] < task.memoryless_loss / 20
    assert found.metrics["accuracy"] == validated.metrics["accuracy"] == 1.0
    assert found.metrics["loss"] != validated.metrics["loss"]
    assert summarize_evaluation(found).startswith("Scored on its test set:")
    with pytest.raises(SettingError, match="only language models can read another text"):
        evaluate(run_dir, text=file)
    scipy.io.savemat(file, {name: cells(pieces) for name in PIECES})
    with pytest.raises(RunError, match="has changed since"):
        evaluate(run_dir, "test")
