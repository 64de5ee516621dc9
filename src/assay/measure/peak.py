"""The most floating-point operations a second that a device can do: an upper bound from its make, never a measurement.

It is there to refuse what is impossible, so every factor is the largest that a device of that make may have.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from assay.devices import Device, Host
from assay.nvml import ask
from assay.schema import Precision

CLOCK = 6.2e9
"""Hz that no processor on sale exceeds (Intel's Core i9-14900KS). The clock that a system tells is no upper bound:
virtual machines hide it, and some drivers leave out what a processor reaches by itself."""

_LANES = (("avx512f", 16), ("avx", 8), ("sve", 16), ("asimd", 8), ("sse2", 4))
"""float32 numbers of a vector, by a flag that the processor has, widest first. Vectors of `sve` have 512 bits at most
in what is built; those of `asimd` have 128, and count twice because such cores have twice as many units."""
_UNITS = 2
"""Units of a core that multiply and add such vectors."""
_MATRIX = 1024
"""Operations a cycle of a core's matrix unit: AMX makes 16 x 16 sums of 32 products in 16 cycles. Nothing is wider, so
it stands also where no flag is known. It may serve float32, in three parts of bfloat16."""
_MATRIX_FLAGS = frozenset({"amx_tile", "sme", "i8mm"})

_CUDA_CORE = {Precision.F32: 8, Precision.F16: 64, Precision.BF16: 64}
"""Operations a cycle for each CUDA core of an NVIDIA device, tensor cores included: 32 on A100 and H100, 64 on
B200; for float32, which takes nine products of bfloat16 there, a ninth. Without tensor cores it is 2."""


def peak(device: Device, precision: Precision, host: Host | None = None) -> float | None:
    """Operations a second that the device cannot exceed; None where nobody tells.

    Args:
        device: the processor, all cores of it: a process may take more of them than it was told to. Or a CUDA device.
        precision: what it computes in.
        host: where to look.
    """
    host = host or Host()
    if device.kind == "cuda":
        return _cuda(device, precision, host.nvml)
    return (os.cpu_count() or 1) * CLOCK * per_cycle(flags(host.root), precision)


def flags(root: Path = Path("/")) -> frozenset[str]:
    """What the processor can do, in the system's words; empty where it does not tell."""
    info = root / "proc/cpuinfo"
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    found = (line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features")))
    return frozenset(next(found, ()))


def per_cycle(known: frozenset[str], precision: Precision) -> int:
    """Operations of one core with these flags in one cycle; half floats are two in the place of a float32."""
    lanes = next((lanes for flag, lanes in _LANES if flag in known), None)
    if lanes is None or known & _MATRIX_FLAGS:
        return _MATRIX
    return lanes * _UNITS * 2 * (1 if precision.arithmetic is Precision.F32 else 2)


def _cuda(device: Device, precision: Precision, nvml: Any) -> float | None:
    """From what NVML says of the device: its cores, and the clock that it may reach."""

    def most(driver: Any, handle: Any) -> float:
        clock = 1e6 * driver.nvmlDeviceGetMaxClockInfo(handle, driver.NVML_CLOCK_SM)
        return float(driver.nvmlDeviceGetNumGpuCores(handle) * clock * _CUDA_CORE[precision.arithmetic])

    return ask(device.detail.get("uuid", ""), most, nvml)
