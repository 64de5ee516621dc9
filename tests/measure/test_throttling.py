"""What keeps a processor from its work: each cause by a system that counts it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assay.devices import Device, Host, cpu_device
from assay.measure.throttling import MUCH, Watch, disturbance, lost, most
from assay.schema import Throttling

TICK = os.sysconf("SC_CLK_TCK")
HEAT = "sys/devices/system/cpu/cpu{}/thermal_throttle/{}_throttle_total_time_ms"


def make(root: Path, path: str, text: str) -> None:
    """A file of the system."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def stolen(root: Path, *seconds: float) -> None:
    """A system with so many cores that this process may run on, and one that it may not."""
    own = sorted(os.sched_getaffinity(0))
    cores = dict(zip(own, seconds, strict=False)) | {1 + own[-1]: 1e6}
    lines = [f"cpu{number} 1 2 3 4 5 6 7 {round(TICK * value)} 0 0" for number, value in cores.items()]
    make(root, "proc/stat", "\n".join(["cpu  1 2 3 4 5 6 7 8 9 10", *lines, "intr 5 6\n"]))


def counted(root: Path, **files: str) -> None:
    """Control groups of both versions."""
    make(root, "proc/self/cgroup", "4:memory:/x\n3:cpu,cpuacct:/job\n0::/job/step\n")
    for name, text in files.items():
        make(root, f"sys/fs/cgroup/{name.replace('__', '/')}/cpu.stat", text)


def test_time_that_the_host_took_is_that_of_the_core_that_lost_most(tmp_path: Path) -> None:
    stolen(tmp_path, 10.0, 20.0)
    watch = Watch(cpu_device(), Host(root=tmp_path))
    stolen(tmp_path, 10.5, 20.1)
    found = watch.seen()
    assert found.stolen == pytest.approx(0.5)
    assert (found.quota, found.heat, found.device) == (None, None, None)


@pytest.mark.parametrize(
    ("group", "before", "after"),
    [
        ("job__step", "usage_usec 5\nthrottled_usec 1000000\n", "usage_usec 9\nthrottled_usec 1250000\n"),
        ("job", "throttled_usec 7\n", "throttled_usec 250007\n"),
        ("cpu__job", "nr_throttled 2\nthrottled_time 5000000000\n", "nr_throttled 3\nthrottled_time 5250000000\n"),
    ],
)
def test_a_quota_counts_where_a_group_has_it(tmp_path: Path, group: str, before: str, after: str) -> None:
    counted(tmp_path, **{"job__step": "throttled_usec 3\n", group: before})
    watch = Watch(cpu_device(), Host(root=tmp_path))
    counted(tmp_path, **{group: after})
    assert watch.seen().quota == pytest.approx(0.25)


def test_a_group_without_a_quota_tells_nothing(tmp_path: Path) -> None:
    counted(tmp_path, job="usage_usec 5\n")
    assert Watch(cpu_device(), Host(root=tmp_path)).seen().quota is None


def test_heat_is_that_of_the_hottest_core_or_package(tmp_path: Path) -> None:
    for core, kind in ((0, "core"), (1, "core"), (0, "package")):
        make(tmp_path, HEAT.format(core, kind), "100\n")
    watch = Watch(cpu_device(), Host(root=tmp_path))
    make(tmp_path, HEAT.format(1, "core"), "140\n")
    make(tmp_path, HEAT.format(0, "package"), "400\n")
    assert watch.seen().heat == pytest.approx(0.3)


class Nvml:
    """As much of `pynvml` as is asked."""

    NVML_PERF_POLICY_POWER, NVML_PERF_POLICY_THERMAL = 0, 1

    class NVMLError(Exception):
        """NVML's only error."""

    def __init__(self) -> None:
        self.nanoseconds: list[int] | None = [5, 7]

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    nvmlShutdown = nvmlInit  # noqa: N815

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return uuid

    def nvmlDeviceGetViolationStatus(self, card: str, policy: int) -> Any:  # noqa: N802
        if self.nanoseconds is None:
            raise self.NVMLError("Not Supported")
        return SimpleNamespace(violationTime=self.nanoseconds[policy])


def test_a_cuda_device_is_asked_of_its_driver(tmp_path: Path) -> None:
    card, nvml = Device("cuda", 0, "NVIDIA H100", detail={"uuid": "GPU-h100"}), Nvml()
    watch = Watch(card, Host(root=tmp_path, nvml=nvml))
    nvml.nanoseconds = [400_000_005, 7]
    assert watch.seen().device == pytest.approx(0.4)
    nvml.nanoseconds = None
    assert Watch(card, Host(root=tmp_path, nvml=nvml)).seen().device is None


def test_a_system_that_tells_nothing_is_no_quiet_one(tmp_path: Path) -> None:
    found = Watch(cpu_device(), Host(root=tmp_path)).seen()
    assert lost(found) == {} and disturbance(found) is None and disturbance(None) is None and most(None) == 0


def test_what_took_more_than_figures_are_known_to_is_said() -> None:
    found = Throttling(seconds=2.0, stolen=2.02 * MUCH, quota=1.98 * MUCH, heat=0.0)
    assert lost(found) == pytest.approx({"stolen": 1.01 * MUCH, "quota": 0.99 * MUCH, "heat": 0.0})
    assert most(found) == pytest.approx(1.01 * MUCH)
    assert disturbance(found) == "of the time in which it was timed 5.1% was taken by the host of the virtual machine"
    assert disturbance(Throttling(seconds=2.0, stolen=1.98 * MUCH)) is None


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the system does not count it")
def test_this_system_is_read() -> None:
    watch = Watch(cpu_device())
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    found = watch.seen()
    assert 0 < found.seconds <= time.perf_counter() - started + 0.1
    assert found.stolen is not None and 0 <= found.stolen <= found.seconds + 2 / TICK
