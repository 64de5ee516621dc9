"""CUDA torch through `torch.compile`: kernels that inductor writes for Triton."""

from __future__ import annotations

from collections.abc import Sequence

from assay.backends.cuda import Cuda
from assay.backends.torch_compile import TorchCompile, require_toolchain
from assay.devices import Device


class CudaCompile(TorchCompile, Cuda):
    """The `cuda-compile` column."""

    name = "cuda-compile"

    def devices(self) -> Sequence[Device]:
        """The devices that eager torch can use; Triton's launchers are built by the host's compiler."""
        devices = super().devices()
        require_toolchain()
        return devices


BACKEND = CudaCompile()
