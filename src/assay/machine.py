"""The machine and the software of a session, without a heavy import."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from assay.schema import Environment, Machine


def threads() -> int:
    """Threads that every CPU column uses: the cores that this process may run on, within its quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, _quota() or allowed))


def _quota() -> int | None:
    """The whole cores that a control group grants; None where there is no limit."""
    limit = Path("/sys/fs/cgroup/cpu.max")
    if not limit.is_file():
        return None
    quota, period = limit.read_text().split()
    return None if quota == "max" else int(quota) // int(period)


def processor() -> str:
    """The processor's model name."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe_machine(devices: Iterable[str] = ()) -> Machine:
    """Name, system, processor, cores that may be used, memory in bytes."""
    return Machine(
        name=platform.node(),
        system=f"{platform.system()} {platform.release()}",
        processor=processor(),
        cores=threads(),
        memory=psutil.virtual_memory().total,
        devices=tuple(devices),
    )


def describe_environment(count: int, packages: Iterable[str]) -> Environment:
    """Python, assay and the versions of those packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return Environment(python=platform.python_version(), assay=version("assay"), packages=found, threads=count)
