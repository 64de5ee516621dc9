from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from assay import __version__, machine


def make(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    ("groups", "cores"),
    [
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"job/cpu.max": "400000 100000\n"}, 4),
        ({"job/cpu.max": "max 100000\n", "cpu.max": "300000 100000\n"}, 3),
        ({"job/cpu.max": "100000 100000\n", "cpu.max": "300000 100000\n"}, 1),
    ],
)
def test_quota(tmp_path: Path, groups: dict[str, str], cores: int | None) -> None:
    make(tmp_path, "proc/self/cgroup", "0::/job\n")
    for path, text in groups.items():
        make(tmp_path, f"sys/fs/cgroup/{path}", text)
    assert machine.quota(tmp_path) == cores


@pytest.mark.parametrize(("granted", "cores"), [("-1", None), ("300000", 3)])
def test_quota_of_version_1(tmp_path: Path, granted: str, cores: int | None) -> None:
    make(tmp_path, "proc/self/cgroup", "4:memory:/job\n3:cpu,cpuacct:/job\n")
    make(tmp_path, "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", f"{granted}\n")
    make(tmp_path, "sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000\n")
    assert machine.quota(tmp_path) == cores


GIB = 2**30


def memory_group(root: Path, folder: str, limit: str, used: int, files: int = 0) -> None:
    """A control group of version 2."""
    make(root, f"sys/fs/cgroup/{folder}/memory.max", f"{limit}\n")
    make(root, f"sys/fs/cgroup/{folder}/memory.current", f"{used}\n")
    make(root, f"sys/fs/cgroup/{folder}/memory.stat", f"anon 5\nactive_file {files}\ninactive_file 1\n")


@pytest.mark.parametrize(
    ("groups", "left"),
    [
        ((), None),
        ((("job", "max", GIB),), None),
        ((("job", str(4 * GIB), GIB),), 3 * GIB + 1),
        ((("job", str(4 * GIB), 3 * GIB, 2 * GIB),), 3 * GIB + 1),  # cached files are given back
        ((("job", "max", GIB), ("", str(2 * GIB), GIB)), GIB + 1),
        ((("job", str(8 * GIB), GIB), ("", str(2 * GIB), GIB)), GIB + 1),
        ((("job", str(GIB), 2 * GIB),), 0),
    ],
)
def test_memory_that_control_groups_leave(tmp_path: Path, groups: tuple[Any, ...], left: int | None) -> None:
    make(tmp_path, "proc/self/cgroup", "0::/job\n")
    for group in groups:
        memory_group(tmp_path, *group)
    assert machine.grant(tmp_path) == left


def test_memory_that_version_1_leaves(tmp_path: Path) -> None:
    make(tmp_path, "proc/self/cgroup", "4:cpu,cpuacct:/job\n3:memory:/job\n")
    make(tmp_path, "sys/fs/cgroup/memory/job/memory.limit_in_bytes", f"{4 * GIB}\n")
    make(tmp_path, "sys/fs/cgroup/memory/job/memory.usage_in_bytes", f"{3 * GIB}\n")
    make(tmp_path, "sys/fs/cgroup/memory/job/memory.stat", "inactive_file 7\ntotal_inactive_file 100\n")
    assert machine.grant(tmp_path) == GIB + 100


def test_free_memory_stays_within_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < machine.free_memory() <= machine.describe_machine().memory
    monkeypatch.setattr(machine, "grant", lambda root: 5)
    assert machine.free_memory() == 5


def test_no_control_groups(tmp_path: Path) -> None:
    assert machine.quota(tmp_path) is None
    assert machine.grant(tmp_path) is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_threads_follow_the_affinity() -> None:
    core = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{core}}}); from assay.machine import threads; print(threads())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


def test_threads_stay_within_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "quota", lambda: 1)
    assert machine.threads() == 1


def test_processor(tmp_path: Path) -> None:
    make(tmp_path, "proc/cpuinfo", "processor\t: 0\nmodel name\t: Example 9000 @ 3.00GHz\nmodel name\t: other\n")
    assert machine.processor(tmp_path) == "Example 9000 @ 3.00GHz"


def test_processor_without_a_model_name(tmp_path: Path) -> None:
    make(tmp_path, "proc/cpuinfo", "processor\t: 0\n")
    assert machine.processor(tmp_path)


def test_machine() -> None:
    described = machine.describe_machine(["NVIDIA H200"])
    assert described.devices == ("NVIDIA H200",)
    assert described.cores == machine.threads()
    assert described.memory > 1 << 28
    assert described.processor and described.system and described.name


def test_environment_names_what_is_installed() -> None:
    described = machine.describe_environment(2, ["numpy", "no-such-distribution"])
    assert list(described.packages) == ["numpy"]
    assert (described.assay, described.threads) == (__version__, 2)


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from assay import doctor, machine; doctor.examine(); machine.describe_machine();"
        "machine.describe_environment(1, ['torch']);"
        "print({'torch', 'transformers', 'onnx', 'openvino'} & {*sys.modules})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
