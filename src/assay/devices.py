"""Which devices are here: found cheaply, without a heavy import and without a CUDA context."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from assay.errors import Unavailable
from assay.machine import processor

MINIMUM_DRIVER_CUDA = (13, 0)
"""The least CUDA version that the driver must support: that of `nvidia-cuda-runtime` in envs/cuda.txt."""

_WSL = ("dev/dxg", "usr/lib/wsl/lib")


@dataclass(frozen=True)
class Device:
    """A device that a backend can be told to use.

    Attributes:
        kind: `cpu` or `cuda`.
        index: its number, as the runtime counts.
        name: the model.
        memory: bytes; None where it is not known.
        detail: driver and version, for reports.
    """

    kind: str
    index: int
    name: str
    memory: int | None = None
    detail: Mapping[str, str] = field(default_factory=dict)


def cpu_device() -> Device:
    """The processor."""
    return Device(kind="cpu", index=0, name=processor(), memory=psutil.virtual_memory().total)


def cuda_devices(root: Path = Path("/"), nvml: Any = None) -> tuple[Device, ...]:
    """The NVIDIA devices that torch could use, counted as torch counts them (`CUDA_VISIBLE_DEVICES`).

    Args:
        root: where device nodes and `/proc` are looked for.
        nvml: the NVML binding; `pynvml` when None.

    Raises:
        Unavailable: with what was looked for, and what was found of it.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        raise Unavailable(
            f"no CUDA device: CUDA_VISIBLE_DEVICES={visible!r} hides all of them", _looked_for(root, "not asked")
        )
    if nvml is None:
        import pynvml

        nvml = pynvml
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        reason = "no CUDA device: the NVIDIA driver library does not answer"
        raise Unavailable(reason, _looked_for(root, f"NVML: {error}")) from error
    try:
        return _visible(_devices(root, nvml), visible)
    finally:
        nvml.nvmlShutdown()


def _devices(root: Path, nvml: Any) -> tuple[Device, ...]:
    driver = _text(nvml.nvmlSystemGetDriverVersion())
    number = nvml.nvmlSystemGetCudaDriverVersion_v2()
    supported = (number // 1000, number % 1000 // 10)
    found = f"driver {driver}, which supports CUDA {supported[0]}.{supported[1]}"
    count = nvml.nvmlDeviceGetCount()
    if count == 0:
        raise Unavailable("no CUDA device: the driver counts none", _looked_for(root, found))
    if supported < MINIMUM_DRIVER_CUDA:
        needed = ".".join(map(str, MINIMUM_DRIVER_CUDA))
        raise Unavailable(f"the driver is too old: torch needs CUDA {needed} here", _looked_for(root, found))
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
    return tuple(
        Device(
            kind="cuda", index=index, name=_text(nvml.nvmlDeviceGetName(handle)),
            memory=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
            detail={"driver": driver, "uuid": _text(nvml.nvmlDeviceGetUUID(handle))},
        )
        for index, handle in enumerate(handles)
    )  # fmt: skip


def _visible(devices: tuple[Device, ...], visible: str | None) -> tuple[Device, ...]:
    """The devices that `CUDA_VISIBLE_DEVICES` names, renumbered as torch will see them."""
    if visible is None:
        return devices
    chosen = []
    for entry in (each.strip() for each in visible.split(",")):
        named = [each for each in devices if entry == str(each.index) or each.detail["uuid"].startswith(entry)]
        if not named:
            break  # CUDA ignores an entry that does not exist, and all that follow
        chosen.append(named[0])
    if not chosen:
        raise Unavailable(f"no CUDA device: CUDA_VISIBLE_DEVICES={visible!r} names none of {len(devices)}")
    return tuple(
        Device(each.kind, index, each.name, each.memory, each.detail) for index, each in enumerate(chosen)
    )


def _looked_for(root: Path, answer: str) -> tuple[str, ...]:
    """What was looked for, a line each, with what was found."""
    nodes = sorted(path.name for path in (root / "dev").glob("nvidia[0-9]*"))
    version = root / "proc/driver/nvidia/version"
    kernel = version.read_text(errors="replace").splitlines()[0] if version.is_file() else "not there"
    wsl = [f"/{path}" for path in _WSL if (root / path).exists()]
    return (
        f"driver library: {answer}",
        f"libcuda.so.1: {'found' if _loads('libcuda.so.1') else 'not found'}",
        f"device nodes /dev/nvidia*: {', '.join(nodes) or 'none'}",
        f"kernel module /proc/driver/nvidia/version: {kernel}",
        f"WSL ({', '.join(f'/{path}' for path in _WSL)}): {', '.join(wsl) or 'not there'}",
    )


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
