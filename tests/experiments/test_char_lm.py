"""Language models from the command line: train, resume, sample, show; and what is refused."""

import base64
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import unicodedata
from functools import partial
from pathlib import Path
from typing import Any, cast

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from char_lm import Config, main, make_config

import jaxrnn
from jaxrnn.analysis.visualize import visualize
from jaxrnn.cli import entry
from jaxrnn.errors import RunError, SettingError
from jaxrnn.layers.gates import read_gates
from jaxrnn.rng import child_key, root_key
from jaxrnn.runs import checkpoints, loading, runner, text_generation
from jaxrnn.tasks.language import Language
from jaxrnn.text.sampling import Sampling, generate, prefill, state_bytes
from jaxrnn.text.tokenizer import detokenize, tokenize
from jaxrnn.training.calls import train_in_memory

TEXT = "The rain in Spain\nstays\tmainly\nin the plain.\n" * 30  # 1380 characters
KOREAN = "대한민국은 민주공화국이다.\n" * 60
FEW: dict[str, Any] = {
    "hidden_size": 12,
    "layers": 2,
    "batch_size": 4,
    "sequence_length": 20,
    "steps": 60,
}


def texts(folder):
    (folder / "rain.txt").write_text(TEXT)
    (folder / "korean.txt").write_text(KOREAN)
    return folder


@pytest.fixture(scope="module")
def trained_runs(tmp_path_factory, cache_home):
    """A run of three seeds on English, one of bytes, one of jamo; the texts are gone by then."""
    folder = texts(tmp_path_factory.mktemp("runs"))
    settings = FEW | {"learning_rate": 0.02, "validate_every": 20}
    runs: dict[str, tuple[str, dict[str, Any]]] = {
        "rain": ("rain.txt", {"seeds": 3, "vmap_size": 3, "dropout": 0.1, "seed": 2}),
        "bytes": ("korean.txt", {"tokenizer": "bytes", "cell": "gru"}),
        "jamo": ("korean.txt", {"tokenizer": "jamo", "embedding_size": 12, "tie_embeddings": True}),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_home))  # the user's is left alone
        for name, (file, more) in runs.items():
            config = Config(folder / file, **(settings | more))
            runner.run(make_config(config), run_dir=folder / name)
    for file in folder.glob("*.txt"):
        file.unlink()
    return folder


@pytest.mark.slow
def test_it_trains_as_the_user_runs_it(run, tmp_path):
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
def here(tmp_path, cache_home, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))


def sample(trained_runs):
    flags = ["--prompt=The ", "--num-tokens=40", "--temperature=0.8", "--seed=1"]
    return "sample", str(trained_runs / "rain"), *flags


@pytest.mark.slow
def test_another_process_writes_the_same(environment, cache_home, trained_runs):
    def written():
        return subprocess.run(
            [sys.executable, "-m", "jaxrnn", *sample(trained_runs)],
            env=environment | {"XDG_CACHE_HOME": str(cache_home)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    text = written()
    assert text.startswith("The ") and len(text) == 4 + 40 + 1
    assert written() == text


def test_the_commands_as_a_user_calls_them(call, trained_runs):
    file = str(Path(jaxrnn.__file__).with_name("__main__.py"))
    verb = partial(call, partial(runpy.run_path, file, run_name="__main__"), "jaxrnn")
    done = verb(*sample(trained_runs))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The ") and len(done.stdout) == 4 + 40 + 1
    shown = verb("visualize", str(trained_runs / "rain"), "--text=in Spain", "--out=page.html")
    assert (shown.returncode, shown.stdout) == (0, "page.html\n"), shown.stderr
    assert "<html" in Path("page.html").read_text()
    undecoded = "쪽.html".encode().decode("ascii", "surrogateescape")  # as an ASCII locale has it
    shown = verb("visualize", str(trained_runs / "rain"), "--text=in", f"--out={undecoded}")
    assert (shown.returncode, shown.stdout) == (0, "쪽.html\n"), shown.stderr
    refused = verb("sample", str(trained_runs / "rain"), "--prompt=Öl")
    assert refused.returncode == 2
    assert refused.stderr == "error: not in the vocabulary: Ö\n"


@pytest.mark.parametrize("many", [{"samples": 10**9}, {"beams": 10**9}])
def test_more_texts_than_memory_are_refused_before_anything_is_allocated(
    trained_runs, monkeypatch, many
):
    monkeypatch.setattr(text_generation, "generate", None)
    monkeypatch.setattr(text_generation, "beam_search", None)
    with pytest.raises(MemoryError, match=r"1000000000 .*s need about .*use at most \d"):
        next(text_generation.generate_text(trained_runs / "rain", num_tokens=3, **many))


def test_the_bytes_of_a_row(trained_runs):
    one = loading.load(trained_runs / "rain")
    state = prefill(one.model, one.params, np.array([0]), 3)
    carry, logits = (sum(leaf.nbytes for leaf in jax.tree.leaves(part)) for part in state)
    assert state_bytes(one.model, one.params) == (carry / 3, logits / 3)


@pytest.mark.slow
def test_samples_depend_on_the_seed_alone(trained_runs):
    def written(**settings):
        return "".join(
            text_generation.generate_text(trained_runs / "rain", "in ", num_tokens=50, **settings)
        )

    assert written(seed=1) == written(seed=1) != written(seed=2)
    greedy = written(sampling=Sampling(temperature=0))
    assert greedy == written(sampling=Sampling(temperature=0), seed=9)
    assert "ain" in greedy  # it has learned something
    two = written(samples=2, seed=1)
    assert two.startswith("--- sample 1 ---\n" + written(seed=1) + "--- sample 2 ---\nin ")
    beams = written(beams=2)
    assert beams.startswith("--- beam 1: log-probability -") and beams.count("in ") >= 2
    assert written(model_seed=3, seed=1) != written(model_seed=4, seed=1)
    with pytest.raises(SettingError, match="a beam search does not sample: leave out samples"):
        written(beams=2, samples=2)
    with pytest.raises(SettingError, match="a beam search does not sample"):
        written(beams=2, sampling=Sampling(temperature=0.5))
    for seed in (-1, 2**32):
        with pytest.raises(SettingError, match="seed must be from 0 to 4294967295"):
            written(seed=seed)


def test_without_a_prompt_the_text_continues_a_line_break(trained_runs):
    run_dir = trained_runs / "rain"
    from_break = "".join(text_generation.generate_text(run_dir, "\r\n", num_tokens=30, seed=1))
    assert from_break == "\n" + "".join(
        text_generation.generate_text(run_dir, num_tokens=30, seed=1)
    )


@pytest.mark.slow
@pytest.mark.parametrize("units", ["bytes", "jamo"])
def test_korean_comes_out_composed(trained_runs, units):
    text = "".join(
        text_generation.generate_text(trained_runs / units, "대한", num_tokens=60, seed=2)
    )
    assert text.startswith("대한") and text.endswith("\n")
    pieces = list(
        text_generation.generate_text(trained_runs / units, "대한", num_tokens=60, seed=2)
    )
    assert "".join(pieces) == text and len(pieces) > 2
    one = loading.load(trained_runs / units)
    for length in (29, 30, 31):  # some end within a syllable
        drawn = generate(
            one.model,
            one.params,
            child_key(root_key(2), "sample"),
            cast(Any, one.config.task).encode("대한"),
            length,
        )
        whole = "".join(cast(Any, one.config.task).decode(piece[0]) for piece in drawn)
        said = "".join(
            text_generation.generate_text(trained_runs / units, "대한", num_tokens=length, seed=2)
        )
        assert said == detokenize(tokenize("대한", units) + whole, units) + "\n"
    syllables = sum("가" <= character <= "힣" for character in text)
    assert syllables >= 5


def test_the_best_network_of_the_run_is_used(trained_runs):
    lines = (trained_runs / "rain/metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    best = min((row for row in rows if row["validation_loss"]), key=lambda r: r["validation_loss"])
    one = loading.load(trained_runs / "rain")
    assert (one.seed, one.updates) == (best["seed"], best["step"])
    assert one.validation_loss == pytest.approx(best["validation_loss"])
    assert best["seed"] != 2, "or the first would do"
    last = loading.load(trained_runs / "rain", model_seed=4, final=True)
    assert (last.seed, last.updates, last.validation_loss) == (4, 60, None)
    with pytest.raises(SettingError, match="the run has the seeds 2 to 4, not 5"):
        loading.load(trained_runs / "rain", model_seed=5)


def test_a_damaged_checkpoint_is_skipped_when_sampling(trained_runs, tmp_path, capsys):
    shutil.copytree(trained_runs / "rain", "copy")
    newest = max(Path("copy/checkpoints").iterdir())
    shutil.copytree(newest, newest.with_name("00000061"))
    (newest.with_name("00000061") / "position.json").write_text("{}")
    assert loading.load("copy").params is not None
    assert "00000061" in capsys.readouterr().err
    for checkpoint in Path("copy/checkpoints").iterdir():
        (checkpoint / "position.json").write_text("{}")
    with pytest.raises(OSError, match="all checkpoints are damaged"):
        loading.load("copy")
    shutil.rmtree("copy/checkpoints")
    with pytest.raises(RunError, match="copy has no checkpoint yet; resume with python -m jaxrnn"):
        loading.load("copy")


def test_runs_that_cannot_be_sampled_are_refused(trained_runs, tmp_path):
    shutil.copytree(trained_runs / "rain", "copy")
    config = json.loads(Path("copy/config.json").read_text())
    shorter = json.loads(json.dumps(config))
    shorter["experiment"]["task"]["vocabulary"].pop()
    Path("copy/config.json").write_text(json.dumps(shorter))
    size = len(config["experiment"]["task"]["vocabulary"])
    with pytest.raises(
        RunError, match=f"a vocabulary of {size - 1} tokens, but its model has {size}"
    ):
        loading.load("copy")
    shorter["experiment"]["model"]["vocabulary_size"] -= 1
    Path("copy/config.json").write_text(json.dumps(shorter))
    with pytest.raises(RunError, match="belongs to another model"):
        loading.load("copy")
    config["experiment"]["task"] = {
        "type": "jaxrnn.tasks.adding:Adding",
        "sequence_length": 5,
        "batch_size": 2,
    }
    Path("copy/config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match="does not fit its task: inputs must be"):
        loading.load("copy")
    with pytest.raises(FileNotFoundError, match="none contains no run"):
        loading.load("none")


def page(*arguments, **settings):
    """What a page holds: its text, and its data."""
    text = visualize(*arguments, **settings).read_text()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert data
    return text, json.loads(data[1])


def test_the_page_shows_the_networks_predictions(trained_runs, tmp_path):
    run_dir, words = trained_runs / "rain", "in Spain\nstays"
    text, data = page(run_dir, words, out=tmp_path / "page.html", model_seed=4, final=True)
    assert "seed 4 after 60 updates" in text and "layer 2" in text
    one = loading.load(run_dir, model_seed=4, final=True)
    ids = cast(Any, one.config.task).encode(words)
    logits, _ = cast(Any, one.model.apply({"params": one.params}, ids[None]))
    chances = np.asarray(jax.nn.log_softmax(logits[0]))
    nats = -chances[np.arange(len(ids) - 1), ids[1:]].mean()
    assert f"{nats / np.log(2):.3f} per token" in text
    argmax = [cast(Any, one.config.task).vocabulary[i] for i in chances.argmax(-1)]
    assert [data["symbols"][place][0] for place in data["guesses"][::5]] == argmax
    layer, cell, *_ = data["cells"][0]
    gates = read_gates(one.model, one.params, jnp.asarray(ids[None]))[layer]
    rows = np.frombuffer(base64.b64decode(data["layers"][layer]["packed"]), np.int8)
    row = rows.reshape(len(data["layers"][layer]["kept"]), -1)
    shown = row[data["layers"][layer]["kept"].index(cell), : len(ids)] / 127
    np.testing.assert_allclose(shown, np.tanh(np.asarray(gates["c"][0, :, cell])), atol=0.005)


def test_the_page_has_the_network_unless_it_is_too_large(
    trained_runs, tmp_path, monkeypatch, capsys
):
    def network(run, text) -> Any:
        text, _ = page(trained_runs / run, text, out=tmp_path / "page.html")
        found = re.search(r'id="network">(.*?)</script>', text)
        return json.loads(found[1]) if found else re.findall("left out: [^<]*", text)

    written = network("jamo", "\n민주공화국이다.\n대한")
    task = cast(Any, loading.load(trained_runs / "jamo").config.task)
    assert (written["tokenizer"], written["prompt"]) == ("jamo", "민주공화국이다.")
    assert written["vocabulary"] == list(task.vocabulary)
    assert [layer["kind"] for layer in written["layers"]] == ["lstm", "lstm"]
    Path("raw").write_bytes(KOREAN.encode()[1:50])
    assert network("bytes", "raw")["prompt"] == ""  # it starts within a character
    monkeypatch.setattr("jaxrnn.analysis.writer.MAX_PARAMETERS", 1000)
    [reason] = network("rain", "in Spain")
    assert re.match(r"left out: the network has \d,\d+ parameters, and a page at most", reason)
    said = reason.replace("left out", "note: the page has no tab in which the network writes")
    assert capsys.readouterr().err.splitlines()[-1] == said


@pytest.mark.slow
def test_the_page_shows_the_start_of_a_file(trained_runs, tmp_path, capsys):
    out = tmp_path / "page.html"
    Path("long.txt").write_text("in the plain.\r\n" * 500)
    _, data = page(trained_runs / "rain", "long.txt", max_tokens=300, out=out)
    assert len(data["text"]) == 300 and out.stat().st_size < 500_000
    for form in ("NFC", "NFD"):
        Path("korean.txt").write_text(unicodedata.normalize(form, KOREAN))
        _, data = page(trained_runs / "jamo", "korean.txt", max_tokens=100, out=out)
        assert len(data["text"]) == 100
    Path("korean.txt").write_text(KOREAN)
    _, data = page(
        trained_runs / "bytes", "korean.txt", max_tokens=101, out=out
    )  # cuts a character
    assert len(data["text"]) == 101
    written = [data["symbols"][place][0] for place in data["text"]]
    assert written[:2] == ["0xEB", "0x8C"] and written[37:39] == [".", "\n"]
    Path("raw").write_bytes(KOREAN.encode()[1:50])  # no UTF-8, but bytes
    page(trained_runs / "bytes", "raw", out=out)
    assert capsys.readouterr().err == ""
    with pytest.raises(RunError, match="raw is not valid UTF-8: see the byte at offset 0"):
        page(trained_runs / "jamo", "raw", out=out)
    page(trained_runs / "rain", "in Spain", out=out)
    assert "there is no file 'in Spain', so this is the text to show" in capsys.readouterr().err


def test_a_limit_beyond_memory_shows_the_whole_file(trained_runs, tmp_path):
    Path("short.txt").write_text("in Spain")
    _, data = page(trained_runs / "rain", "short.txt", 10**13, out=tmp_path / "page.html")
    assert len(data["text"]) == len("in Spain")


def test_only_the_tokens_shown_must_be_in_the_vocabulary(trained_runs, tmp_path):
    run_dir, out = trained_runs / "rain", tmp_path / "page.html"
    Path("mixed.txt").write_text("in the plain.QQ")
    for text in ("mixed.txt", "in the plain.QQ"):
        assert len(page(run_dir, text, max_tokens=13, out=out)[1]["text"]) == 13
        with pytest.raises(SettingError, match="not in the vocabulary: Q"):
            visualize(run_dir, text, max_tokens=14, out=out)


@pytest.mark.parametrize("raw", ["in thé".encode()[:-1], b"\xef\xbb\xbfin\xff the plain"])
def test_a_file_that_is_not_utf8_is_refused(trained_runs, raw):
    """It ends within a character; or the offset includes the byte order mark."""
    Path("raw").write_bytes(raw)
    with pytest.raises(RunError, match="raw is not valid UTF-8: see the byte at offset 5"):
        visualize(trained_runs / "rain", "raw", out=Path("page.html"))


def test_an_unbounded_state_is_scaled_by_its_maximum(trained_runs, monkeypatch):
    """An IRNN has one. For a text of one token, the loss is unknown."""
    state = np.array([[[3.0, -6.0, 1.5, 0.0]]])  # [1, T, H]
    monkeypatch.setattr("jaxrnn.analysis.visualize.read_gates", lambda *_: [{"h": state}])
    text, data = page(trained_runs / "rain", "i", out=Path("page.html"))
    rows = np.frombuffer(base64.b64decode(data["layers"][0]["packed"]), np.int8).reshape(4, -1)
    np.testing.assert_allclose(rows[:, 0] / 127, [0.5, -1, 0.25, 0], atol=0.005)
    assert "unknown for one token" in text


def test_visualize_refuses_bad_input(trained_runs, tmp_path):
    with pytest.raises(SettingError, match="max tokens must be at least 1"):
        visualize(trained_runs / "rain", "in", max_tokens=0)
    with pytest.raises(SettingError, match="there is no text to show"):
        visualize(trained_runs / "rain", "")
    with pytest.raises(SettingError, match="not in the vocabulary: Q"):
        visualize(trained_runs / "rain", "Quay")
    with pytest.raises(RunError, match="is not a regular file"):
        visualize(trained_runs / "rain", str(tmp_path))
    with pytest.raises(IsADirectoryError, match="the page cannot be a directory"):
        visualize(trained_runs / "rain", "in", out=tmp_path)


@pytest.mark.slow
def test_without_validation_no_network_is_the_best(tmp_path, capsys):
    texts(tmp_path)
    few = FEW | {"steps": 3, "val_fraction": 0.0, "seeds": 2, "vmap_size": 2, "layers": 1}
    study = make_config(Config(tmp_path / "rain.txt", **few))
    runner.run(study, run_dir="a")
    capsys.readouterr()
    assert loading.load("a").seed == 0
    assert "no network is the best: loading seed 0" in capsys.readouterr().err
    loading.load("a", model_seed=1)
    assert capsys.readouterr().err == ""


def test_without_a_finite_validation_loss_the_final_parameters_are_used(
    trained_runs, monkeypatch, capsys
):
    def nowhere_finite(*arguments, restore=checkpoints.restore, **settings):
        restored = restore(*arguments, **settings)
        assert restored
        best = restored.state.best._replace(loss=np.full(3, np.inf, np.float32))
        return restored._replace(state=restored.state._replace(best=best))

    last = loading.load(trained_runs / "rain", model_seed=2, final=True)
    monkeypatch.setattr(checkpoints, "restore", nowhere_finite)
    one = loading.load(trained_runs / "rain")
    assert (one.seed, one.updates, one.validation_loss) == (2, 60, None)
    chex.assert_trees_all_equal(one.params, last.params)
    assert "no network is the best: loading seed 2" in capsys.readouterr().err


def test_invalid_utf8_bytes_count_as_bytes(tmp_path):
    (tmp_path / "raw").write_bytes(b"some text " * 90 + bytes(range(128, 192)) * 3)
    task = Language.from_file(tmp_path / "raw", "bytes", batch_size=2, sequence_length=20)
    assert task.format_loss(1.0) == " nats per byte (1.443 bits, perplexity 2.718)"


def refused(call, *flags):
    start = partial(entry.run_command, Config, main)
    done = call(start, "char_lm.py", "--run-dir=out", *flags)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not Path("out").exists() and not Path("runs").exists()
    return done.stderr


def test_a_bad_text_is_refused_in_one_line(call, tmp_path):
    texts(tmp_path)
    Path("bad.txt").write_bytes(b"fine so far\n" + b"caf\xe9\n" * 900)
    assert "No such file or directory: none.txt" in refused(call, "--text=none.txt")
    said = refused(call, "--text=bad.txt")
    assert (
        "bad.txt is not UTF-8: the byte at offset 15 is 0xE9" in said
        and "--tokenizer bytes" in said
    )
    assert "one batch of 50 windows of 50 needs 2501" in refused(call, "--text=rain.txt")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cell": "lstn"}, "--cell must be one of"),
        ({"tokenizer": "words"}, "tokenizer must be characters, bytes or jamo"),
        ({"tie_embeddings": True}, "tie_embeddings needs an embedding size"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"val_fraction": 0.0, "patience": 2}, "--patience needs a --val-fraction"),
        ({"batch_size": 0}, "batch size must be at least 1"),
        ({"dropout": 1.0}, "dropout must be from 0 to less than 1, not 1.0"),
    ],
)
def test_bad_settings_are_refused(tmp_path, settings, message):
    texts(tmp_path)
    with pytest.raises(ValueError, match=message):
        make_config(Config(tmp_path / "rain.txt", **(FEW | settings)))


@pytest.mark.parametrize("kind", ["directory", "fifo", "empty", "same"])
def test_files_that_are_not_text_are_refused_at_once(tmp_path, kind):
    path = tmp_path / "text"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.write_text("a" * 5000 if kind == "same" else "")
    with pytest.raises(RunError, match=f"{path} (is|has) "):
        make_config(Config(path))


@pytest.mark.slow
@pytest.mark.optimized
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path):
    """With the carry, the place in the text, and the best network so far."""
    texts(tmp_path)
    few = FEW | {"layers": 1, "validate_every": 15, "dropout": 0.2, "log_every": 7}
    study = make_config(Config(tmp_path / "rain.txt", **few))
    whole = runner.run(study, run_dir="whole")
    shutil.copytree("whole", "cut")
    shutil.rmtree("cut/checkpoints")
    state = train_in_memory(study, 33).state
    position = {"next_step": 33, "seconds": 1.0}
    checkpoints.save(Path("cut/checkpoints"), 33, state, position)
    ended = runner.resume("cut")
    chex.assert_trees_all_equal(ended.state, whole.state)
    for name, values in whole.history.values.items():
        np.testing.assert_array_equal(ended.history.values[name], values, err_msg=name)


@pytest.mark.slow
def test_a_trained_model_starts_another_run(call, trained_runs, tmp_path):
    (tmp_path / "more.txt").write_text(TEXT.replace("plain", "Plain!"))
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in FEW.items()]
    flags = [*flags[:4], "--steps=2", "--text=more.txt", f"--init-from={trained_runs}/rain"]
    seeds = ["--seed=2", "--seeds=3", "--vmap-size=3"]
    new = call(lambda: entry.run_command(Config, main), "char_lm.py", *flags, *seeds)
    assert (new.returncode, new.stdout) == (2, "")
    assert new.stderr.endswith("characters outside the vocabulary: ! P\n"), new.stderr
    other = call(lambda: entry.run_command(Config, main), "char_lm.py", *flags, "--tokenizer=bytes")
    assert (other.returncode, other.stdout) == (2, "")
    assert other.stderr.endswith("/rain has the tokenizer characters, not bytes\n"), other.stderr
    flags += [*seeds, "--extend-vocabulary", "--run-dir=new", "--no-plots"]
    new = call(lambda: entry.run_command(Config, main), "char_lm.py", *flags)
    assert new.returncode == 0, new.stderr
    before = json.loads((trained_runs / "rain/metrics.jsonl").read_text().splitlines()[0])
    after = json.loads(Path("new/metrics.jsonl").read_text().splitlines()[0])
    assert after["loss"] < 0.8 * before["loss"]
    assert json.loads(Path("new/manifest.json").read_text())["init_from"]["sha256"]
    assert "".join(text_generation.generate_text("new", "The", 5)).startswith("The")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--final"], "--final needs --init-from"),
        (["--extend-vocabulary"], "--extend-vocabulary needs --init-from"),
        (["--init-from=nowhere"], "nowhere"),
    ],
)
def test_bad_starts_are_refused_in_one_line(call, tmp_path, flags, message):
    texts(tmp_path)
    start = lambda: entry.run_command(Config, main)  # noqa: E731
    small = ["--text=rain.txt", "--batch-size=4", "--sequence-length=20"]
    result = call(start, "char_lm.py", *small, *flags)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
    assert message in result.stderr
    assert not Path("runs").exists()
