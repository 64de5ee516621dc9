"""Memory of a process."""

from __future__ import annotations

import mmap
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from assay.measure import memory

MIB = 2**20


def pages(size: int) -> np.ndarray:
    """Memory that is new to the process: an allocator may hand out again what another test has freed."""
    block = np.frombuffer(mmap.mmap(-1, size), np.uint8)
    block[:] = 1
    return block


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset a peak")
def test_the_peak_is_forgotten_and_found_again() -> None:
    block = pages(64 * MIB)
    held = memory.peak()
    del block
    memory.reset_peak()
    after = memory.peak()
    assert held - after > 48 * MIB
    block = pages(32 * MIB)
    assert memory.peak() - after > 24 * MIB
    assert block.all()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset a peak")
def test_each_phase_has_its_own_peak() -> None:
    phase = memory.Peaks(lambda name: nullcontext())
    for name, size in (("load", 8), ("compile", 64), ("measure", 16)):
        with phase(name):
            block = pages(size * MIB)
            assert block.all()
            del block
    found = phase.figures()
    assert found["peak_memory"] == found["compile_peak_memory"] == max(phase.found.values())
    assert found["compile_peak_memory"] - found["inference_peak_memory"] > 32 * MIB
    assert found["inference_peak_memory"] > found["load_peak_memory"]


def test_unique_memory_grows_with_what_is_allocated(tmp_path: Path) -> None:
    before = memory.steady(tmp_path)
    block = pages(32 * MIB)
    after = memory.steady(tmp_path)
    assert after["unique_memory"] - before["unique_memory"] > 24 * MIB
    assert after["proportional_memory"] - before["proportional_memory"] > 24 * MIB
    assert after["mapped_weights"] == 0
    assert block.all()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is mapped")
def test_weights_that_are_mapped_are_told_apart(tmp_path: Path) -> None:
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "weights").write_bytes(bytes(16 * MIB))
    (tmp_path / "artifact-of-another").write_bytes(bytes(16 * MIB))
    mapped = [np.memmap(path, np.uint8, mode="r") for path in (folder / "weights", tmp_path / "artifact-of-another")]
    assert not any(each.any() for each in mapped)  # read to the end
    assert memory.steady(folder)["mapped_weights"] == 16 * MIB


class Driver:
    """NVML of a machine where this process and another use a device."""

    class NVMLError(Exception):
        pass

    def __init__(self, own: int | None = 5 * MIB, *, broken: bool = False) -> None:
        self._own, self._broken = own, broken

    def nvmlInit(self) -> None:  # noqa: N802
        if self._broken:
            raise self.NVMLError

    def nvmlShutdown(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return uuid

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:  # noqa: N802
        return [
            SimpleNamespace(pid=1, usedGpuMemory=7 * MIB),
            *([SimpleNamespace(pid=os.getpid(), usedGpuMemory=self._own)] if handle == "GPU-1" else []),
        ]


def test_the_driver_tells_what_this_process_has_of_a_device() -> None:
    assert memory.on_device("GPU-1", Driver()) == 5 * MIB
    assert memory.on_device("GPU-2", Driver()) is None
    assert memory.on_device("GPU-1", Driver(own=None)) is None
    assert memory.on_device("GPU-1", Driver(broken=True)) is None
    assert memory.on_device(None) is None
