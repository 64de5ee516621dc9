"""CPU torch: eager torch on the processor."""

from __future__ import annotations

from collections.abc import Sequence

from assay.backends.torch_eager import TorchEager
from assay.devices import Device, cpu_device
from assay.schema import Precision


class Cpu(TorchEager):
    """The `cpu` column."""

    name = "cpu"
    environment = "cpu"

    def devices(self) -> Sequence[Device]:
        """The processor, always."""
        return (cpu_device(),)

    def precisions(self, device: Device) -> Sequence[Precision]:
        """Torch emulates what the processor lacks."""
        return (Precision.F32, Precision.BF16, Precision.F16)

    def torch_device(self, device: Device) -> str:
        """`cpu`."""
        return "cpu"


BACKEND = Cpu()
