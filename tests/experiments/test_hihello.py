"""The main job: as a pure function, and as the script that a user runs."""

import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import chex
import hihello
import jax
import numpy as np
import pytest
from jax.tree_util import keystr

from jaxrnn import cli
from jaxrnn.cells import CELLS
from jaxrnn.runs import metrics
from jaxrnn.training.calls import train_in_memory


@cache
def learn(seed, **settings):
    """The state and history of one seed, in memory."""
    run = train_in_memory(hihello.make_config(hihello.Config(seed=seed, **settings)))
    return run.state, run.history


@pytest.fixture
def call(call):
    """As `run` of this script, but in this process."""
    return partial(call, lambda: cli.run_command(hihello.Config, hihello.main), "hihello.py")


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_a_seed_of_many_agrees_with_that_seed_alone(cell):
    """Not to the bit: batched, XLA sums the small products in another order.

    A rounding can wake a unit of the IRNN, or put it to sleep, and from there on the two go
    their own ways, seed 5 near step 40. The LRU's parameters differ by one unit of rounding after
    step 1, by 2e-7 after 5 steps, 5e-5 after 25 and 2e-4 after 50. So of these two the first half
    is compared.
    """
    settings = {"cell": cell, "steps": 25 if cell in ("irnn", "lru") else 50}
    study = hihello.make_config(hihello.Config(seed=3, seeds=5, **settings))
    run = train_in_memory(replace(study, vmap_size=5))
    state, history = run.state, run.history
    alone, alone_history = learn(5, **settings)
    of_many, of_one = jax.tree.map(lambda leaf: leaf[2:3], state.params), alone.params
    if cell == "slstm":
        of_many, of_one = (
            jax.tree.map_with_path(
                lambda path, leaf: 0 if keystr(path).endswith("['hi']['bias']") else leaf, params
            )
            for params in (of_many, of_one)
        )
    chex.assert_trees_all_close(of_one, of_many, atol=1e-4 if cell == "lru" else 2e-4)
    loss, alone_loss = history.values["loss"], alone_history.values["loss"][0]
    np.testing.assert_allclose(loss[2], alone_loss, atol=2e-4)
    np.testing.assert_allclose(loss[2][:10], alone_loss[:10], rtol=1e-5)
    np.testing.assert_array_equal(history.values["correct"][2], alone_history.values["correct"][0])
    assert not np.allclose(loss[1], loss[2], rtol=1e-2)


@pytest.mark.slow
def test_the_prediction_is_taken_after_the_update_and_the_loss_before():
    """What is said after N steps is what the loss of step N+1 is made of."""
    (_, short), (_, long) = learn(1, steps=7), learn(1, steps=8)
    said = np.take_along_axis(
        short.values["probability"][0, -1], hihello.NextCharacter().ids[1:, None], axis=-1
    )
    np.testing.assert_allclose(-np.log(said).mean(), long.values["loss"][0, 7], rtol=1e-5)
    np.testing.assert_array_equal(short.values["prediction"], long.values["prediction"][:, :8])


def test_shapes():
    state, history = learn(0, text="if you want you", hidden_size=3, steps=4)
    chex.assert_shape(history.values["loss"], (1, 5))
    chex.assert_shape(history.values["prediction"], (1, 5, 14))
    chex.assert_shape(history.values["probability"], (1, 5, 14, 10))
    chex.assert_shape(state.params["recurrent"]["layers_0"]["cell"]["hf"]["kernel"], (1, 3, 3))
    np.testing.assert_allclose(history.values["probability"].sum(-1), 1.0, rtol=1e-5)


def test_the_script_prints_the_lab(run, tmp_path):
    result = run("hihello.py")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert len(lines) == 101
    number = r"\d+\.\d+(e-\d+)?"
    for n in range(50):
        prediction = re.fullmatch(
            rf"{n} loss: {number} prediction: \[\[((?:\d ){{5}}\d)\]\] true Y: \[\[1 0 2 3 3 4\]\]",
            lines[2 * n],
        )
        assert prediction, lines[2 * n]
        word = "".join("hielo"[int(digit)] for digit in prediction[2].split())
        assert lines[2 * n + 1] == f"\tPrediction str:  {word}"
    assert lines[99] == "\tPrediction str:  ihello"
    sentence = re.fullmatch(
        r"Learned 'ihello': correct from step (\d+); the training took .* ms after .* s"
        r" of compiling, on cpu; plots are in runs/hihello/0001\.",
        lines[100],
    )
    assert sentence, lines[100]
    step = int(sentence[1])
    words = [line.split()[-1] for line in lines[1:100:2]]
    assert set(words[step:]) == {"ihello"}
    assert words[step - 1] != "ihello"

    folder = tmp_path / "runs/hihello/0001"
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints",
        "config.json",
        "loss.png",
        "manifest.json",
        "metrics.jsonl",
        "probabilities.png",
        "states.png",
        "tensorboard",
    ]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(51))
    printed = [float(line.split()[2]) for line in lines[0:100:2]]
    np.testing.assert_allclose([row["loss"] for row in rows[:-1]], printed, rtol=1e-6)
    assert [row["correct"] for row in rows[1:]] == [word == "ihello" for word in words]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_in_another_process(run, tmp_path):
    """Once compiled anew, once loaded from the cache, once without a cache."""
    settings = ["--no-plots", "--quiet", "--steps", "9", "--run-dir"]
    for name, switch in (("a", "true"), ("b", "true"), ("c", "false")):
        result = run(
            "hihello.py", *settings, name, "--seed", "3", JAX_ENABLE_COMPILATION_CACHE=switch
        )
        assert result.returncode == 0, result.stderr
        assert not list((tmp_path / name).glob("*.png"))
    histories = [metrics.read(tmp_path / name / "metrics.jsonl") for name in "abc"]
    chex.assert_trees_all_equal(histories[0].values, histories[1].values)
    chex.assert_trees_all_equal(histories[0].values, histories[2].values)
    assert histories[0].steps.tolist() == list(range(10))
    losses = [histories[0].values["loss"]]
    losses += [learn(seed, steps=9)[1].values["loss"] for seed in (3, 4)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert not np.allclose(losses[0], losses[2], rtol=1e-2)


@pytest.mark.slow
def test_many_seeds(run, tmp_path):
    result = run("hihello.py", "--seeds", "20", "--seed", "5", "--run-dir", "many")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("20 of 20 seeds learned it.")
    assert "20 of 20 seeds learned 'ihello'" in result.stdout.splitlines()[-1]
    rows = [json.loads(line) for line in (tmp_path / "many/metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["seed"]) for row in rows] == [
        (step, seed) for step in range(51) for seed in range(5, 25)
    ]
    for seed in (5, 11):
        loss = [row["loss"] for row in rows if row["seed"] == seed]
        np.testing.assert_allclose(loss[:10], learn(seed)[1].values["loss"][0, :10], rtol=1e-5)
    assert {"loss.png", "probabilities.png", "states.png"} <= {
        path.name for path in (tmp_path / "many").iterdir()
    }


@pytest.mark.slow
@pytest.mark.parametrize("cell", sorted(set(CELLS) - {"lstm"}))
def test_any_cell_and_any_text(call, cell):
    result = call("--cell", cell, "--text", "안녕하세요", "--quiet", "--steps", "60")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Learned '녕하세요'")
    assert len(result.stdout.splitlines()) == 1


def test_a_text_that_is_not_learned_reports_the_prediction(call):
    result = call("--steps", "1", "--no-plots", "--text", "a\nb$c")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 3
    assert "Did not learn '\\nb$c': the last prediction is '" in result.stdout


@pytest.mark.slow
def test_a_loss_that_explodes_ends_the_run(run, tmp_path):
    result = run("hihello.py", "--learning-rate", "1e38", "--quiet", "--run-dir", "boom")
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr == (
        "error: the loss or gradient of seed 0 is not finite, at step 1; the last good checkpoint,"
        " from before that step, is boom/checkpoints/00000001\n"
    )
    rows = [json.loads(line) for line in (tmp_path / "boom/metrics.jsonl").read_text().splitlines()]
    assert [row["loss"] is None for row in rows] == [False, True]
    assert json.loads((tmp_path / "boom/manifest.json").read_text())["status"] == "diverged"


BAD = {
    "empty text": (["--text", ""], "at least 2 characters"),
    "one character": (["--text", "안"], "at least 2 characters"),
    "one composed character": (["--text", "\u1112\u1161\u11ab"], "at least 2 characters"),
    "not UTF-8": (["--text", b"ab\xff"], "not valid UTF-8"),
    "no steps": (["--steps", "0"], "steps must be at least 1"),
    "negative steps": (["--steps", "-3"], "steps must be at least 1"),
    "half a step": (["--steps", "1.5"], "--steps"),
    "no seeds": (["--seeds", "0"], "seeds must be at least 1"),
    "no units": (["--hidden-size", "0"], "hidden size must be at least 1"),
    "no rate": (["--learning-rate", "0"], "learning rate must be a positive finite number"),
    "negative rate": (["--learning-rate", "-1"], "learning rate must be a positive finite"),
    "more units than memory": (["--hidden-size", "1000000"], "is free: use fewer hidden units"),
    "more units than numbers": (["--hidden-size", "10000000000"], "less than 2**31"),
    "more steps than numbers": (["--steps", "3000000000"], "less than 2**31"),
    "rate beyond single precision": (["--learning-rate", "1e300"], "learning rate must be"),
    "line break in a name": (["--run-dir", "fi\nle/../file"], "cannot create the run directory"),
    "infinite rate": (["--learning-rate", "inf"], "learning rate must be a positive finite"),
    "no number": (["--learning-rate", "nan"], "learning rate must be a positive finite number"),
    "negative seed": (["--seed", "-1"], "seed must be at least 0"),
    "seed too large": (["--seed", "4294967295", "--seeds", "2"], "no seed above 4294967295"),
    "unknown cell": (["--cell", "lstn"], "lstm, cifg, gru, rnn"),
    "no layers": (["--layers", "0"], "layers must be at least 1"),
    "too many layers": (["--layers", "101"], "layers must be at most 100"),
    "unknown option": (["--stepz", "3"], "--stepz"),
    "no value": (["--steps"], "--steps"),
    "run directory below a file": (["--run-dir", "file/run"], "cannot create the run directory"),
    "run directory is a file": (["--run-dir", "file"], "cannot create the run directory"),
    "run directory in use": (["--run-dir", "used"], "already contains a run"),
    "run directory not UTF-8": (["--run-dir", b"bad\xff"], "cannot be used: it is not valid UTF-8"),
    "start not UTF-8": (["--init-from", b"bad\xff"], "contains no run"),
    "run directory not empty": (["--run-dir", "."], "is not empty"),
}


AS_COMMANDS = ["not UTF-8", "no steps", "more units than memory", "unknown option"]
"""These are run as processes of their own, too, where nothing else could write a line."""


@pytest.mark.sampled(4)
@pytest.mark.parametrize("case", AS_COMMANDS)
def test_bad_input_gets_one_line_as_a_command(run, tmp_path, case):
    test_bad_input_gets_one_line_and_leaves_nothing(
        lambda *arguments: run("hihello.py", *arguments), tmp_path, case
    )


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_and_leaves_nothing(call, tmp_path, case):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "used").mkdir()
    (tmp_path / "used/config.json").write_text("{}")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    arguments, expected = BAD[case]
    result = call(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert re.fullmatch(r"error: .*\n", result.stderr), result.stderr
    assert expected in result.stderr
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_help_names_every_option(run):
    result = run("hihello.py", "--help")
    assert result.returncode == 0
    for name in hihello.Config.__dataclass_fields__:
        assert re.search(rf"--{name.replace('_', '-')}\s", result.stdout)
    assert all(cell in result.stdout for cell in CELLS)


@pytest.mark.slow
def test_a_closed_pipe_ends_quietly(tmp_path, environment):
    shell = f"{sys.executable} {hihello.__file__} | head -n 1; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(
        ["bash", "-c", shell],
        cwd=tmp_path,
        env=environment | {"PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("0 loss: ")
    assert (tmp_path / "runs/hihello/0001/states.png").exists()


@pytest.mark.skipif(
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="a background job ignores Ctrl-C"
)
def test_ctrl_c_while_it_compiles(tmp_path, environment):
    """Interrupted once its run directory is there; nothing is measured, but it can go on."""
    process = subprocess.Popen(
        [sys.executable, hihello.__file__],
        cwd=tmp_path,
        env=environment | {"JAX_ENABLE_COMPILATION_CACHE": "false"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.rglob("config.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, complaint = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "")
    assert complaint == (
        "note: stopped at step 0; resume with: python -m jaxrnn resume runs/hihello/0001\n"
        "\ninterrupted\n"
    )


def test_matplotlib_is_imported_only_for_plots():
    code = "import sys, hihello; print('matplotlib' in sys.modules)"
    folder = str(Path(hihello.__file__).parent)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"


@pytest.mark.slow
def test_it_works_with_x64_enabled(run):
    result = run("hihello.py", "--quiet", "--no-plots", "--steps", "9", JAX_ENABLE_X64="1")
    assert result.returncode == 0, result.stderr


def test_every_script_has_tests():
    scripts = {path.name for path in Path(hihello.__file__).parent.glob("*.py")}
    tested = {path.name.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    others = {"study_results.py"}  # in test_study.py
    assert scripts - tested == others | {"hihello_torch.py", "char_lm_torch.py"}  # need PyTorch


def test_errors_are_one_clear_line_in_an_ascii_locale(run):
    """There tyro draws its box without border characters."""
    settings = {"LC_ALL": "C", "PYTHONUTF8": "0"}
    result = run("hihello.py", "--hidden-size", "0", **settings)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: hidden size must be at least 1\n"
