"""The processor on several systems, memory, and commands that fail."""

import os
import sys
import time

import pytest

from jaxrnn import cgroups
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
    monkeypatch.setattr(cgroups, "cpus", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 4, 6}, raising=False)
    assert machine.cpu()["usable"] == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.cpu()["usable"] == os.cpu_count()


@pytest.fixture
def limits(tmp_path, monkeypatch):
    """Return a function that sets the limits of control groups, by group: as under Kubernetes."""
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path)
    monkeypatch.setattr(cgroups, "MEMBERSHIP", tmp_path / "membership")
    (tmp_path / "membership").write_text("1:name=systemd:/old\n0::/pod/container\n")
    (tmp_path / "pod/container").mkdir(parents=True)

    def limits(**files):
        for name, text in files.items():
            group, _, file = name.partition("_")
            folder = {"root": "", "pod": "pod", "container": "pod/container"}[group]
            (tmp_path / folder / file.replace("_", ".")).write_text(text + "\n")

    return limits


@pytest.mark.parametrize(
    ("pod", "container", "usable"),
    [("max 100000", "max 100000", 8), ("250000 100000", "400000 100000", 2), ("max 1", "5 10", 1)],
)
def test_usable_cpus_follow_a_containers_limit(limits, monkeypatch, pod, container, usable):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    limits(pod_cpu_max=pod, container_cpu_max=container)
    assert machine.cpu()["usable"] == usable


def test_available_memory_follows_a_containers_limit(limits):
    """Also a limit of a group around its own."""
    _, available = machine.memory()
    limits(pod_memory_max="max", pod_memory_current="900")
    assert machine.memory().available == pytest.approx(available, rel=0.2)
    stat = "anon 500\ninactive_file 100"
    limits(pod_memory_max="1000", pod_memory_current="700", pod_memory_stat=stat)
    assert machine.memory().available == 400
    limits(container_memory_max="600", container_memory_current="650", container_memory_stat=stat)
    assert machine.memory().available == 50


def test_without_control_groups_nothing_is_limited(monkeypatch, tmp_path):
    monkeypatch.setattr(cgroups, "MEMBERSHIP", tmp_path / "none")
    assert (cgroups.cpus(), cgroups.free_memory()) == (None, None)


def test_memory_equals_the_systems(monkeypatch):
    monkeypatch.setattr(cgroups, "free_memory", lambda: None)
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
