"""The processor on several systems, memory, and commands that fail."""

import os
import sys
import time

import pytest

from jaxrnn.runs import machine

X86 = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R): Platinum
stepping\t: 8
flags\t\t: fpu vme avx2 avx fma smep sse4_2

processor\t: 1
model name\t: another
"""
ARM = """\
processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd sve bf16 crc32
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
"""


@pytest.mark.parametrize(
    ("text", "model", "vectors"),
    [
        (
            X86,
            "Intel(R) Xeon(R): Platinum, cpu family 6, model 143, stepping 8",
            "avx avx2 fma sse4_2",
        ),
        (ARM, "CPU implementer 0x41, CPU variant 0x3, CPU part 0xd0c", "asimd bf16 sve"),
    ],
    ids=["x86", "ARM"],
)
def test_cpu_on_linux(monkeypatch, tmp_path, text, model, vectors):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    found = machine.cpu()
    assert (found["model"], found["vectors"]) == (model, vectors)


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_cpu_elsewhere(monkeypatch, tmp_path, system):
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr(sys, "platform", system)
    answers = {"machdep.cpu.brand_string": b"Apple M4\n"}
    monkeypatch.setattr(machine, "output_of", lambda *command: answers[command[-1]])
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    monkeypatch.setattr(machine.platform, "machine", lambda: "arm64")
    assert machine.cpu()["model"] == {"darwin": "Apple M4", "win32": "arm64"}[system]
    assert machine.cpu()["vectors"] is None
    monkeypatch.setattr(machine, "output_of", lambda *command: None)
    assert machine.cpu()["model"] == "arm64"


def test_usable_cpus_follow_the_affinity(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 4, 6}, raising=False)
    assert machine.cpu()["usable"] == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.cpu()["usable"] == os.cpu_count()


def test_memory_equals_the_systems():
    total, available = machine.memory()
    assert total == pytest.approx(
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), rel=0.01
    )
    assert 0 < available < total


def test_a_command_that_fails_is_none():
    python = (sys.executable, "-S", "-c")
    assert machine.output_of(*python, "import os; os.write(1, b'\\xff')") == b"\xff"
    assert machine.output_of(*python, "raise SystemExit(1)") is None
    assert machine.output_of("/no/such/command") is None
    start = time.monotonic()
    assert machine.output_of(*python, "import time; time.sleep(60)", timeout=0.2) is None
    assert time.monotonic() - start < 30
