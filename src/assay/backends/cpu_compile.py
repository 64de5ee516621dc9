"""CPU torch through `torch.compile`: kernels that inductor writes in C++ for the processor."""

from __future__ import annotations

from collections.abc import Sequence

from assay.backends.cpu import Cpu
from assay.backends.torch_compile import TorchCompile, require_toolchain
from assay.devices import Device


class CpuCompile(TorchCompile, Cpu):
    """The `cpu-compile` column."""

    name = "cpu-compile"

    def devices(self) -> Sequence[Device]:
        """The processor, where there is a compiler for it."""
        require_toolchain()
        return super().devices()


BACKEND = CpuCompile()
