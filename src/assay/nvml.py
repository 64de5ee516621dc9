"""What NVIDIA's driver says of a device, asked by its UUID and without a CUDA context."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def ask(uuid: str | None, question: Callable[[Any, Any], T], nvml: Any = None) -> T | None:
    """The answer to a question about one device; None for no device, or where the driver does not tell.

    Args:
        uuid: the device's; None for a processor.
        question: asks, given the module and the device's handle.
        nvml: the module `pynvml`, imported when needed.
    """
    if uuid is None:
        return None
    if nvml is None:
        import pynvml

        nvml = pynvml
    try:
        nvml.nvmlInit()
        try:
            return question(nvml, nvml.nvmlDeviceGetHandleByUUID(uuid))
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError:
        return None
