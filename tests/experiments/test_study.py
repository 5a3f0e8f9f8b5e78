"""Studies: trained once, continued, reported with intervals, and published pages that agree."""

import dataclasses
import importlib.util
import itertools
import json
import math
import re
import sys
import types
from functools import partial

import char_lm
import numpy as np
import pytest
import scipy.io
import studies
import study
import study_results
from studies import continual_reber
from study import Config, main

from jaxrnn import Adding, ExperimentConfig, GRUCell, Recurrent, SequenceModel, TrainConfig, cli
from jaxrnn.errors import SettingError
from jaxrnn.runs import callbacks, progress
from jaxrnn.runs.config_json import to_json
from jaxrnn.runs.evaluation import evaluate
from jaxrnn.runs.verification import Verdict
from jaxrnn.training.history import History
from jaxrnn.training.loop import TrainLoop

PAGES = study_results.DOCS / "results"


def experiments(options: studies.Options) -> dict[str, ExperimentConfig]:
    settings = TrainConfig(3 if options.small else 6, log_every=2)

    def make(learning_rate: float) -> ExperimentConfig:
        model = SequenceModel(Recurrent(GRUCell(2)), 1)
        train = TrainConfig(settings.steps, learning_rate, log_every=2)
        return ExperimentConfig(Adding(3, 2), model, train, seeds=options.seeds, vmap_size=1)

    return {"T=3/slow": make(1e-3), "T=3/fast": make(1e-1)}


TOY = studies.Study(
    title="Toy",
    question="Does it run?",
    experiments=experiments,
    measures=(
        studies.Measure("solved", studies.solved),
        studies.Measure("final loss", studies.final("loss"), higher_is_better=False),
    ),
    published=(studies.Published("T=3/fast", "final loss", "0.1", "nobody (2026)", line=0.1),),
    seeds=3,
    small="half the steps",
)


@pytest.fixture
def toy(call, monkeypatch):
    """Run study.py's command line in this process, with one more study."""
    module = types.ModuleType("studies.toy")
    vars(module)["STUDY"] = TOY
    monkeypatch.setitem(sys.modules, "studies.toy", module)
    monkeypatch.setattr(studies, "names", lambda: ["other", "toy"])
    monkeypatch.setattr(progress, "PATIENCE", math.inf)  # a slow machine shows progress, too
    return partial(call, partial(cli.run_command, Config, main), "study.py")


def outcome(values: dict[str, list[list[float]]], **ends: dict[int, int]) -> studies.Outcome:
    arrays = {name: np.array(value, float) for name, value in values.items()}
    seeds, steps = arrays["loss"].shape
    history = History(np.arange(seeds), 10 * np.arange(steps), arrays)
    ends = {"diverged": {}, "stopped": {}} | ends
    config = experiments(studies.Options(seeds))["T=3/slow"]
    return studies.Outcome(config, history, ends["diverged"], ends["stopped"], 1.0)


@pytest.mark.slow
def test_a_study_is_trained_once_and_reported(toy, tmp_path, monkeypatch):
    labels, bar = [], callbacks.Progress

    def shown(*arguments, label):
        labels.append(label)
        return bar(*arguments, label=label)

    monkeypatch.setattr(callbacks, "Progress", shown)
    result = toy("toy", "--verify")
    assert (result.returncode, result.stderr) == (0, "")
    trained = ["toy, T=3/slow (1 of 2)", "toy, T=3/fast (2 of 2)"]
    assert labels == [*trained, *(f"verifying {label}" for label in trained)]
    assert "toy, T=3/slow (1 of 2): 3 seeds" in result.stdout
    assert re.search(r"\| T=3/fast \| final loss \| 0.1 \| [\d.]+ \(-?[\d.]+ to", result.stdout)
    assert re.search(r"\| T=3/slow \| solved \| - \| 0% \(0 to 56.1%\), 0 of 3 ", result.stdout)
    assert result.stdout.count("Bitwise equal") == 2
    assert (tmp_path / "runs/studies/toy/toy.png").exists()

    def never(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(study, "run", never)
    monkeypatch.setattr(study, "resume", never)
    again = toy("toy")
    first, second = (text[text.index("| exp") :] for text in (result.stdout, again.stdout))
    assert first.startswith(second)


@pytest.mark.slow
def test_an_interrupted_study_goes_on_where_it_was(toy, tmp_path, monkeypatch):
    whole = toy("toy", "--runs", "whole").stdout
    slow = tmp_path / "runs/studies/toy/T=3/slow"
    real = study.run

    def stop(config, run_dir, **_):
        real(config, run_dir=run_dir)
        manifest = json.loads((slow / "manifest.json").read_text())
        (slow / "manifest.json").write_text(json.dumps(manifest | {"status": "interrupted"}))
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "run", stop)
    assert toy("toy").returncode == 130
    monkeypatch.setattr(study, "run", real)
    again = toy("toy")
    assert again.returncode == 0
    tables = [text[text.index("| exp") : text.index("The fig")] for text in (whole, again.stdout)]
    assert tables[0] == tables[1]


BAD = {
    "unknown": (["toi"], "the study must be other or toy, not 'toi'; did you mean toy?"),
    "none": ([], "the study must be other or toy, not ''"),
    "no seeds": (["toy", "--seeds", "0"], "seeds must be at least 1"),
    "data": (["toy", "--data", "x.npz"], "the study toy reads no --data"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_give_one_line_and_leave_nothing(toy, tmp_path, case):
    arguments, expected = BAD[case]
    result = toy(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"error: .*\n", result.stderr) and expected in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_other_settings_are_refused_before_training(toy):
    assert toy("toy", "--small", "--seeds", "2").returncode == 0
    result = toy("toy", "--small")
    assert result.returncode == 2
    assert re.fullmatch(
        r"error: runs/studies/toy-small/T=3/slow holds a run of another experiment: seeds was 2, is"
        r" now 3; remove it, or choose other --runs\n",
        result.stderr,
    )


@pytest.mark.slow
def test_a_setting_that_an_older_run_did_not_have_is_no_other_experiment(toy, tmp_path):
    assert toy("toy", "--small", "--seeds", "1").returncode == 0
    file = tmp_path / "runs/studies/toy-small/T=3/slow/config.json"
    written = json.loads(file.read_text())
    assert written["experiment"]["train"].pop("patience") is None  # its default
    file.write_text(json.dumps(written))
    assert toy("toy", "--small", "--seeds", "1").returncode == 0


@pytest.mark.slow
def test_what_is_published_comes_from_the_record(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(study_results, "DOCS", tmp_path / "docs")
    for folder in ("images", "results"):
        (tmp_path / "docs" / folder).mkdir(parents=True)
    result = toy("toy", "--small", "--publish")
    assert (result.returncode, result.stderr) == (0, "")
    page = tmp_path / "docs/results/toy.md"
    [record] = json.loads((tmp_path / "docs/results/results.json").read_text()).values()
    assert record["command"] == "python experiments/study.py toy --small"
    assert "verified" not in record
    text = page.read_text()
    assert text == study_results.page("toy", record, None)
    assert "[nobody" not in text and "Published: nobody (2026)." in text
    page.write_text(text + "\nIt agrees.\n")
    assert toy("toy", "--small", "--publish").returncode == 0
    assert page.read_text() == text + "\nIt agrees.\n"
    assert (
        "(smaller version) | *final loss*<br>T=3/fast: 0.1 |"
        in (page.parent / "index.md").read_text()
    )
    assert (tmp_path / "docs/images/study-toy.png").exists()
    assert toy("toy", "--small", "--publish", "--verify").returncode == 0
    [record] = json.loads((tmp_path / "docs/results/results.json").read_text()).values()
    assert record["verified"] and "Training again gave the same bits" in page.read_text()
    # Equal within rounding, as on another machine, is not called the same bits.
    monkeypatch.setattr(study, "verify", lambda *_: Verdict("Within", True))
    assert toy("toy", "--small", "--publish", "--verify").returncode == 0
    assert page.read_text() == text + "\nIt agrees.\n"


def test_a_page_says_that_its_runs_were_verified():
    records = json.loads((PAGES / "results.json").read_text("utf-8"))
    record = {**records["adding"], "verified": True}
    sentence = "Training again gave the same bits (`jaxrnn verify`).\n\n"
    text = study_results.generated("adding", record)
    assert text.count(sentence) == 1
    del record["verified"]
    assert study_results.generated("adding", record) == text.replace(sentence, "")


def test_the_published_pages_agree_with_the_records():
    records = json.loads((PAGES / "results.json").read_text("utf-8"))
    assert (PAGES / "index.md").read_text("utf-8") == study_results.gallery(records)
    for name, record in records.items():
        text = (PAGES / f"{name}.md").read_text("utf-8")
        assert text == study_results.page(name, record, text)
        assert (PAGES / record["picture"]).exists()
        known = {each[:2]: (each.value, each.source) for each in studies.load(name).published}
        for row in record["results"]:
            found = row["published"], row["source"]
            assert found == known.get((row["experiment"], row["measure"]), (None, None))
        prose = text.partition(study_results.END)[2]
        assert len(prose.split()) > 20, f"{name}.md must say what agrees, what does not, and why"


@pytest.fixture(scope="module")
def data_files(tmp_path_factory):
    """A small file for each study that reads one, by name; None for the others."""
    folder = tmp_path_factory.mktemp("data")
    files = {"jsb": "chorales.mat", "mnist1d": "set.npz", "cmudict": "cmudict.dict"}
    files |= dict.fromkeys(("language_models", "language_models_korean"), "text.txt")
    files = {name: folder / file for name, file in files.items()}
    draw, pieces = np.random.default_rng(0), np.empty((1, 8), object)
    for n in range(8):
        pieces[0, n] = (draw.random((3, 88)) < 0.1).astype(np.uint8)
    parts = ("traindata", "validdata", "testdata")
    scipy.io.savemat(files["jsb"], dict.fromkeys(parts, pieces))
    x, y = draw.random((200, 40), np.float32), np.arange(200) % 10
    np.savez(files["mnist1d"], x=x, y=y, x_test=x, y_test=y)
    words = ("".join(letters) for letters in itertools.product("ab", repeat=6))
    files["cmudict"].write_text("".join(f"{word} AA1 B\n" for word in words))
    files["language_models"].write_text("".join(draw.choice([*"abcde "], 60_000)))
    return files


@pytest.mark.parametrize("name", studies.names())
def test_every_study_describes_experiments_that_exist(name, data_files):
    each, file = studies.load(name), data_files.get(name)
    assert each.title and each.question.endswith("?")
    assert each.takes_data == (file is not None)
    measures = {measure.name for measure in each.measures}
    assert measures >= {known.measure for known in each.published}
    full = each.experiments(studies.Options(3, data=file))
    small = each.experiments(studies.Options(3, small=True, data=file)) if each.small else {}
    assert {*full, *small} >= {known.label for known in each.published}
    assert small.keys() <= full.keys() or name in ("adding", "copy_memory")
    if name == "copy_memory":  # the loss without memory is drawn for every cell
        floors = {known.label: known.line for known in each.published}
        for label, config in {**full, **small}.items():
            assert floors[label] == pytest.approx(config.task.memoryless_loss)
    for label, config in small.items():
        assert config.train.steps <= full.get(label, config).train.steps
    assert {config.seeds for config in (*full.values(), *small.values())} == {3}


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", studies.names())
def test_the_networks_of_every_study_fit_their_tasks(name, data_files):
    """The shapes of one training step, without compiling; its metrics have the study's curve."""
    if name == "japanese_vowels" and importlib.util.find_spec("aeon") is None:
        pytest.skip("its data are in the package aeon")
    each = studies.load(name)
    made = each.experiments(studies.Options(2, bool(each.small), data_files.get(name)))
    assert all(each.curve in TrainLoop(config).metrics for config in made.values())


TWINS = {  # by study: the options of char_lm_torch.py on its page
    "language_models": {"epochs": 2},
    "language_models_korean": {"epochs": 10, "batch_size": 10, "dropout": 0.3},
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", TWINS)
def test_the_lstm_of_a_study_is_that_of_its_pytorch_twin(name, data_files):
    text = data_files[name]
    made = studies.load(name).experiments(studies.Options(5, True, text))["LSTM"]
    options = TWINS[name] | {"layers": 1, "learning_rate": 8e-3, "log_every": 50}
    twin = char_lm.make_config(char_lm.Config(text, **options))
    for part in ("task", "model", "train"):
        assert to_json(getattr(made, part)) == to_json(getattr(twin, part))


def test_numbers_have_four_digits_and_no_exponent():
    values = (0.0, 0.012345, 8.6616, 9999.4, 9999.6, 31387.2, 1.44e6, -31387.2, None)
    shown = ["0", "0.01235", "8.662", "9999", "10,000", "31,390", "1,440,000", "-31,390", "-"]
    assert [*map(study_results.number, values)] == shown


def test_wrong_symbols_are_whole_numbers_at_the_best_validation():
    shares = [[0.5, 0.99998, 0.7], [1.0, np.nan, np.nan], [np.nan] * 3]
    correct = np.array(shares, np.float32)
    found = outcome({"loss": [[0.0] * 3] * 3, "validation_correct": correct.tolist()})
    np.testing.assert_array_equal(continual_reber.wrong_symbols(found), [2, 0, np.nan])


def test_the_gallery_says_once_what_is_published_for_all():
    record = json.loads((PAGES / "results.json").read_text("utf-8"))["copy_memory"]
    published, ours = study_results.gallery({"copy_memory": record}).splitlines()[6].split("|")[2:4]
    assert published.strip() == "*final loss*<br>each: 0.416 without memory"
    assert ours.count("<br>") == 6  # an experiment each


def test_measures_pick_the_rows_they_name():
    nan = np.nan
    values = {
        "loss": [[0.5, 0.005, 0.02], [0.5, 0.4, 0.3], [0.9, nan, nan], [0.5, 0.2, nan]],
        "validation_loss": [[nan, 1.0, 2.0], [nan, 4.0, 3.0], [nan, nan, nan], [5.0, 6.0, nan]],
    }
    found = outcome(values, diverged={2: 5}, stopped={3: 10})
    np.testing.assert_array_equal(studies.final("loss", 100.0)(found), [2, 30, nan, 20])
    lowest = studies.at_lowest_validation_loss("loss")(found)
    np.testing.assert_array_equal(lowest, [0.005, 0.3, 0.9, 0.5])
    np.testing.assert_array_equal(studies.solved(found), [False] * 4)
    np.testing.assert_array_equal(studies.steps_to_success(5)(found), [50, nan, nan, nan])


def test_steps_at_which_seeds_stopped_need_no_line():
    """Seeds 0 and 2 stopped when they had solved it, at steps without a line."""
    nan = np.nan
    found = outcome({"loss": [[0.9, 0.02, nan], [0.9, 0.8, 0.7], [0.9, nan, nan]]})
    train = dataclasses.replace(found.config.train, stop_when_solved=True)
    config = dataclasses.replace(found.config, train=train)
    found = found._replace(config=config, solved_at={0: 13, 2: 4})
    np.testing.assert_array_equal(studies.solved(found), [True, False, True])
    np.testing.assert_array_equal(studies.steps_to_success(5)(found), [65, nan, 20])
    np.testing.assert_array_equal(studies.final("loss")(found), [0.02, 0.7, 0.9])


@pytest.mark.slow
def test_the_chorales_are_scored_on_their_test_part(tmp_path, monkeypatch):
    """The study's networks, as small as its file; the measure is what `jaxrnn evaluate` says."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    each = studies.load("jsb")
    with pytest.raises(SettingError, match="the study jsb needs --data FILE"):
        each.experiments(studies.Options(2))
    draw, cells = np.random.default_rng(0), np.empty((1, 8), object)
    for n in range(8):
        cells[0, n] = (draw.random((3, 88)) < 0.1).astype(np.uint8)
    file = tmp_path / "pieces.mat"
    scipy.io.savemat(
        file, dict.fromkeys(("traindata", "validdata"), cells) | {"testdata": cells[:, 5:]}
    )
    made = each.experiments(studies.Options(2, small=True, data=file))
    assert made.keys() == {known.label for known in each.published}
    model = SequenceModel(Recurrent(GRUCell(2)), 88)
    small = dataclasses.replace(
        made["GRU"], model=model, train=TrainConfig(2, validate_every=1), vmap_size=2
    )
    found = study.train(tmp_path / "run", small)
    scores = {measure.name: measure.values(found) for measure in each.measures}
    test = evaluate(tmp_path / "run", "test").metrics["loss"]
    np.testing.assert_array_equal(scores["test loss, nats per frame"], test)
    lowest = np.nanmin(found.history.values["validation_loss"], axis=1)
    np.testing.assert_allclose(scores["validation loss, nats per frame"], lowest)
    assert (test != lowest).all()
    lost = found._replace(diverged={1: 2})
    assert np.isnan(studies.on_test_part("loss")(lost)).tolist() == [False, True]


def test_intervals_are_those_of_scipy_and_cover():
    draws = np.random.default_rng(1)
    mean = studies.Measure("m", lambda _: np.zeros(1))
    few = study_results.describe(mean, np.array([1.0, 2.0, 3.0]))
    assert few["value"] == 2.0 and few["best"] == 3.0 and few["sd"] == 1.0
    half = 4.302653 / np.sqrt(3)  # Student's t with two degrees of freedom, from a table
    np.testing.assert_allclose([few["low"], few["high"]], [2 - half, 2 + half], rtol=1e-6)
    hits = 0
    for _ in range(40):
        found = study_results.describe(mean, draws.exponential(size=30))
        hits += found["low"] < 1 < found["high"]
    assert hits >= 33  # expected 37; below 33 with a probability of 1%
    median = studies.Measure("m", lambda _: np.zeros(1), False, "median")
    found = study_results.describe(median, np.array([*range(99), np.nan, 1e9]))
    assert found["value"] == 49.5 and found["finite"] == 100 and found["best"] == 0
    assert 30 < found["low"] < 49.5 < found["high"] < 70
    equal = study_results.describe(mean, np.full(5, 0.25))
    assert (equal["low"], equal["high"], equal["interval"]) == (0.25, 0.25, "all equal")
    assert study_results.describe(mean, np.full(2, np.nan))["value"] is None
    assert study_results.describe(mean, np.array([7.0]))["low"] is None
    share = studies.Measure("m", lambda _: np.zeros(1), bounds=studies.PERCENT)
    for values in (np.array([50.0, 100.0, 100.0]), np.array([50.0, 0.0, 0.0])):
        free, found = (study_results.describe(each, values) for each in (mean, share))
        assert free["low"] < 0 or free["high"] > 100
        assert found["low"] == max(free["low"], 0) and found["high"] == min(free["high"], 100)


def test_a_seed_that_stopped_keeps_its_value_in_the_figure(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    drawn = []
    real = Axes.plot

    def plot(self, steps, values, **settings):
        drawn.append((steps.tolist(), values.tolist()))
        return real(self, steps, values, **settings)

    monkeypatch.setattr(Axes, "plot", plot)
    loss = [[3.0, 1.0, np.nan], [3.0, 2.0, 2.0], [3.0, 6.0, 5.0]]
    ended = {"T=3/slow": outcome({"loss": loss}, stopped={0: 10})}
    study_results.draw(tmp_path / "figure.png", TOY, ended)
    assert drawn == [([0, 10, 20], [3.0, 2.0, 2.0])]


def test_a_line_that_belongs_to_several_curves_is_black(tmp_path, monkeypatch):
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    lines = []
    monkeypatch.setattr(Axes, "axhline", lambda _, y, color, **__: lines.append((y, color)))
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)
    one = outcome({"loss": [[3.0, 1.0, 2.0]]})
    ended: dict[str, studies.Outcome] = {"T=3/slow": one, "T=3/fast": one}
    study_results.draw(tmp_path / "figure.png", TOY, ended)
    [known] = TOY.published
    both = dataclasses.replace(TOY, published=(known, known._replace(label="T=3/slow")))
    study_results.draw(tmp_path / "figure.png", both, ended)
    assert lines == [(0.1, study_results.COLORS[1]), (0.1, "black")]


def test_durations_read_well():
    texts = [study_results.duration(seconds) for seconds in (0.42, 41.3, 722, 5400)]
    assert texts == ["0.42 s", "41 s", "12 min", "1.5 h"]
