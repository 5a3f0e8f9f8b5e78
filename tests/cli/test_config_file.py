"""--config: a run's config.json gives the script its options again, which others override."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import char_lm
import classify
import formal_languages
import hihello
import memory
import pytest
import seq2seq

from jaxrnn import cli
from jaxrnn.runs import run_metadata
from jaxrnn.training.joint import join_experiments

SCRIPTS = {
    "memory": (
        memory,
        "--task copy --delay 5 --bidirectional --seeds 3 --mesh seed=1 --vmap-size 2",
    ),
    "formal_languages": (formal_languages, "--task dyck --cell rnn --learning-rate 3e-5"),
    "classify": (classify, "--task mnist1d --fresh --pool mean --schedule cosine"),
    "seq2seq": (seq2seq, "--task sort --embedding-size 3 --reverse-source --beams 2"),
    "char_lm": (char_lm, "--text text.txt --steps 2 --tokenizer bytes --dropout 0.25 --patience 3"),
    "hihello": (hihello, "--text=-안녕 --optimizer sgd --cell cifg --projection-size 3"),
}


@pytest.fixture
def parse(call):
    """Parse a script's command line; returns its config, or the error."""

    def parse(name: str, *words: str):
        script, found = SCRIPTS[name][0], []
        make = script.make_config
        start = partial(cli.run_command, script.Config, found.append, make_config=make)
        result = call(start, f"{name}.py", *words)
        assert result.stdout == ""
        return found[0] if found else result.stderr

    return parse


def save(name: str, config, path: Path = Path("config.json")) -> Path:
    """Write the config.json of a run that the script started."""
    written = run_metadata.config_of(SCRIPTS[name][0].make_config(config))
    path.write_text(json.dumps(written | {"script": f"/somewhere/{name}.py"}))
    return path


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_run_gives_its_options_again(name, parse, tmp_path):
    (tmp_path / "text.txt").write_text("the rain in Spain " * 300)
    config = parse(name, *SCRIPTS[name][1].split(), "--no-plots")
    file = save(name, config)
    again = parse(name, "--config", str(file), "--no-plots")
    made = [SCRIPTS[name][0].make_config(each) for each in (config, again)]
    assert made[0] == made[1]
    assert made[0].options == made[1].options
    assert cli.options_of(config) == cli.options_of(again)


def test_options_on_the_command_line_win(parse):
    file = save("memory", parse("memory", *SCRIPTS["memory"][1].split()))
    words = "--hidden-size 3 --no-bidirectional --seeds=2 --delay 7"
    for line in (f"--config={file} {words}", f"{words} --config {file}"):
        config = parse("memory", *line.split())
        assert (config.task, config.delay, config.run.seeds) == ("copy", 7, 2)
        assert (config.network.hidden_size, config.network.bidirectional) == (3, False)
        assert not config.run.no_plots
    error = parse("memory", "--config", str(file), "--task", "adding")
    assert error == (
        "error: --delay is for --task copy; adding has --sequence-length, --variant, --batch-size\n"
    )
    assert parse("memory", "--config", str(file), "--task", "adding", "--delay=None").delay is None


def test_a_file_of_options(parse):
    Path("mine.json").write_text('{"hidden-size": 7, "task": "copy", "init_from": null}')
    config = parse("memory", "--config", "mine.json", "--layers", "2")
    assert (config.task, config.network.hidden_size, config.network.layers) == ("copy", 7, 2)


BAD = {
    '{"hiden_size": 7}': "mine.json: there is no option 'hiden_size'; did you mean hidden_size?",
    '{"config": "x"}': "mine.json: there is no option 'config'",
    '{"hidden_size": "big"}': "--hidden-size",
    '{"cell": "lstn"}': "not 'lstn'; did you mean lstm?",
    "[1]": "mine.json must be a JSON object of options",
    "{": "mine.json is damaged: it is not JSON",
    '{"runs": [], "experiments": []}': "mine.json is of a sweep; take the config.json of one of",
    '{"experiment": {"options": {}}, "script": "/a/char_lm.py"}': (
        "mine.json is of a run of char_lm.py, not of memory.py"
    ),
    '{"experiment": {}, "script": "memory.py"}': "mine.json has no options",
    '{"experiment": {}, "script": null}': "mine.json has no options",
}


@pytest.mark.parametrize("content", BAD)
def test_bad_files_are_one_line(parse, content):
    Path("mine.json").write_text(content)
    error = parse("memory", "--config", "mine.json")
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert BAD[content] in error


def test_no_file(parse):
    assert parse("memory", "--config", "nope") == "error: No such file or directory: nope\n"
    assert "--config" in parse("memory", "--config")


def test_what_a_script_no_longer_makes_is_said(parse, call):
    """Other defaults in the code, or an experiment that was edited."""
    file = save("memory", parse("memory"))
    content = json.loads(file.read_text())
    content["experiment"]["train"]["warmup_steps"] = 7
    file.write_text(json.dumps(content))
    found = []
    make = memory.make_config
    start = partial(cli.run_command, memory.Config, found.append, make_config=make)
    result = call(start, "memory.py", "--config", str(file))
    assert (result.returncode, len(found)) == (0, 1)
    said = "note: the options in config.json now give another experiment: train.warmup_steps\n"
    assert result.stderr == said


def test_options_of_a_sweep_in_one_program():
    configs = [
        memory.make_config(
            dataclasses.replace(
                memory.Config(),
                training=dataclasses.replace(memory.Config().training, learning_rate=rate),
            )
        )
        for rate in (0.1, 0.2)
    ]
    joint = join_experiments(configs, 1)
    assert joint is not None
    found = [joint.experiment(c).options for c in range(2)]
    assert [each and each["learning_rate"] for each in found] == [0.1, 0.2]
    old = dataclasses.replace(joint, each_options=())  # of a sweep of an earlier version
    assert old.experiment(1).options is None


@pytest.mark.slow
def test_sweeps_take_a_config_and_give_one(call, monkeypatch):
    start = partial(cli.run_command, memory.Config, memory.main, make_config=memory.make_config)
    monkeypatch.setattr("jaxrnn.runs.import_paths.script_of_main", lambda: Path("/a/memory.py"))
    words = "--steps 2 --hidden-size 2 --sequence-length 4 --batch-size 2 --no-plots"
    small = words.split()
    assert call(start, "memory.py", *small, "--run-dir", "one").returncode == 0
    words = ["--config", "one/config.json", "--no-plots", "--learning-rate", "0.1,0.2"]
    assert call(start, "memory.py", *words, "--run-dir", "many").returncode == 0
    second = "many/learning_rate=0.2/config.json"
    words = ["--config", second, "--no-plots", "--run-dir", "again"]
    result = call(start, "memory.py", *words)
    assert (result.returncode, result.stderr) == (0, "")
    experiments = [
        json.loads(Path(file).read_text())["experiment"]["train"]
        for file in (second, "again/config.json")
    ]
    assert experiments[0] == experiments[1]
    assert (
        "sweep.json is of a sweep" in call(start, "memory.py", "--config", "many/sweep.json").stderr
    )
