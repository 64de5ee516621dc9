"""Memory of a process."""

from __future__ import annotations

import mmap
import sys

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


def test_unique_memory_grows_with_what_is_allocated() -> None:
    before = memory.unique()
    block = pages(32 * MIB)
    assert memory.unique() - before > 24 * MIB
    assert block.all()
