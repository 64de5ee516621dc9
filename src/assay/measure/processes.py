"""Processor time: of this process, of its threads that waited for a core, and of the processes that it started."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_PR_SET_CHILD_SUBREAPER = 36
_NANO = 1e-9


def adopt_orphans() -> None:
    """Have processes whose parent has ended become children of this one, and not leave its tree. Linux alone can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


@dataclass
class Usage:
    """What timed calls took, in seconds.

    Attributes:
        claimed: of the clock.
        cpu: on a core, all threads of this process together.
        waited: ready to run, without a core, all threads together; None where the system does not tell.
        helpers: on a core, the processes that this one has started and theirs.
    """

    claimed: float = 0.0
    cpu: float = 0.0
    waited: float | None = 0.0
    helpers: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        waited = None if self.waited is None or other.waited is None else self.waited + other.waited
        return Usage(self.claimed + other.claimed, self.cpu + other.cpu, waited, self.helpers + other.helpers)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count what threads wait and helpers compute meanwhile; read before and after, never during a call."""
        before, helped = _waiting(), _descendants()
        yield
        after = _waiting()
        if self.waited is not None:
            self.waited = None if after is None or before is None else self.waited + _more(before, after)
        self.helpers += max(0.0, _descendants() - helped)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Count the processor time of a call."""
        started = time.process_time()
        yield
        self.cpu += time.process_time() - started


def _waiting() -> dict[str, float] | None:
    """Seconds that each thread of this process was ready and had no core (`schedstat`, second field)."""
    found = {}
    tasks = Path("/proc/self/task")
    if not tasks.exists():
        return None
    for task in tasks.iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            found[task.name] = int((task / "schedstat").read_text().split()[1]) * _NANO
    return found or None  # a kernel without scheduler statistics has no such file


def _more(before: dict[str, float], after: dict[str, float]) -> float:
    return sum(max(0.0, seconds - before.get(thread, 0.0)) for thread, seconds in after.items())


def _descendants() -> float:
    """Processor seconds of the processes below this one, those that have ended and were waited for included."""
    ended = os.times()
    total = ended.children_user + ended.children_system
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            total += _threads_time(process.pid)
            times = process.cpu_times()
            total += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return total


def _threads_time(pid: int) -> float:
    """Processor seconds of a process, to the nanosecond where the system tells; else to its clock's tick."""
    total = 0.0
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            total += int((task / "schedstat").read_text().split()[0]) * _NANO
    if total:
        return total
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
