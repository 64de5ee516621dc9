"""CUDA torch: eager torch on an NVIDIA device."""

from __future__ import annotations

from collections.abc import Sequence

from assay.backends.torch_eager import TorchEager
from assay.devices import Device, cuda_devices
from assay.schema import Precision


class Cuda(TorchEager):
    """The `cuda` column."""

    name = "cuda"
    environment = "cuda"

    def devices(self) -> Sequence[Device]:
        """The devices that NVML counts, without a CUDA context."""
        return cuda_devices()

    def precisions(self, device: Device) -> Sequence[Precision]:
        """Every device that the pinned torch still supports computes in all three."""
        return (Precision.F32, Precision.BF16, Precision.F16)

    def torch_device(self, device: Device) -> str:
        """`cuda:<index>`."""
        return f"cuda:{device.index}"


BACKEND = Cuda()
