"""Tasks from sequence to sequence: against plain Python, their distributions and baselines.

Statistical bounds are five standard errors wide; the keys are fixed.
"""

import collections
import datetime
import math
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tasks.same_batches import check_batches

from jaxrnn.cells import GRUCell
from jaxrnn.errors import SettingError
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.models import EncoderDecoder
from jaxrnn.tasks.sequence_to_sequence import Addition, Dates, Reverse, SequenceToSequence, Sort
from jaxrnn.tasks.sequence_to_sequence.dates import FORMATS, MONTHS
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.loop import make_train
from jaxrnn.types import Batch

MANY = 8_000
TASKS: dict[str, Any] = {
    "reverse": Reverse(2, 5, 3, MANY),
    "sort": Sort(1, 4, 3, MANY),
    "addition": Addition(1, 3, MANY),
    "wide addition": Addition(8, 9, MANY),
    "dates": Dates(1999, 2004, batch_size=MANY),
}


@cache
def sample(name: str) -> Any:  # a Batch of NumPy arrays
    task = TASKS[name]
    batch = jax.jit(task.sample_batch)(jax.random.key(0), 0, task.arrays())
    return jax.device_get(batch)


@cache
def texts(name: str) -> list[tuple[str, str]]:
    """Sources and targets, read without the task's own functions."""
    task, batch = TASKS[name], sample(name)
    split = task.source_length

    def read(ids, vocabulary):
        return "".join(vocabulary[i] for i in ids)

    found = []
    for inputs, targets, weights, length in zip(*batch[:4], strict=True):
        source, before = inputs[:length], inputs[split:]
        end = int(weights.sum()) - 1
        assert (inputs[length:split] == 0).all() and (source > 0).all()
        assert (targets[:split] == 0).all() and (weights[:split] == 0).all()
        target = targets[split:]
        assert target.shape == (task.target_length,) and (target[:end] > 0).all()
        assert (target[end:] == 0).all() and weights[split:].tolist() == [1.0] * (end + 1) + [
            0.0
        ] * (task.target_length - end - 1)
        assert before[0] == 0 and (before[1:] == target[:-1]).all()
        found.append(
            (read(source, task.source_vocabulary), read(target[:end], task.target_vocabulary))
        )
    return found


def within_chance(counts, shares, n) -> None:
    """Fail for counts of n draws that do not have these shares."""
    counts, shares = np.asarray(counts), np.asarray(shares)
    np.testing.assert_array_less(abs(counts / n - shares), 5 * np.sqrt(shares / n) + 1e-9)


def test_reverse_and_sort_do_what_python_does():
    for source, target in texts("reverse"):
        assert target == source[::-1] and 2 <= len(source) <= 5
    for source, target in texts("sort"):
        assert target == "".join(sorted(source)) and 1 <= len(source) <= 4


@pytest.mark.parametrize("name", ["addition", "wide addition"])
def test_addition_does_what_python_does(name):
    for source, target in texts(name):
        first, second = source.split("+")
        assert target == str(int(first) + int(second))
        for number in (first, second):
            assert number == str(int(number))  # no leading zeros


def spellings(date: datetime.date) -> list[str]:
    """The eight formats by strftime, in the order of `FORMATS`."""
    day, month = str(date.day), str(date.month)
    styles = [
        f"{day} %B %Y",
        "%d %b %Y",
        f"%B {day}, %Y",
        f"%b {day}, %Y",
        f"%A, {day} %B %Y",
        f"%a {day} %b %Y",
        f"{day}.{month}.%Y",
        "%m/%d/%Y",
    ]
    return [date.strftime(style).lower() for style in styles]


@pytest.mark.slow
def test_all_dates_of_a_range_in_all_formats():
    task = Dates(1895, 2105)
    days = task.arrays()
    assert days.shape == ((datetime.date(2106, 1, 1) - datetime.date(1895, 1, 1)).days, 4)
    for n in range(len(FORMATS)):
        source = np.asarray(task.write(jnp.asarray(days[::13]), jnp.full(len(days[::13]), n)))
        for ids, (year, month, day, _) in zip(source, days[::13].tolist(), strict=True):
            date = datetime.date(year, month, day)
            assert task.source_text(ids) == spellings(date)[n]
    numbers = [datetime.date(*row[:3]).toordinal() for row in days.tolist()]
    assert numbers == list(range(numbers[0], numbers[0] + len(days)))


def test_sampled_dates_are_written_in_iso_format():
    known = {}
    day = datetime.date(1999, 1, 1)
    while day.year < 2005:
        for n, spelling in enumerate(spellings(day)):
            known[spelling] = day.isoformat(), n
        day += datetime.timedelta(1)
    assert [known[source][0] for source, _ in texts("dates")] == [t for _, t in texts("dates")]
    formats = collections.Counter(known[source][1] for source, _ in texts("dates"))
    within_chance([formats[n] for n in range(8)], np.full(8, 1 / 8), MANY)
    months = collections.Counter(target[5:7] for _, target in texts("dates"))
    lengths = [31, 28 + 2 / 6, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]  # 2000 and 2004 are leap
    shares = np.array(lengths) / sum(lengths)
    within_chance([months[f"{n:02}"] for n in range(1, 13)], shares, MANY)


def test_own_formats_of_dates():
    task = Dates(2000, 2000, formats=("{mon}{day0}/{year}",), batch_size=1)
    date = jnp.array([[2000, 2, 9, 2]])
    assert task.source_text(jax.jit(task.write)(date, jnp.array([0]))[0]) == "feb09/2000"
    assert task.source_length == len("feb09/2000")
    assert max(map(len, MONTHS)) == 9


def test_symbols_and_lengths_are_uniform():
    lengths = collections.Counter(len(source) for source, _ in texts("reverse"))
    within_chance([lengths[n] for n in range(2, 6)], np.full(4, 1 / 4), MANY)
    pairs = collections.Counter(source[:2] for source, _ in texts("reverse"))
    within_chance(list(pairs.values()), np.full(9, 1 / 9), MANY)
    last = collections.Counter(source[-1] for source, _ in texts("reverse"))
    within_chance(list(last.values()), np.full(3, 1 / 3), MANY)


def test_numbers_have_uniform_digit_counts_and_are_uniform_given_them():
    pairs = [tuple(map(int, source.split("+"))) for source, _ in texts("addition")]
    sizes = collections.Counter((len(str(a)), len(str(b))) for a, b in pairs)
    within_chance([sizes[a, b] for a in (1, 2, 3) for b in (1, 2, 3)], np.full(9, 1 / 9), MANY)
    for side in (0, 1):
        ones = collections.Counter(pair[side] for pair in pairs if pair[side] < 10)
        within_chance([ones[n] for n in range(10)], np.full(10, 1 / 10), sum(ones.values()))
        tens = collections.Counter(pair[side] // 10 for pair in pairs if 10 <= pair[side] < 100)
        within_chance([tens[n] for n in range(1, 10)], np.full(9, 1 / 9), sum(tens.values()))
        hundreds = collections.Counter(pair[side] // 100 for pair in pairs if pair[side] >= 100)
        within_chance(
            [hundreds[n] for n in range(1, 10)], np.full(9, 1 / 9), sum(hundreds.values())
        )


def blind_logits(task: SequenceToSequence, targets: list[str], chances: list[float]) -> Any:
    """Return log-probabilities of the next token given those before, from all targets there are."""
    beginnings: dict[str, float] = collections.defaultdict(float)
    for target, chance in zip(targets, chances, strict=True):
        for end in range(len(target) + 1):
            beginnings[target[:end]] += chance
        beginnings[target + "."] += chance

    @cache
    def score(before: str) -> np.ndarray:
        tokens = [".", *task.target_vocabulary[1:]]
        found = [beginnings.get(before + token, 0.0) for token in tokens]
        return np.log(np.maximum(found, 1e-30))

    return score


def all_targets(name: str) -> tuple[list[str], list[float]]:
    """Every target of a small task with its probability, by enumeration of its sources."""
    task, found = TASKS[name], collections.defaultdict[str, float](float)
    if name == "addition":
        sizes = [range(10), range(10, 100), range(100, 1000)]
        chance = {n: 1 / 3 / len(numbers) for numbers in sizes for n in numbers}
        for a in range(1000):
            for b in range(1000):
                found[str(a + b)] += chance[a] * chance[b]
    elif name == "dates":
        days = [datetime.date.fromordinal(n) for n in range(729755, 731947)]  # 1999 to 2004
        found.update({day.isoformat(): 1 / len(days) for day in days})
    else:
        lengths = range(task.min_length, task.max_length + 1)
        for length in lengths:
            for n in range(3**length):
                word = "".join("abc"[n // 3**k % 3] for k in range(length))
                word = word if name == "reverse" else "".join(sorted(word))
                found[word] += 1 / len(lengths) / 3**length
    return list(found), list(found.values())


@pytest.mark.parametrize("name", ["reverse", "sort", "addition", "dates"])
def test_the_memoryless_loss_is_that_of_the_best_decoder_that_sees_no_source(name):
    task, rows = TASKS[name], 4000
    targets, chances = all_targets(name)
    assert sum(chances) == pytest.approx(1.0)
    nats = -sum(chance * math.log(chance) for chance in chances)
    tokens = sum(
        chance * (len(target) + 1) for target, chance in zip(targets, chances, strict=True)
    )
    assert task.memoryless_loss == pytest.approx(nats / tokens, rel=1e-6)
    # And the task's loss of such a decoder is that.
    score, split = blind_logits(task, targets, chances), task.source_length
    logits = np.zeros((rows, split + task.target_length, task.output_size), np.float32)
    for row, (_, target) in enumerate(texts(name)[:rows]):
        for t in range(len(target) + 1):
            logits[row, split + t] = score(target[:t])
    batch = Batch(*(part[:rows] for part in sample(name)[:4]))
    loss = float(jax.jit(task.loss)(logits, batch))
    assert loss == pytest.approx(task.memoryless_loss, rel=5 / np.sqrt(rows))


def test_wide_sums_have_no_memoryless_loss():
    assert Addition(1, 7).memoryless_loss is None
    assert Addition(6, 6).memoryless_loss == pytest.approx(14.3 / 7.6, rel=0.05)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["reverse", "sort", "addition", "dates"])
def test_a_key_gives_the_same_batch_from_one_program_and_under_vmap(name):
    small = {"batch_size": 3, "validation_size": 4}
    task = type(TASKS[name])(**small)
    check_batches(task)
    assert jax.eval_shape(task.validation_batch, 0, task.arrays()).inputs.shape[0] == 4


@pytest.mark.parametrize("name", ["reverse", "sort", "addition", "dates"])
def test_lengths_fall_into_the_groups(name):
    task = TASKS[name]
    assert {*sample(name).lengths} <= {*task.length_groups}
    assert max(task.length_groups) == task.source_length
    if name != "dates":
        assert {*sample(name).lengths} == {*task.length_groups}


def test_metrics_count_tokens_and_whole_targets():
    task = Reverse(batch_size=4)
    batch: Any = jax.device_get(jax.jit(task.sample_batch)(jax.random.key(0), 0))
    measure, one_hot = jax.jit(task.metrics), np.eye(task.output_size, dtype=np.float32)
    right = one_hot[batch.targets]
    found = measure(right, batch)
    assert (float(found["accuracy"]), float(found["exact_match"])) == (1.0, 1.0)
    wrong, end = right.copy(), task.source_length + int(batch.lengths[1])
    wrong[1, end] = one_hot[3]  # the end of row 1's target
    wrong[2, : task.source_length] = one_hot[3]  # no weight
    found = measure(wrong, batch)
    assert float(found["exact_match"]) == 0.75
    assert float(found["accuracy"]) == pytest.approx(1 - 1 / float(batch.weights.sum()))
    shares = np.array([0.99, 0.991, np.nan])
    assert task.solved({"validation_exact_match": shares}).tolist() == [False, True, False]


def test_texts_are_read_and_written():
    task = Addition()
    ids = task.encode_source("12+0")
    assert task.source_text([*ids, 0, 0, 5]) == "12+0" and ids.dtype == np.int32
    with pytest.raises(SettingError, match="'1-1' has '-', which no source of this task has"):
        task.encode_source("1-1")
    with pytest.raises(SettingError, match="has 10 tokens; a source has at most 9"):
        task.encode_source("12345+1234")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Reverse(5, 4), "max length must not be less than min length"),
        (lambda: Sort(num_symbols=27), "num symbols must be from 2 to 26"),
        (lambda: Sort(num_symbols=1), "num symbols must be from 2 to 26"),
        (lambda: Reverse(0), "min length must be at least 1"),
        (lambda: Addition(3, 2), "max digits must be from min digits to 9"),
        (lambda: Addition(1, 10), "max digits must be from min digits to 9"),
        (lambda: Dates(2000, 1999), "the years must be from 1000 to 9999"),
        (lambda: Dates(999), "the years must be from 1000 to 9999"),
        (lambda: Dates(formats=()), "there must be a format"),
        (lambda: Dates(formats=("{day} {month}",)), "does not determine the date"),
        (lambda: Dates(formats=("{dya} {month} {year}",)), "is no format of a date: 'dya'"),
        (lambda: Dates(formats=("{day",)), "is no format of a date"),
        (lambda: Dates(validation_size=0), "validation size must be at least 1"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(SettingError, match=message):
        make()


SMALL = {
    "reverse": (Reverse(1, 3, 3, 32, 64), None, 150),
    "sort": (Sort(1, 3, 3, 32, 64), None, 150),
    "addition": (Addition(1, 1, 32, 64), None, 250),
    "dates": (Dates(2000, 2000, ("{day} {mon} {year}",), 16, 64), 32, 150),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_small_instance_is_learned(name):
    task, attention_size, steps = SMALL[name]
    sizes = task.source_length, len(task.source_vocabulary), task.output_size
    encoder, decoder = Recurrent(GRUCell(32)), Recurrent(GRUCell(32))
    model = EncoderDecoder(encoder, decoder, *sizes, attention_size=attention_size)
    train = TrainConfig(steps, 2e-2, schedule="linear", flatten=True)
    _, metrics = jax.jit(make_train(ExperimentConfig(task, model, train)))(0)
    assert metrics["loss"][0] > 0.8 * task.memoryless_loss
    assert metrics["loss"][-1] < 0.2 * task.memoryless_loss
    assert metrics["validation_exact_match"][-1] > 0.9
