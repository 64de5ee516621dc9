"""The machine and the software of a session, without a heavy import."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

import psutil

from assay import __version__
from assay.schema import Environment, Machine


def threads() -> int:
    """Threads that every CPU column uses: the cores that this process may run on, within its quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, quota() or allowed))


def quota(root: Path = Path("/")) -> int | None:
    """The whole cores that this process's control group grants, those above it included; None without a limit."""
    grants = [int(used / period) for used, period in _limits(root) if used > 0]
    return max(1, min(grants)) if grants else None


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """Microseconds of processor time and the period for which they are granted, of every control group above us."""
    membership = root / "proc/self/cgroup"
    if not membership.is_file():
        return
    for line in membership.read_text(encoding="utf-8").splitlines():
        number, controllers, name = line.split(":", 2)
        path = PurePosixPath(name)
        for group in (path, *path.parents):
            inside = str(group).lstrip("/")
            if number == "0":  # version 2
                limit = root / "sys/fs/cgroup" / inside / "cpu.max"
                if limit.is_file():
                    used, period = limit.read_text(encoding="utf-8").split()
                    yield (0 if used == "max" else int(used)), int(period)
            elif "cpu" in controllers.split(","):
                folder = root / "sys/fs/cgroup/cpu" / inside
                if (folder / "cpu.cfs_quota_us").is_file():
                    yield _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")


def _number(path: Path) -> int:
    return int(path.read_text(encoding="utf-8"))


def processor(root: Path = Path("/")) -> str:
    """The processor's model name."""
    info = root / "proc/cpuinfo"
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
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
    """Python, assay and the versions of those packages that are installed; none is imported."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return Environment(python=platform.python_version(), assay=__version__, packages=found, threads=count)
