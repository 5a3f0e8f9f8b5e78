"""The commands and scripts in the documentation are correct in their syntax."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(page.name for page in DOCS.glob("*.md"))


def blocks(page, language):
    text = (DOCS / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def check_bash(script):
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), script


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_scripts_can_be_parsed(page):
    for script in blocks(page, "bash"):
        check_bash(script)
    for script in blocks(page, "python"):
        if not script.startswith(">>>"):  # those are run as doctests
            ast.parse(script)


def test_the_pods_of_the_jobset_run_a_script():
    yaml = pytest.importorskip("yaml")
    (text,) = blocks("scaling.md", "yaml")
    jobset = yaml.safe_load(text)
    (jobs,) = jobset["spec"]["replicatedJobs"]
    job = jobs["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    (script,) = container["args"]
    check_bash(script)
    # Pods are called JOBSET-JOB-INDEX-POD and reached at the name of the JobSet.
    name = jobset["metadata"]["name"]
    assert f"--coordinator {name}-{jobs['name']}-0-0.{name}:" in script
    assert f"--processes {job['completions']} " in script
