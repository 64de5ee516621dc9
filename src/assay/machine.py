"""The machine and the software of a session, without a heavy import."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

import psutil

from assay import __version__
from assay.session_report import Environment, Machine


def cores() -> frozenset[int]:
    """The cores that this process may run on, as the system numbers them."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def threads() -> int:
    """Threads that every CPU column uses: the cores that this process may run on, within its quota."""
    allowed = len(cores())
    return max(1, min(allowed, quota() or allowed))


def quota(root: Path = Path("/")) -> int | None:
    """The whole cores that this process's control group grants, those above it included; None without a limit."""
    grants = [int(used / period) for used, period in _limits(root) if used > 0]
    return max(1, min(grants)) if grants else None


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """Microseconds of processor time and the period for which they are granted, of every control group above us."""
    for group, unified in control_groups(root, "cpu"):
        if unified and (group / "cpu.max").is_file():
            used, period = (group / "cpu.max").read_text(encoding="utf-8").split()
            yield (0 if used == "max" else int(used)), int(period)
        elif (group / "cpu.cfs_quota_us").is_file():
            yield _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")


def free_memory() -> int:
    """Bytes that processes of a session may take: what the system has available, within what control groups leave."""
    available: int = psutil.virtual_memory().available
    left = grant(Path("/"))
    return available if left is None else min(available, left)


def grant(root: Path = Path("/")) -> int | None:
    """Bytes of memory that this process's control group leaves, those above it included; None without a limit."""
    left = []
    for group, unified in control_groups(root, "memory"):
        limit, used = (
            ("memory.max", "memory.current") if unified else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        if (group / limit).is_file() and (group / limit).read_text(encoding="utf-8").strip() != "max":
            left.append(_number(group / limit) - _number(group / used) + _file_pages(group / "memory.stat", unified))
    return max(0, min(left)) if left else None


def _file_pages(statistics: Path, unified: bool) -> int:
    """Bytes of cached files, which a control group counts as used and gives back when memory runs short."""
    names = [f"{'' if unified else 'total_'}{each}_file" for each in ("active", "inactive")]
    counts = dict(line.split() for line in statistics.read_text(encoding="utf-8").splitlines())
    return sum(int(counts.get(name, 0)) for name in names)


def control_groups(root: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """The folders of the control groups above this process that may limit this, and whether they are of version 2."""
    membership = root / "proc/self/cgroup"
    if not membership.is_file():
        return
    for line in membership.read_text(encoding="utf-8").splitlines():
        number, controllers, name = line.split(":", 2)
        unified = number == "0"
        if unified or controller in controllers.split(","):
            tree = root / "sys/fs/cgroup" / ("" if unified else controller)
            path = PurePosixPath(name)
            yield from ((tree / str(group).lstrip("/"), unified) for group in (path, *path.parents))


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
