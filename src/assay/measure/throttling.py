"""What keeps a processor or device from its work: the host of a virtual machine, a quota, heat and power.

The system counts each; its counters are read before a cell is timed and afterwards, never during a call.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from assay.devices import Device, Host
from assay.machine import control_groups, cores
from assay.measure.statistics import TARGET
from assay.nvml import ask
from assay.schema import Throttling

CAUSES = {
    "stolen": "taken by the host of the virtual machine",
    "quota": "stopped by the quota of the control group",
    "heat": "slowed down for heat",
    "device": "the device's, slowed down for power or heat",
}
"""What each counter means."""
MUCH = TARGET
"""The share of the time from which it is said beside the figures: no median is claimed to be known any better."""
_STOLEN = 8
"""The column of a processor's line in /proc/stat (man 5 proc)."""

Counters = dict[str, dict[str, float]]
"""Seconds by cause and counter: of each core, control group or policy."""


class Watch:
    """Counts from when it is made.

    Args:
        device: what the cell runs on.
        host: where to look.
    """

    def __init__(self, device: Device, host: Host | None = None) -> None:
        self._uuid = device.detail.get("uuid")
        self._host = host or Host()
        self._before = self._counters()
        self._started = time.perf_counter()

    def seen(self) -> Throttling:
        """What was counted since; of several counters the one that grew most, for calls wait for their slowest part."""
        seconds = time.perf_counter() - self._started
        after = self._counters()
        grown = {
            cause: max(0.0, *(value - counters.get(name, value) for name, value in after[cause].items()))
            for cause, counters in self._before.items()
            if counters and after[cause]
        }
        return Throttling(seconds=seconds, **grown)

    def _counters(self) -> Counters:
        root = self._host.root
        return {
            "stolen": dict(_stolen(root)),
            "quota": dict(_stopped(root)),
            "heat": dict(_slowed(root)),
            "device": ask(self._uuid, _slowed_device, self._host.nvml) or {},
        }


def lost(throttling: Throttling) -> dict[str, float]:
    """The share of the time that each cause took, where the system tells."""
    counted = {cause: getattr(throttling, cause) for cause in CAUSES}
    return {cause: seconds / throttling.seconds for cause, seconds in counted.items() if seconds is not None}


def most(throttling: Throttling | None) -> float:
    """The largest of these shares; 0 where nothing is told."""
    return max(lost(throttling).values(), default=0.0) if throttling else 0.0


def disturbance(throttling: Throttling | None) -> str | None:
    """What took more of the time than figures are claimed to be known to; None where nothing did."""
    shares = lost(throttling) if throttling else {}
    found = {cause: share for cause, share in shares.items() if share > MUCH}
    return f"of the time in which it was timed {described(found)}" if found else None


def described(shares: Mapping[str, float]) -> str:
    """Shares in words."""
    return ", ".join(f"{share:.1%} was {CAUSES[cause]}" for cause, share in shares.items())


def _stolen(root: Path) -> Iterator[tuple[str, float]]:
    """Of each core that this process may run on."""
    file = root / "proc/stat"
    if not file.is_file():
        return
    own = {f"cpu{number}" for number in cores()}
    for line in file.read_text(encoding="utf-8").splitlines():
        name, *fields = line.split()
        if name in own and len(fields) >= _STOLEN:
            yield name, int(fields[_STOLEN - 1]) / os.sysconf("SC_CLK_TCK")


def _stopped(root: Path) -> Iterator[tuple[str, float]]:
    """Of each control group above this process that has a quota for processor time, or might."""
    for group, unified in control_groups(root, "cpu"):
        file = group / "cpu.stat"
        if file.is_file():
            counts = dict(line.split() for line in file.read_text(encoding="utf-8").splitlines())
            name, unit = ("throttled_usec", 1e-6) if unified else ("throttled_time", 1e-9)
            if name in counts:
                yield str(file), int(counts[name]) * unit


def _slowed(root: Path) -> Iterator[tuple[str, float]]:
    """Of each core and package."""
    for file in root.glob("sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_total_time_ms"):
        yield str(file), int(file.read_text(encoding="utf-8")) * 1e-3


def _slowed_device(nvml: Any, handle: Any) -> dict[str, float]:
    """By policy; NVML counts nanoseconds."""
    policies = {"power": nvml.NVML_PERF_POLICY_POWER, "heat": nvml.NVML_PERF_POLICY_THERMAL}
    return {
        name: nvml.nvmlDeviceGetViolationStatus(handle, policy).violationTime * 1e-9
        for name, policy in policies.items()
    }
