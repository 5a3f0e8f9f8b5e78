"""Language models from the command line: train, resume, sample, show; and what is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import chex
import numpy as np
import pytest
from char_lm import Config, make_study

from jaxrnn import experiment, trained, writing
from jaxrnn.errors import RunError, SettingError
from jaxrnn.sampling import Sampling
from jaxrnn.show.inside import inside

TEXT = "The rain in Spain\nstays mainly\nin the plain.\n" * 30  # 1380 characters
KOREAN = "대한민국은 민주공화국이다.\n" * 60
FEW: dict[str, Any] = {"hidden_size": 12, "layers": 2, "batch_size": 4, "length": 20, "steps": 60}


def texts(folder):
    (folder / "rain.txt").write_text(TEXT)
    (folder / "korean.txt").write_text(KOREAN)
    return folder


@pytest.fixture(scope="module")
def trained_runs(tmp_path_factory):
    """A run of two seeds on English, one of bytes, one of jamo; the texts are gone by then."""
    folder = texts(tmp_path_factory.mktemp("runs"))
    settings = FEW | {"learning_rate": 0.02, "validate_every": 20}
    runs: dict[str, tuple[str, dict[str, Any]]] = {
        "rain": ("rain.txt", {"seeds": 2, "dropout": 0.1, "seed": 3}),
        "bytes": ("korean.txt", {"units": "bytes", "cell": "gru"}),
        "jamo": ("korean.txt", {"units": "jamo", "embedding_size": 12, "tied": True}),
    }
    for name, (file, more) in runs.items():
        config = Config(folder / file, **(settings | more))
        experiment.run_study(make_study(config), run_dir=folder / name, picture=False)
    for file in folder.glob("*.txt"):
        file.unlink()
    return folder


def test_it_trains_resumes_samples_and_shows_as_the_user_runs_it(run, tmp_path):
    texts(tmp_path)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in FEW.items()]
    done = run("char_lm.py", "--text=rain.txt", *flags, "--run-dir=a", "--seed=1")
    assert done.returncode == 0, done.stderr
    assert "Best validation loss: " in done.stdout and "perplexity" in done.stdout
    assert {"config.json", "metrics.jsonl", "curves.png", "checkpoints"} <= {
        path.name for path in Path("a").iterdir()
    }
    rows = [json.loads(line) for line in Path("a/metrics.jsonl").read_text().splitlines()]
    assert rows[0]["validation_loss"] > rows[-1]["validation_loss"] > 0
    assert rows[1]["validation_loss"] is None


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_verbs_as_a_user_calls_them(environment, cache_home, trained_runs):
    def verb(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "jaxrnn", *arguments],
            env=environment | {"XDG_CACHE_HOME": str(cache_home)},
            capture_output=True,
            text=True,
            check=False,
        )

    def sample():
        flags = ["--prime=The ", "--length=40", "--temperature=0.8", "--seed=1"]
        return verb("sample", str(trained_runs / "rain"), *flags)

    done = sample()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The ") and len(done.stdout) == 4 + 40 + 1
    assert sample().stdout == done.stdout
    shown = verb("show", str(trained_runs / "rain"), "--text=in Spain", "--out=page.html")
    assert (shown.returncode, shown.stdout) == (0, "page.html\n"), shown.stderr
    assert "<html" in Path("page.html").read_text()
    refused = verb("sample", str(trained_runs / "rain"), "--prime=Öl")
    assert refused.returncode == 2
    assert refused.stderr == "error: not in the vocabulary: Ö\n"


def test_what_is_drawn_depends_on_the_seed_alone(trained_runs):
    def written(**settings):
        return "".join(writing.write(trained_runs / "rain", "in ", length=50, **settings))

    assert written(seed=1) == written(seed=1) != written(seed=2)
    greedy = written(settings=Sampling(temperature=0))
    assert greedy == written(settings=Sampling(temperature=0), seed=9)
    assert "ain" in greedy  # it has learned something
    two = written(samples=2, seed=1)
    assert two.startswith("--- sample 1 ---\n" + written(seed=1) + "--- sample 2 ---\nin ")
    beams = written(beams=2)
    assert beams.startswith("--- beam 1: log-probability -") and beams.count("in ") >= 2
    assert written(network=3, seed=1) != written(network=4, seed=1)


@pytest.mark.parametrize("units", ["bytes", "jamo"])
def test_korean_comes_out_composed(trained_runs, units):
    text = "".join(writing.write(trained_runs / units, "대한", length=60, seed=2))
    assert text.startswith("대한") and text.endswith("\n")
    pieces = list(writing.write(trained_runs / units, "대한", length=60, seed=2))
    assert "".join(pieces) == text and len(pieces) > 2
    syllables = sum("가" <= character <= "힣" for character in text)
    assert syllables >= 5


def test_the_best_network_of_the_run_is_taken(trained_runs):
    lines = (trained_runs / "rain/metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    best = min((row for row in rows if row["validation_loss"]), key=lambda r: r["validation_loss"])
    one = trained.load(trained_runs / "rain")
    assert (one.seed, one.updates) == (best["seed"], best["step"])
    assert one.loss == pytest.approx(best["validation_loss"])
    last = trained.load(trained_runs / "rain", seed=4, last=True)
    assert (last.seed, last.updates, last.loss) == (4, 60, None)
    with pytest.raises(SettingError, match="the run has the seeds 3 to 4, not 5"):
        trained.load(trained_runs / "rain", seed=5)


def test_a_broken_checkpoint_is_passed_over_and_the_one_before_it_writes(
    trained_runs, tmp_path, capsys
):
    shutil.copytree(trained_runs / "rain", "copy")
    newest = max(Path("copy/checkpoints").iterdir())
    shutil.copytree(newest, newest.with_name("00000061"))
    (newest.with_name("00000061") / "position.json").write_text("{}")
    assert trained.load("copy").params is not None
    assert "00000061" in capsys.readouterr().err
    for checkpoint in Path("copy/checkpoints").iterdir():
        (checkpoint / "position.json").write_text("{}")
    with pytest.raises(OSError, match="no checkpoint is whole"):
        trained.load("copy")
    shutil.rmtree("copy/checkpoints")
    with pytest.raises(RunError, match="copy has no checkpoint yet; go on with python -m jaxrnn"):
        trained.load("copy")


def test_what_is_no_language_model_or_does_not_fit_is_refused(trained_runs, tmp_path):
    shutil.copytree(trained_runs / "rain", "copy")
    config = json.loads(Path("copy/config.json").read_text())
    shorter = json.loads(json.dumps(config))
    shorter["study"]["task"]["vocabulary"].pop()
    Path("copy/config.json").write_text(json.dumps(shorter))
    size = len(config["study"]["task"]["vocabulary"])
    with pytest.raises(RunError, match=f"a vocabulary of {size - 1} units, and a model of {size}"):
        trained.load("copy")
    shorter["study"]["model"]["vocabulary_size"] -= 1
    Path("copy/config.json").write_text(json.dumps(shorter))
    with pytest.raises(RunError, match="is of another model"):
        trained.load("copy")
    config["study"]["task"] = {"type": "jaxrnn.tasks.adding:Adding", "length": 5, "batch_size": 2}
    Path("copy/config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match="copy is no run of a language model, but of Adding"):
        trained.load("copy")
    with pytest.raises(FileNotFoundError, match="none holds no run"):
        trained.load("none")


def test_the_page_shows_what_the_network_expects(trained_runs, tmp_path):
    path = inside(trained_runs / "rain", "in Spain\nstays", out=tmp_path / "page.html")
    assert "layer 2" in path.read_text()
    Path("long.txt").write_text("in the plain.\n" * 500)
    path = inside(trained_runs / "rain", "long.txt", length=300, out=tmp_path / "b.html")
    assert path.stat().st_size < 500_000
    assert inside(trained_runs / "jamo", "대한민국", out=tmp_path / "c.html").is_file()
    assert inside(trained_runs / "bytes", "대한민국", out=tmp_path / "d.html").is_file()
    with pytest.raises(SettingError, match="there is no text to show"):
        inside(trained_runs / "rain", "")
    with pytest.raises(SettingError, match="not in the vocabulary: Q"):
        inside(trained_runs / "rain", "Quay")


def refused(run, *flags):
    done = run("char_lm.py", "--run-dir=out", *flags)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not Path("out").exists() and not Path("runs").exists()
    return done.stderr


def test_a_bad_text_is_refused_in_one_line(run, tmp_path):
    texts(tmp_path)
    Path("bad.txt").write_bytes(b"fine so far\n" + b"caf\xe9\n" * 900)
    assert "No such file or directory: none.txt" in refused(run, "--text=none.txt")
    said = refused(run, "--text=bad.txt")
    assert "bad.txt is not UTF-8: the byte at offset 15 is 0xE9" in said and "--units bytes" in said
    assert "one batch of 50 windows of 50 takes 2501" in refused(run, "--text=rain.txt")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cell": "lstn"}, "--cell must be one of"),
        ({"units": "words"}, "units must be characters, bytes or jamo"),
        ({"tied": True}, "a tied readout needs an embedding: set its size"),
        ({"validation": 0.5, "test": 0.5}, "must be shares that leave some text to train"),
        ({"validation": 0.0, "patience": 2}, "--patience needs a share for --validation"),
        ({"batch_size": 0}, "batch size must be at least 1"),
        ({"dropout": 1.0}, "dropout must be from 0 to less than 1"),
    ],
)
def test_bad_settings_are_refused(tmp_path, settings, message):
    texts(tmp_path)
    with pytest.raises(ValueError, match=message):
        make_study(Config(tmp_path / "rain.txt", **(FEW | settings)))


@pytest.mark.parametrize("kind", ["directory", "fifo", "empty", "same"])
def test_what_is_no_text_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "text"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.write_text("a" * 5000 if kind == "same" else "")
    with pytest.raises(RunError, match=f"{path} (is|has) "):
        make_study(Config(path))


def test_a_run_that_was_cut_is_resumed_to_the_same_bits(tmp_path):
    """With the carry, the place in the text, and the best network so far."""
    texts(tmp_path)
    few = FEW | {"validate_every": 15, "dropout": 0.2, "log_every": 7}
    study = make_study(Config(tmp_path / "rain.txt", **few))
    whole = experiment.run_study(study, run_dir="whole", picture=False)
    shutil.copytree("whole", "cut")
    shutil.rmtree("cut/checkpoints")
    from jaxrnn.disk import checkpoints
    from jaxrnn.stretches import replay

    state, _ = replay(study, 33)
    position = {"next_step": 33, "seconds": 1.0}
    checkpoints.save(Path("cut/checkpoints"), 33, state, position)
    ended = experiment.resume("cut")
    chex.assert_trees_all_equal(ended.state, whole.state)
    for name, values in whole.history.values.items():
        np.testing.assert_array_equal(ended.history.values[name], values, err_msg=name)
