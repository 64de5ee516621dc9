"""temporary"""
from __future__ import annotations
from dataclasses import dataclass, field
from assay.errors import Unavailable
from assay.machine import processor

@dataclass(frozen=True)
class Device:
    kind: str
    index: int
    name: str
    memory: int | None = None
    detail: dict[str, str] = field(default_factory=dict)

def cpu_device() -> Device:
    return Device("cpu", 0, processor())

def cuda_devices() -> tuple[Device, ...]:
    raise Unavailable("no", ("x",))
