"""The script in the README: it runs, is stopped, goes on, and is verified."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")


@pytest.mark.slow
def test_the_script_runs_stops_resumes_and_verifies(tmp_path, cache_home, environment):
    """As it stands there, but long enough to be stopped amid it."""
    (script,) = re.findall(r'```python\n(""".*?)```', README, re.DOTALL)
    assert len(script.splitlines()) < 42
    (tmp_path / "first_symbol.py").write_text(
        script.replace("TrainConfig(4000", "TrainConfig(8000")
    )
    settings = environment | {"XDG_CACHE_HOME": str(cache_home), "TF_CPP_MIN_LOG_LEVEL": "3"}

    def start(*command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=tmp_path,
            env=settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    process = start("first_symbol.py")
    metrics = tmp_path / "runs/first_symbol/0001/metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 143
    assert complaint.endswith("python -m jaxrnn resume runs/first_symbol/0001\n")
    assert b'"step": 8000' not in metrics.read_bytes()

    process = start("-m", "jaxrnn", "resume", "runs/first_symbol/0001")
    said, complaint = process.communicate(timeout=120)
    assert process.returncode == 0, complaint
    assert "seed 0 after 8000 updates" in said
    assert "It solved the task." in said

    process = start("-m", "jaxrnn", "verify", "runs/first_symbol/0001")
    said, complaint = process.communicate(timeout=120)
    assert process.returncode == 0, complaint
    assert said.startswith("Bitwise equal: 401 logged steps of 1 seed")
