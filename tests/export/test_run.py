"""`jaxrnn export`: the files of a run's network, what they say, and what is refused."""

import ast
import json
import re
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors import safe_open

from jaxrnn.cells import GRUCell, LSTMCell
from jaxrnn.cli import commands
from jaxrnn.errors import SettingError
from jaxrnn.export import FORMATS, export_run
from jaxrnn.interop import load_params
from jaxrnn.layers.recurrent import Recurrent
from jaxrnn.layers.stack import Bidirectional, Stack
from jaxrnn.models import EncoderDecoder, LanguageModel, SequenceModel
from jaxrnn.runs import runner
from jaxrnn.runs.loading import load
from jaxrnn.tasks import Adding, Language
from jaxrnn.tasks.sequence_to_sequence import Reverse
from jaxrnn.text.tokenizer import detokenize
from jaxrnn.training.config import ExperimentConfig, TrainConfig
from jaxrnn.training.mesh import MeshShape

KOREAN = "대한민국은 민주공화국이다. ABC\n" * 40
GUIDE = Path(__file__).parents[2] / "docs" / "export.md"


def trained(task, model, folder, **options):
    config = ExperimentConfig(
        task, model, TrainConfig(4, 0.05), vmap_size=1, mesh=MeshShape(), **options
    )
    return runner.run(config, run_dir=folder).run_dir


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, cache_home):
    """A language model of jamo; its text is gone."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_home))
        (folder / "korean.txt").write_text(KOREAN)
        task = Language.from_file(
            folder / "korean.txt", "jamo", batch_size=2, sequence_length=10, val_fraction=0.0
        )
        language = LanguageModel(Stack((Recurrent(LSTMCell(6)),)), task.output_size)
        trained(task, language, folder / "jamo", seed=3)
    (folder / "korean.txt").unlink()
    return folder / "jamo"


@pytest.fixture
def export(call):
    return partial(call, commands.main, "jaxrnn", "export")


def vocabulary_of(network):
    return network.config.task.vocabulary


def example_of(read_me):
    (code,) = re.findall(r"```python\n(.*?)```", read_me.read_text("utf-8"), re.DOTALL)
    return code


@pytest.mark.parametrize("to", FORMATS)
def test_each_format_has_files_that_describe_it(run_dir, export, to, monkeypatch):
    done = export(str(run_dir), "--to", to)
    assert done.returncode == 0, done.stderr
    paths = [Path(line) for line in done.stdout.splitlines()]
    file = run_dir / "export" / FORMATS[to]
    assert paths[0] == file and all(path.parent == file.parent for path in paths)
    assert paths[-2:] == [Path(f"{file}.json"), Path(f"{file}.README.md")]
    told, network = json.loads(paths[-2].read_text("utf-8")), load(run_dir)
    assert told["vocabulary"] == list(vocabulary_of(network))
    assert told["tokenizer"] == "jamo" and told["seed"] == 3
    assert told["inputs"][0]["name"] == "ids" and told["outputs"][0]["name"] == "logits"
    read_me = paths[-1].read_text("utf-8")
    for array in told["inputs"] + told["outputs"]:
        assert f"| `{array['name']}` | [{', '.join(map(str, array['axes']))}] |" in read_me
    monkeypatch.chdir(file.parent)
    if to == "torch":
        pytest.importorskip("torch", reason="it is not among the packages of tests")
        monkeypatch.syspath_prepend(file.parent)
    (file.parent / "example.py").write_text(example_of(paths[-1]))
    values = runpy.run_path("example.py")
    if to != "safetensors":
        assert values["logits"].shape == (2, 3, len(told["vocabulary"]))


def test_safetensors_have_the_parameters_to_the_bit(run_dir, tmp_path):
    export_run(run_dir, "safetensors", tmp_path / "a", final=True)
    network = load(run_dir, final=True)
    theirs, own = (flatten_dict(x) for x in (load_params(tmp_path / "a"), network.params))
    assert theirs.keys() == own.keys()
    for name, array in own.items():
        np.testing.assert_array_equal(theirs[name], array)
    read_me = (tmp_path / "a.README.md").read_text("utf-8")
    assert f"| `readout/bias` | [{len(vocabulary_of(network))}] | float32 |" in read_me
    with safe_open(tmp_path / "a", "numpy") as file:
        assert json.loads(file.metadata()["vocabulary"]) == list(vocabulary_of(network))


def test_the_sampler_of_the_guide_runs_as_printed(run_dir, tmp_path):
    """It draws what one draws from our own model with the same random numbers."""
    (code,) = re.findall(r"```python\n(import json\n.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert len(code.splitlines()) <= 20
    modules = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import)]
    names = {alias.name for node in modules for alias in node.names}
    assert names == {"json", "sys", "numpy", "onnxruntime"}
    (tmp_path / "sampler.py").write_text(code)
    export_run(run_dir, "onnx", tmp_path / "a.onnx")
    command = [sys.executable, "sampler.py", "a.onnx", "대한", "12"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    network = load(run_dir)
    rng = np.random.default_rng(1)
    task: Any = network.config.task
    ids = task.encode("대한").tolist()
    apply = jax.jit(network.model.apply)
    for _ in range(12):
        read = np.zeros((1, 20), np.int32)
        read[0, : len(ids)] = ids
        logits = apply({"params": network.params}, read)[0][0, len(ids) - 1]
        p = np.asarray(jax.nn.softmax(logits / 0.8))
        ids.append(int(rng.choice(len(p), p=p)))
    assert done.stdout == detokenize(task.decode(ids), "jamo") + "\n"


@pytest.mark.slow
def test_any_network_is_exported_to_stablehlo(export, tmp_path):
    """One that ONNX lacks, and one from sequence to sequence."""
    task = Reverse(min_length=1, max_length=3, batch_size=2, validation_size=2)
    size = len(task.source_vocabulary)
    both = Bidirectional(Recurrent(GRUCell(4)), Recurrent(GRUCell(4), reverse=True))
    model = EncoderDecoder(both, Recurrent(GRUCell(4)), task.source_length, size, size)
    trained(task, model, "reverse")
    normed = SequenceModel(Recurrent(LSTMCell(4, layer_norm=True)), 1)
    trained(Adding(5, batch_size=2), normed, "normed")
    for name in ("normed", "reverse"):
        files = export_run(name, "stablehlo", f"{name}.stablehlo")
        Path("example.py").write_text(example_of(files[-1]))
        assert runpy.run_path("example.py")["logits"].shape[0] == 2
    told = json.loads(Path("reverse.stablehlo.json").read_text("utf-8"))
    assert told["source_vocabulary"][0] == "<end>" and told["inputs"][0]["axes"] == ["B", "T"]
    done = export("normed", "--to", "onnx")
    wanted = "error: ONNX has no LSTMCell with layer_norm; --to stablehlo takes any network\n"
    assert (done.returncode, done.stderr) == (2, wanted)
    assert not Path("normed", "export").exists()


REFUSED = {
    "a misspelt format": (
        ("--to", "onxx"),
        "--to must be one of onnx, stablehlo, safetensors, torch, not 'onxx'; did you mean onnx?",
    ),
    "no format": ((), "--to"),
    "a directory": (("--to", "safetensors", "--out", "."), "the file cannot be a directory: ."),
    "no such folder": (("--to", "safetensors", "--out", "no/a"), "No such file or directory: no/a"),
    "a pickle": (
        ("--to", "torch", "--out", "a.pt"),
        "--out must be NAME.safetensors, with a module NAME.py, not a.pt",
    ),
    "no name of a module": (("--to", "torch", "--out", "a-b.safetensors"), "--out must be NAME."),
    "a package's name": (
        ("--to", "torch", "--out", "torch.safetensors"),
        "a module named torch.py would hide the package torch",
    ),
    "another file's place": (
        ("--to", "torch", "--out", "mine.safetensors"),
        "mine.py exists and is not from an export: choose another --out",
    ),
    "another seed": (("--to", "safetensors", "--model-seed", "9"), "the run has the seeds 3 to 3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_refused_in_one_line(run_dir, export, name, tmp_path):
    arguments, message = REFUSED[name]
    (tmp_path / "mine.py").write_text("print()")
    done = export(str(run_dir), *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


@pytest.mark.slow
def test_existing_files_are_replaced(run_dir, tmp_path):
    pytest.importorskip("torch", reason="it is not among the packages of tests")
    first = export_run(run_dir, "torch", tmp_path / "a.safetensors")
    first[0].write_bytes(b"")
    again = export_run(run_dir, "torch", str(tmp_path / "a.safetensors"))
    assert again == first and load_params(first[0])


def test_the_format_is_checked_before_anything_is_read():
    with pytest.raises(SettingError, match="not 'pytorch'; did you mean torch"):
        export_run("nowhere", "pytorch")
