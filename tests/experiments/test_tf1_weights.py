"""The classic lab from TensorFlow's own initial weights, as a user runs it."""

import json
import os
import re
import shutil
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import hihello
import numpy as np
import pytest

from jaxrnn import GRUCell, LanguageModel, Recurrent, cli
from jaxrnn.cli import commands
from jaxrnn.errors import SettingError
from jaxrnn.runs import tf1_weights

GOLDEN = Path(__file__).parents[1] / "goldens" / "tf114_hihello_seed777.npz"
FLAGS = ["--optimizer=adam-tf1", "--no-plots"]
LAB, VARIABLES = tf1_weights.NAMES

pytestmark = pytest.mark.optimized


@pytest.fixture
def lab(call):
    """As `run` of hihello.py, but in this process."""
    return partial(call, lambda: cli.run_command(hihello.Config, hihello.main), "hihello.py")


@pytest.fixture
def jaxrnn(call):
    return partial(call, commands.main, "jaxrnn")


@pytest.fixture
def golden():
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


def rows_of(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_the_command_remakes_tensorflows_numbers(run, golden, tmp_path):
    result = run("hihello.py", *FLAGS, f"--init-from={GOLDEN}", "--run-dir=a")
    assert (result.returncode, result.stderr) == (0, "")
    rows = rows_of(tmp_path / "a")
    losses = [row["loss"] for row in rows[:-1]]
    np.testing.assert_allclose(losses, golden["loss"], atol=5e-6, rtol=0)
    predictions = [row["prediction"] for row in rows[1:]]
    np.testing.assert_array_equal(predictions, golden["prediction"])
    printed = re.findall(r"loss: (\S+) prediction: \[\[(.*?)\]\]", result.stdout)
    np.testing.assert_allclose([float(loss) for loss, _ in printed], losses, rtol=1e-6)
    assert [list(map(int, ids.split())) for _, ids in printed] == golden["prediction"].tolist()


@pytest.mark.slow
def test_every_seed_starts_from_the_variables_of_the_lab(lab, golden, tmp_path):
    """By TensorFlow's names, in float64, beside arrays that are of no use here."""
    arrays = {
        theirs: golden[ours].astype(float) for ours, theirs in zip(LAB, VARIABLES, strict=True)
    }
    np.savez("lab.npz", global_step=np.array(None, dtype=object), **arrays)
    result = lab(*FLAGS, "--init-from=lab.npz", "--seed=4", "--seeds=3", "--run-dir=a")
    assert result.returncode == 0, result.stderr
    rows = rows_of(tmp_path / "a")
    for seed in (4, 5, 6):
        losses = [row["loss"] for row in rows if row["seed"] == seed]
        np.testing.assert_allclose(losses[:-1], golden["loss"], atol=1e-5, rtol=0)


@pytest.mark.slow
def test_the_run_names_the_file_and_refuses_another(lab, jaxrnn, golden, tmp_path):
    file = tmp_path / "lab.npz"
    shutil.copyfile(GOLDEN, file)
    assert lab(*FLAGS, "--init-from=lab.npz", "--steps=5", "--run-dir=a").returncode == 0
    manifest = json.loads((tmp_path / "a/manifest.json").read_text())
    digest = sha256(GOLDEN.read_bytes()).hexdigest()
    assert manifest["init_from"] == {"file": str(file), "sha256": digest}
    os.chdir("/")  # the file is found from anywhere
    result = jaxrnn("verify", str(tmp_path / "a"))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("Bitwise equal: 6 logged steps")
    assert jaxrnn("resume", str(tmp_path / "a")).returncode == 0
    shutil.rmtree(tmp_path / "a/checkpoints")  # as if killed before the first
    result = jaxrnn("resume", str(tmp_path / "a"))
    assert result.returncode == 0, result.stderr
    assert rows_of(tmp_path / "a")[5]["loss"] == pytest.approx(golden["loss"][5], abs=5e-6)
    np.savez(file, **golden | {"init.lstm_bias": golden["init.lstm_bias"] + 1})
    for command in ("resume", "verify"):
        result = jaxrnn(command, str(tmp_path / "a"))
        assert (result.returncode, result.stdout) == (2, "")
        changed = f"{file} has changed since the run in {tmp_path / 'a'} started; restore it"
        assert result.stderr == f"error: {changed}\n"
    file.unlink()
    for command in ("resume", "verify"):
        result = jaxrnn(command, str(tmp_path / "a"))
        assert result.returncode == 2
        assert re.fullmatch(rf"error: there is no {file} here; .*\n", result.stderr)


ONLY = r"for a SequenceModel with one layer of LSTM cells .*--cell lstm --layers 1"
BAD = {
    "missing": (["--init-from=none.npz"], "No such file or directory: .*none.npz"),
    "text": (["--init-from=text"], "text is not a .npz file; write one with numpy.savez"),
    "text named .npz": (["--init-from=text.npz"], "text.npz is not a .npz file"),
    "one array": (["--init-from=one.npy"], "one.npy is not a .npz file"),
    "damaged": (["--init-from=damaged.npz"], "damaged.npz cannot be read: BadZipFile"),
    "objects": (["--init-from=objects.npz"], "objects.npz cannot be read: .*allow_pickle"),
    "integers": (["--init-from=integers.npz"], r"lstm_bias is int64\[20\] in .* float\[20\]"),
    "a missing array": (["--init-from=lacks.npz"], "no init.readout_bias; it must have init.lstm"),
    "no array": (["--init-from=empty.npz"], "no init.lstm_kernel; .* or rnn/basic_lstm_cell/kern"),
    "hidden size": (["--hidden-size=6"], r"lstm_kernel is float32\[10, 20\] .* float\[11, 24\]"),
    "text to learn": (["--text=abc"], r"lstm_kernel is float32\[10, 20\] in .* float\[8, 20\]"),
    "another cell": (["--cell=gru"], ONLY),
    "an option of the cell": (["--projection-size=2"], f"{ONLY}.* with projection_size"),
    "two layers": (["--layers=2"], f"{ONLY}.* not for 2 layers"),
    "final": (["--final"], "--final is for a run to start from, not for a file"),
}


@pytest.fixture
def files(golden, tmp_path):
    def save(name: str, **arrays: Any) -> None:
        np.savez(tmp_path / name, **arrays)

    first = {name: golden[name] for name in LAB}
    (tmp_path / "text").write_text("hihello")
    (tmp_path / "text.npz").write_text("hihello")
    np.save(tmp_path / "one.npy", golden["loss"])
    save("empty.npz")
    save("integers.npz", **first | {LAB[1]: np.arange(20)})
    save("objects.npz", **first | {LAB[1]: np.array([None] * 20)})
    save("lacks.npz", **{name: first[name] for name in LAB[:3]})
    content = bytearray((tmp_path / "lacks.npz").read_bytes())
    content[300] ^= 1  # inside the first array
    (tmp_path / "damaged.npz").write_bytes(content)


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_and_leaves_nothing(lab, files, tmp_path, case):
    arguments, expected = BAD[case]
    before = sorted(tmp_path.rglob("*"))
    result = lab(f"--init-from={GOLDEN}", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(rf"error: .*{expected}.*\n", result.stderr), result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_only_a_sequence_model_can_start_from_it():
    with pytest.raises(SettingError, match="not for a LanguageModel"):
        tf1_weights.read(GOLDEN, LanguageModel(Recurrent(GRUCell(5)), 5), {})
