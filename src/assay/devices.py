"""Which devices are here, without a heavy import and without a CUDA context.

CUDA is asked about through NVML, the driver's management library: it counts devices without
initialising CUDA, so that a process may still fork or hide devices afterwards.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from assay.errors import Unavailable, UsageError
from assay.machine import processor, threads

MINIMUM_DRIVER_CUDA = (13, 0)
"""The CUDA version that the driver must support: `cuda-toolkit` in `envs/cuda.txt`, which the pinned torch asks for."""
MINIMUM_CAPABILITY = (7, 5)
"""The oldest compute capability that CUDA 13, and so the pinned torch, has code for: Turing."""

NVML = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
CUDA = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


@dataclass(frozen=True)
class Device:
    """A device that a backend can use.

    Attributes:
        kind: `cpu` or `cuda`.
        index: its number among the devices of its kind that this process may use.
        name: its model.
        memory: in bytes; None where nobody knows.
        detail: what else is known, in words.
    """

    kind: str
    index: int
    name: str
    memory: int | None = None
    detail: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def id(self) -> str:
        """What tells it from the others here: `cuda:1`; `cpu`, which has none."""
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


def choose(devices: Sequence[Device], asked: str | None) -> Device:
    """The device that was asked for: `cuda:1`, for `cuda` the first of them, for None the first of all.

    Raises:
        UsageError: there is no such device among these.
    """
    for device in devices:
        if asked in (None, device.kind, device.id):
            return device
    known = ", ".join(f"{device.id} ({device.name})" for device in devices)
    raise UsageError(f"--device takes {known} here, not {asked!r}")


def _loads(library: str) -> bool:
    """Whether the dynamic linker finds a library; loading it initialises nothing."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Host:
    """Where to look; a test looks elsewhere.

    Attributes:
        root: the root of the file system.
        environ: the environment variables.
        loads: whether a library can be loaded.
        nvml: the module `pynvml`, imported when needed.
    """

    root: Path = Path("/")
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    loads: Callable[[str], bool] = _loads
    nvml: Any = None

    def present(self, *patterns: str) -> tuple[str, ...]:
        """The paths that match, as the host names them."""
        found = (path for pattern in patterns for path in sorted(self.root.glob(pattern)))
        return tuple(f"/{path.relative_to(self.root)}" for path in found)


def cpu_device() -> Device:
    """The processor, as this process may use it."""
    memory = psutil.virtual_memory().total
    return Device("cpu", 0, processor(), memory, {"cores": str(threads())})


def cuda_devices(host: Host | None = None) -> tuple[Device, ...]:
    """The CUDA devices that the pinned torch can use.

    Their order is NVML's, that of the PCI bus; CUDA's own would begin with the fastest, but every role runs with
    `CUDA_DEVICE_ORDER=PCI_BUS_ID`.

    Raises:
        Unavailable: there is none; says what was looked for, and what was found of it.
    """
    return _Search(host or Host()).devices()


def accelerators(host: Host | None = None) -> tuple[str, ...]:
    """Names of the CUDA devices that torch can use here, whichever a session computes on; none where there is none."""
    try:
        return tuple(device.name for device in cuda_devices(host))
    except Unavailable:
        return ()


class _Search:
    """One look around: each step adds a line on what it looked for, and the first that fails ends it."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._found: list[str] = []

    def devices(self) -> tuple[Device, ...]:
        """All steps, in the order in which they explain each other."""
        libraries = {name: self._library(name) for name in (NVML, CUDA)}
        nodes = self._note("device nodes", "/dev/nvidia0, ...", self._host.present("dev/nvidia[0-9]*"))
        module = self._note("kernel module", "/proc/driver/nvidia/version", self._kernel_module())
        wsl = self._note("WSL", "/dev/dxg, /usr/lib/wsl/lib", self._host.present("dev/dxg", "usr/lib/wsl/lib"))
        visible = self._host.environ.get("CUDA_VISIBLE_DEVICES")
        self._found.append(f"CUDA_VISIBLE_DEVICES: {'not set' if visible is None else repr(visible)}")

        if not libraries[NVML]:
            if nodes or module:
                raise self._unavailable(f"there is an NVIDIA device, but its driver library {NVML} cannot be loaded")
            raise self._unavailable("no NVIDIA driver and no NVIDIA device")
        if sys.platform == "linux" and not nodes and "/dev/dxg" not in wsl:
            where = "this container was started without its devices" if module else "no device, or one hidden from here"
            raise self._unavailable(f"the NVIDIA driver library is installed, but there is no device node: {where}")
        if not libraries[CUDA]:
            raise self._unavailable(f"the management library answers, but CUDA's own {CUDA} cannot be loaded")
        return self._ask(visible)

    def _library(self, name: str) -> bool:
        found = self._host.loads(name)
        self._found.append(f"driver library {name}: {'found' if found else 'not found'}")
        return found

    def _kernel_module(self) -> tuple[str, ...]:
        path = self._host.root / "proc/driver/nvidia/version"
        return tuple(path.read_text(encoding="utf-8").splitlines()[:1]) if path.is_file() else ()

    def _note(self, what: str, where: str, found: tuple[str, ...]) -> tuple[str, ...]:
        self._found.append(f"{what} ({where}): {', '.join(found) or 'not found'}")
        return found

    def _unavailable(self, reason: str) -> Unavailable:
        return Unavailable(reason, self._found)

    def _ask(self, visible: str | None) -> tuple[Device, ...]:
        """What NVML says; the library stays loaded, its session is closed."""
        import pynvml

        nvml: Any = self._host.nvml or pynvml
        try:
            nvml.nvmlInit()
            try:
                return self._judge(nvml, visible)
            finally:
                nvml.nvmlShutdown()
        except nvml.NVMLError as error:
            raise self._unavailable(f"the NVIDIA driver does not answer: {error}") from error

    def _judge(self, nvml: Any, visible: str | None) -> tuple[Device, ...]:
        driver = str(nvml.nvmlSystemGetDriverVersion())
        encoded = int(nvml.nvmlSystemGetCudaDriverVersion_v2())
        supported = (encoded // 1000, encoded % 1000 // 10)
        self._found.append(f"driver: {driver}, for CUDA {_dotted(supported)} at most")
        self._found.append(f"needed by torch: CUDA {_dotted(MINIMUM_DRIVER_CUDA)}")
        if supported < MINIMUM_DRIVER_CUDA:
            raise self._unavailable(
                f"the NVIDIA driver {driver} is too old: it supports CUDA {_dotted(supported)}, "
                f"and torch needs {_dotted(MINIMUM_DRIVER_CUDA)}"
            )
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        self._found.append(f"devices that the driver counts: {len(handles)}")
        if not handles:
            raise self._unavailable("the NVIDIA driver counts no device")
        chosen = _visible([str(nvml.nvmlDeviceGetUUID(handle)) for handle in handles], visible)
        if not chosen:
            raise self._unavailable(f"CUDA_VISIBLE_DEVICES={visible!r} shows none of the {len(handles)} devices here")
        devices = []
        for index, handle in enumerate(handles[number] for number in chosen):
            name = str(nvml.nvmlDeviceGetName(handle))
            capability = tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle))
            self._found.append(f"{name}: compute capability {_dotted(capability)}")
            if capability >= MINIMUM_CAPABILITY:
                detail = {
                    "driver": driver,
                    "driver_cuda": _dotted(supported),
                    "compute_capability": _dotted(capability),
                    "uuid": str(nvml.nvmlDeviceGetUUID(handle)),
                }
                devices.append(Device("cuda", index, name, _memory(nvml, handle), detail))
        if not devices:
            raise self._unavailable(
                f"every device is too old: torch needs compute capability {_dotted(MINIMUM_CAPABILITY)}"
            )
        return tuple(devices)


def _memory(nvml: Any, handle: Any) -> int | None:
    """Bytes on the device; None where it shares the machine's, which NVML does not count."""
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    except nvml.NVMLError:
        return None


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _visible(uuids: list[str], visible: str | None) -> list[int]:
    """NVML's numbers of the devices that CUDA shows, in CUDA's order: it stops at the first name it does not know."""
    if visible is None:
        return list(range(len(uuids)))
    chosen: list[int] = []
    for name in (part.strip() for part in visible.split(",")):
        if name.isdecimal():
            matching = [int(name)] if int(name) < len(uuids) else []
        else:
            # A partition (MIG-...) belongs to a device that only CUDA can name: the first stands for it.
            matching = [0] if name.startswith("MIG-") else [i for i, uuid in enumerate(uuids) if uuid.startswith(name)]
        if len(matching) != 1 or not name or matching[0] in chosen:
            break
        chosen += matching
    return chosen
