"""Memory of a process."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from assay.measure import memory

MIB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset a peak")
def test_the_peak_is_forgotten_and_found_again() -> None:
    block = np.ones(64 * MIB, np.uint8)
    held = memory.peak()
    del block
    memory.reset_peak()
    after = memory.peak()
    assert held - after > 48 * MIB
    block = np.ones(32 * MIB, np.uint8)
    assert memory.peak() - after > 24 * MIB
    assert block.all()


def test_unique_memory_grows_with_what_is_allocated() -> None:
    before = memory.unique()
    block = np.ones(32 * MIB, np.uint8)
    assert memory.unique() - before > 24 * MIB
    assert block.all()
