"""Memory of this process, in bytes."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def reset_peak() -> None:
    """Forget the peak so far: a forked child begins with its server's. Linux alone can."""
    if _CLEAR.exists():
        _CLEAR.write_text("5")  # man 5 proc: resets the peak resident set size


def peak() -> int:
    """The largest resident set since the last reset; elsewhere than on Linux, since the start."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def unique() -> int:
    """The unique set size: pages that no other process shares."""
    return int(psutil.Process().memory_full_info().uss)
