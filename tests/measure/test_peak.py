"""The most that a device can do."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from assay.devices import Device, Host, cpu_device
from assay.measure.peak import CLOCK, flags, peak, per_cycle
from assay.schema import Precision


@pytest.mark.parametrize(
    ("known", "f32", "bf16"),
    [
        ("sse2 avx avx2 fma", 32, 64),
        ("sse2 avx avx2 fma avx512f avx512_bf16", 64, 128),
        ("sse2 avx avx512f amx_tile amx_bf16", 1024, 1024),
        ("fp asimd", 32, 64),
        ("fp asimd sve", 64, 128),
        ("", 1024, 1024),
    ],
)
def test_what_a_core_does_in_a_cycle(known: str, f32: int, bf16: int) -> None:
    assert per_cycle(frozenset(known.split()), Precision.F32) == f32
    assert per_cycle(frozenset(known.split()), Precision.BF16) == bf16


@pytest.mark.parametrize("line", ["flags\t\t: fpu avx avx2", "Features\t: fp avx avx2"])
def test_flags_are_read_from_the_system(tmp_path: Path, line: str) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor\t: 0\n{line}\n\nprocessor\t: 1\n{line}\n")
    assert {"avx", "avx2"} <= flags(tmp_path)
    assert peak(cpu_device(), Precision.F32, Host(root=tmp_path)) == (os.cpu_count() or 1) * CLOCK * 32


def test_a_system_that_tells_nothing_has_a_bound_too(tmp_path: Path) -> None:
    assert peak(cpu_device(), Precision.F32, Host(root=tmp_path)) == (os.cpu_count() or 1) * CLOCK * 1024


def test_no_matrix_product_is_faster_here() -> None:
    import time

    left = np.ones((512, 512), np.float32)
    limit = peak(cpu_device(), Precision.F32)
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        left @ left
        best = max(best, 2 * 512**3 / (time.perf_counter() - started))
    assert limit is not None and limit / 1000 < best < limit


class Nvml:
    """As much of `pynvml` as is asked."""

    NVML_CLOCK_SM = 1

    class NVMLError(Exception):
        """NVML's only error."""

    def __init__(self, *, silent: bool = False) -> None:
        self.silent, self.open = silent, 0

    def nvmlInit(self) -> None:  # noqa: N802
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any:  # noqa: N802
        if uuid != "GPU-h100":
            raise self.NVMLError("Not Found")
        return SimpleNamespace(cores=132 * 128, clock=1980)

    def nvmlDeviceGetNumGpuCores(self, card: Any) -> int:  # noqa: N802
        if self.silent:
            raise self.NVMLError("Not Supported")
        return int(card.cores)

    def nvmlDeviceGetMaxClockInfo(self, card: Any, kind: int) -> int:  # noqa: N802
        return int(card.clock)


def test_a_cuda_device_is_bounded_by_its_cores_and_its_clock() -> None:
    card = Device("cuda", 0, "NVIDIA H100", detail={"uuid": "GPU-h100"})
    nvml = Nvml()
    host = Host(nvml=nvml)
    f32, bf16 = peak(card, Precision.F32, host), peak(card, Precision.BF16, host)
    # NVIDIA's data sheet: 67 TFLOP/s float32, 989 TFLOP/s bfloat16 without sparsity.
    assert f32 is not None and 67e12 < f32 < 10 * 67e12
    assert bf16 is not None and 989e12 < bf16 < 10 * 989e12
    assert peak(card, Precision.F32, Host(nvml=Nvml(silent=True))) is None
    assert peak(Device("cuda", 0, "unnamed"), Precision.F32, host) is None
    assert nvml.open == 0
