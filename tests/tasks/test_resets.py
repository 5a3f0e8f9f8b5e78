"""What `Language(reset_probability=...)` is for: networks that get stuck without it."""

import pydoc_data.topics
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrnn.cells import LSTMCell
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import LanguageModel
from jaxrnn.tasks.language import Language
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.loop import make_train

LETTERS, ROWS, WINDOW, WINDOWS = 20, 4, 16, 500
HEADING = "^" * 8
HELD_OUT = 2000  # characters
READ, SCORED = 300, 150  # characters after each fresh start
SEEDS = 3


def make_text() -> str:
    """Rows that each begin with a heading, then letters that nearly always follow a fixed order.

    One letter in ten is drawn at random. So at every place the letter before is enough to predict
    the next one with 0.6 nats. The held-out part, at the end, has no heading.
    """
    rng = np.random.default_rng(0)
    order = rng.permutation(LETTERS)
    follower = np.zeros(LETTERS, int)
    follower[order] = np.roll(order, -1)

    def letters(count: int) -> str:
        letter, text = 0, ""
        for _ in range(count):
            letter = int(follower[letter] if rng.random() < 0.9 else rng.integers(LETTERS))
            text += chr(ord("a") + letter)
        return text

    rest = WINDOW * WINDOWS - len(HEADING)
    rows = [HEADING + letters(rest) for _ in range(ROWS)]
    return "".join(rows) + letters(1 + HELD_OUT)  # the first one is the last row's last target


def score_fresh_starts(model, params, ids, places):
    """Start from a zero carry at each place, read `READ` tokens and score the last `SCORED`.

    Args:
      model: a language model with one LSTM layer.
      params: its parameters.
      ids: [N] int, a text.
      places: [P] int, where to start, each below N - READ.

    Returns:
      [P] mean nats per token, and [P] the largest cell state at the end.
    """
    windows = jnp.asarray(ids[places[:, None] + np.arange(READ + 1)], jnp.int32)  # [P, READ+1]
    logits, carry = model.apply({"params": params}, windows[:, :-1])
    scores = jax.nn.log_softmax(logits[:, -SCORED:])  # [P, SCORED, V]
    of_targets = jnp.take_along_axis(scores, windows[:, -SCORED:, None], axis=-1)
    return -of_targets.mean(axis=(1, 2)), jnp.abs(carry.c).max(axis=1)


def count_on(key, shape, dtype=None, out_sharding=None):
    """Recurrent weights with which a cell state goes on growing in the direction that it has."""
    del key, out_sharding
    return 2 * jnp.eye(*shape, dtype=dtype)


def train(file, probability):
    """Train some networks, and start each at places all over the held-out part.

    Returns:
      [] the memoryless loss, [SEEDS] the last training losses, and for the fresh starts
      [SEEDS, P] losses and [SEEDS, P] cell states.
    """
    task = Language.from_file(
        file,
        batch_size=ROWS,
        sequence_length=WINDOW,
        val_fraction=0.0,
        test_fraction=HELD_OUT / len(file.read_text()),
        reset_probability=probability,
    )
    assert task.batches_per_epoch == WINDOWS, "rows do not begin with headings"
    cell = LSTMCell(24, forget_bias=4.0, recurrent_kernel_init=count_on)
    model = LanguageModel(Recurrent(cell), len(task.vocabulary))
    config = ExperimentConfig(task, model, TrainConfig(2 * WINDOWS, 2e-3))
    ids = task.corpus.test
    places = np.arange(0, len(ids) - READ, 10)

    def train_and_score(seed):
        state, metrics = make_train(config)(seed)
        return metrics["loss"][-100:].mean(), *score_fresh_starts(model, state.params, ids, places)

    results = jax.jit(jax.vmap(train_and_score))(jnp.arange(SEEDS))
    return task.memoryless_loss, *jax.device_get(results)


@pytest.mark.slow
@pytest.mark.optimized
def test_networks_get_stuck_without_resets_only(tmp_path):
    """A network trained on unbroken rows is lost where it starts at a place of another kind.

    The initial weights make each cell of this LSTM count, up or down, for a whole row: the forget
    gate is near 1, and a cell's own output pushes it further. The first characters after a zero
    carry decide the direction. Without resets they are always the heading, so the directions are
    always the same, and the network learns to depend on them. Started at a letter, some cells count
    the other way. No letter turns them, so the network predicts worse than without memory, although
    the letter before would be enough. With resets it sees starts at letters, too.
    """
    file = tmp_path / "text.txt"
    file.write_text(make_text())

    limit, trained, losses, cells = train(file, 0.0)
    assert np.all(trained < 1), "not learned where the carry goes on"
    assert np.all(losses.max(axis=1) > limit + 1)
    assert np.all(np.mean(losses > limit, axis=1) > 0.25)
    assert np.all(cells > 50)

    limit, trained, losses, _ = train(file, 0.1)
    assert np.all(trained < 1)
    assert np.all(losses < limit - 1)


@pytest.mark.slow
@pytest.mark.optimized
def test_no_start_in_a_real_text_is_hopeless(tmp_path):
    """A network trained with the defaults may start where a text's writer starts something.

    The text is the manual that each Python carries. Starts are all digits, capitals, quotation
    marks and beginnings of lines of the part that the network has not seen.
    """
    file = tmp_path / "text.txt"
    file.write_text("\n".join(pydoc_data.topics.topics.values()))
    task = Language.from_file(file, val_fraction=0.0, test_fraction=0.2)
    model = LanguageModel(Recurrent(LSTMCell(128)), len(task.vocabulary))
    train = TrainConfig(8 * task.batches_per_epoch, 4e-3, schedule="cosine", clip_norm=1.0)
    config = ExperimentConfig(task, model, train, seed=1)
    state, metrics = jax.jit(make_train(config))(config.seed)
    assert metrics["loss"][-50:].mean() < 2
    text = "".join(task.vocabulary[n] for n in task.corpus.test)
    starts = re.finditer(r"[0-9A-Z\"']|(?<=\n)", text[:-READ])
    places = np.unique([found.start() for found in starts])
    assert len(places) > 5000
    ids, parts = task.corpus.test, np.array_split(places, 10)
    scores = [score_fresh_starts(model, state.params, ids, part)[0] for part in parts]
    counts = np.bincount(task.corpus.train, minlength=len(task.vocabulary))
    surprise = -np.log((counts + 1) / (counts + 1).sum())[ids]  # of a predictor without memory
    memoryless = [surprise[place + READ - SCORED :][1 : SCORED + 1].mean() for place in places]
    assert np.all(np.concatenate(scores) < memoryless)
