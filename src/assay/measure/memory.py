"""Memory of this process, in bytes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psutil

from assay.nvml import ask

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


class Peaks:
    """Phases, each with its own peak: it is forgotten where one begins.

    Attributes:
        found: the peak of each phase that has ended, by name.
    """

    def __init__(self, phase: Callable[[str], AbstractContextManager[None]]) -> None:
        self.found: dict[str, int] = {}
        self._phase = phase

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """One phase."""
        with self._phase(name):
            reset_peak()
            yield
            self.found[name] = peak()

    def figures(self) -> dict[str, int]:
        """Of the phases that have ended: the largest, and those of loading, compiling and inference."""
        parts = {"load": {"load"}, "compile": {"compile"}}
        parts["inference"] = self.found.keys() - {"load", "compile"}
        peaks = {
            f"{part}_peak_memory": max(self.found[name] for name in names & self.found.keys())
            for part, names in parts.items()
            if names & self.found.keys()
        }
        return {"peak_memory": max(self.found.values())} | peaks


def steady(weights: Path) -> dict[str, int]:
    """What the process holds now.

    Args:
        weights: the folder of the artifact.

    Returns:
        `unique_memory` (USS: pages that no other process shares) and, where the system tells, `proportional_memory`
        (PSS: of a page that n processes share, an n-th) and `mapped_weights`, the resident part of the artifact's own
        mapped files, which are also in the others.
    """
    full = psutil.Process().memory_full_info()
    found = {"unique_memory": int(full.uss)}
    if hasattr(full, "pss"):
        root = os.path.realpath(weights) + os.sep
        maps = psutil.Process().memory_maps(grouped=True)
        found["proportional_memory"] = int(full.pss)
        found["mapped_weights"] = sum(each.rss for each in maps if os.path.realpath(each.path).startswith(root))
    return found


def on_device(uuid: str | None, nvml: Any = None) -> int | None:
    """Bytes of a CUDA device that its driver has given to this process; None where it does not tell.

    Args:
        uuid: the device's; None for a processor.
        nvml: the module `pynvml`, imported when needed.
    """

    def used(driver: Any, handle: Any) -> int | None:
        running = driver.nvmlDeviceGetComputeRunningProcesses(handle)
        taken = [each.usedGpuMemory for each in running if each.pid == os.getpid()]
        return int(taken[0]) if taken and taken[0] is not None else None

    return ask(uuid, used, nvml)
