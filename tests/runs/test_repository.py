"""The state of a git repository, also where there is none, or no git."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from jaxrnn.runs import provenance, repository

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(root, *arguments):
    """Run git as a user who has set nothing; returns what it prints."""
    names = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")
    environment = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
    environment["GIT_CONFIG_GLOBAL"] = os.devnull
    command = ["git", "-C", str(root), *names, *arguments]
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout


def state(root):
    """The state of a repository that git can read."""
    known = repository.state_of(root)
    assert known is not None
    return known


@pytest.fixture
def root(tmp_path):
    """A repository with one commit of one file, `folder/lab.py`."""
    path = tmp_path / "repository"
    (path / "folder").mkdir(parents=True)
    (path / "folder/lab.py").write_text("first\n")
    git(path, "init", "-q")
    git(path, "add", ".")
    git(path, "commit", "-q", "-m", "first")
    return path


def test_clean(root):
    (root / "not tracked").touch()
    commit = git(root, "rev-parse", "HEAD").strip()
    assert repository.state_of(root) == {"commit": commit, "dirty": False, "changes": None}


def test_dirty_states_can_be_told_apart(root):
    def edited(text):
        (root / "folder/lab.py").write_text(text)
        return state(root)

    clean = state(root)
    one, other = edited("one\n"), edited("two\n")
    assert one["dirty"] and other["dirty"]
    assert one["commit"] == other["commit"] == clean["commit"]
    assert len({one["changes"], other["changes"], None}) == 3
    git(root, "add", ".")
    assert repository.state_of(root) == other, "what is staged is not yet committed"
    assert edited("one\n") == one
    assert edited("first\n")["dirty"] is True, "what is staged is still there"
    git(root, "reset", "-q", "--hard")
    assert repository.state_of(root) == clean


def test_another_commit(root):
    before = state(root)
    git(root, "commit", "-q", "--allow-empty", "-m", "second")
    after = state(root)
    assert before["commit"] != after["commit"] == git(root, "rev-parse", "HEAD").strip()


def test_before_the_first_commit(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a").touch()
    git(tmp_path, "add", ".")
    assert repository.state_of(tmp_path) == {"commit": None, "dirty": True, "changes": None}


def test_reading_the_state_changes_nothing(root):
    os.utime(root / "folder/lab.py", (1, 1))  # git would write its index anew
    index = (root / ".git/index").stat().st_mtime_ns
    assert state(root)["dirty"] is False
    assert (root / ".git/index").stat().st_mtime_ns == index


def test_git_variables_are_ignored(root, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    git(tmp_path / "other", "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    assert state(root)["commit"] == git(root, "rev-parse", "HEAD").strip()


def test_where_a_repository_is(root):
    assert repository.root_of(root / "folder/lab.py") == root
    assert repository.root_of(root / "lab.py") == root
    assert repository.root_of(root.parent / "lab.py") is None
    for folder in ("site-packages", "dist-packages"):
        assert repository.root_of(root / ".venv/lib" / folder / "lab.py") is None


def test_without_git_nothing_is_known(root, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert repository.state_of(root) is None
    code = provenance.code(root / "folder/lab.py")
    assert (code["script"], code["jaxrnn"]) == (None, None)
    assert code["script_sha256"] is not None


def test_a_repository_that_git_cannot_read(root):
    (root / ".git/HEAD").write_text("broken")
    (root / ".git/config").write_text("[broken")
    assert repository.state_of(root) is None


def test_the_code_is_the_scripts_and_jaxrnns(root, tmp_path):
    code = provenance.code(root / "folder/lab.py")
    assert code["script"] == repository.state_of(root)
    package = repository.root_of(Path(repository.__file__).resolve())
    assert (code["jaxrnn"] is None) == (package is None)
    link = tmp_path / "link.py"
    link.symlink_to(root / "folder/lab.py")
    assert provenance.code(link)["script"] == code["script"]
    assert provenance.code(tmp_path / "none.py")["script"] is None
    before = provenance.collect(link)
    (root / "folder/lab.py").write_text("other\n")
    after = provenance.collect(link)
    after["code"]["jaxrnn"] = before["code"]["jaxrnn"]  # someone may be at work on it
    phrases = provenance.differences(before, after)
    assert [phrase.partition(" was ")[0] for phrase in phrases] == [
        "the script's SHA-256",
        "the script's repository",
    ]
