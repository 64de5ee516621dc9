from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from assay import devices
from assay.devices import CUDA, MINIMUM_DRIVER_CUDA, NVML, Device, Host, accelerators, choose, cpu_device, cuda_devices
from assay.errors import Unavailable, UsageError

ENVS = Path(__file__).parents[1] / "envs"


@dataclass
class Card:
    """What a fake driver says of one device."""

    name: str = "NVIDIA H200"
    uuid: str = "GPU-aaaa"
    capability: tuple[int, int] = (9, 0)
    memory: int | None = 1 << 37


class FakeNvml:
    """As much of `pynvml` as is asked."""

    class NVMLError(Exception):
        """NVML's only error."""

    def __init__(self, cards: Sequence[Card], cuda: int = 13000, failure: str | None = None) -> None:
        self.cards, self.cuda, self.failure, self.open = cards, cuda, failure, 0

    def nvmlInit(self) -> None:  # noqa: N802
        if self.failure:
            raise self.NVMLError(self.failure)
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.65.06"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:  # noqa: N802
        return self.cuda

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:  # noqa: N802
        return self.cards[index]

    def nvmlDeviceGetName(self, card: Card) -> str:  # noqa: N802
        return card.name

    def nvmlDeviceGetUUID(self, card: Card) -> str:  # noqa: N802
        return card.uuid

    def nvmlDeviceGetCudaComputeCapability(self, card: Card) -> tuple[int, int]:  # noqa: N802
        return card.capability

    def nvmlDeviceGetMemoryInfo(self, card: Card) -> SimpleNamespace:  # noqa: N802
        if card.memory is None:
            raise self.NVMLError("Not Supported")
        return SimpleNamespace(total=card.memory)


@pytest.fixture(autouse=True)
def linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """Device nodes are looked for on Linux alone."""
    monkeypatch.setattr(devices.sys, "platform", "linux")


@pytest.fixture
def good(tmp_path: Path) -> Iterator[Host]:
    """A host with a driver, its module, its node and one device; NVML must be closed in the end."""
    make(tmp_path, "dev/nvidia0")
    make(tmp_path, "dev/nvidiactl")
    make(tmp_path, "proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06\nGCC\n")
    nvml = FakeNvml([Card()])
    yield Host(root=tmp_path, environ={}, loads=lambda name: True, nvml=nvml)
    assert nvml.open == 0


def make(root: Path, path: str, text: str = "") -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def reasons(host: Host) -> tuple[str, str]:
    """The reason, and what was looked for as one text."""
    with pytest.raises(Unavailable) as caught:
        cuda_devices(host)
    return caught.value.reason, "\n".join(caught.value.looked_for)


def test_one_good_device(good: Host) -> None:
    (device,) = cuda_devices(good)
    assert (device.kind, device.index, device.name, device.memory) == ("cuda", 0, "NVIDIA H200", 1 << 37)
    assert device.detail == {
        "driver": "580.65.06", "driver_cuda": "13.0", "compute_capability": "9.0", "uuid": "GPU-aaaa",
    }  # fmt: skip


def test_what_a_machine_has_is_named_whatever_a_session_computes_on(good: Host, tmp_path: Path) -> None:
    assert accelerators(good) == ("NVIDIA H200",)
    assert accelerators(Host(tmp_path, {}, lambda name: False)) == ()


def test_nothing_there_says_all_that_was_looked_for(tmp_path: Path) -> None:
    reason, looked_for = reasons(Host(root=tmp_path, environ={}, loads=lambda name: False))
    assert reason == "no NVIDIA driver and no NVIDIA device"
    for line in (
        f"driver library {NVML}: not found",
        f"driver library {CUDA}: not found",
        "device nodes (/dev/nvidia0, ...): not found",
        "kernel module (/proc/driver/nvidia/version): not found",
        "WSL (/dev/dxg, /usr/lib/wsl/lib): not found",
        "CUDA_VISIBLE_DEVICES: not set",
    ):
        assert line in looked_for.splitlines()


def test_device_without_driver_library(good: Host) -> None:
    reason, looked_for = reasons(replace(good, loads=lambda name: False))
    assert f"its driver library {NVML} cannot be loaded" in reason
    assert "/dev/nvidia0" in looked_for


def test_library_without_device_nodes(good: Host) -> None:
    (good.root / "dev/nvidia0").unlink()
    reason, looked_for = reasons(good)
    assert "no device node" in reason and "container" in reason
    assert "device nodes (/dev/nvidia0, ...): not found" in looked_for
    assert "Kernel Module  580.65.06" in looked_for


def test_wsl_needs_no_device_node(good: Host) -> None:
    (good.root / "dev/nvidia0").unlink()
    make(good.root, "dev/dxg")
    assert len(cuda_devices(good)) == 1


def test_container_without_the_compute_library(good: Host) -> None:
    reason, looked_for = reasons(replace(good, loads=lambda name: name == NVML))
    assert CUDA in reason
    assert f"driver library {CUDA}: not found" in looked_for


def test_driver_too_old(good: Host) -> None:
    reason, looked_for = reasons(replace(good, nvml=FakeNvml([Card()], cuda=12040)))
    assert reason == "the NVIDIA driver 580.65.06 is too old: it supports CUDA 12.4, and torch needs 13.0"
    assert "driver: 580.65.06, for CUDA 12.4 at most" in looked_for


def test_device_too_old(good: Host) -> None:
    reason, looked_for = reasons(replace(good, nvml=FakeNvml([Card(name="Tesla V100", capability=(7, 0))])))
    assert reason == "every device is too old: torch needs compute capability 7.5"
    assert "Tesla V100: compute capability 7.0" in looked_for


def test_driver_that_does_not_answer(good: Host) -> None:
    reason, _ = reasons(replace(good, nvml=FakeNvml([], failure="Driver/library version mismatch")))
    assert reason == "the NVIDIA driver does not answer: Driver/library version mismatch"


def test_driver_without_devices(good: Host) -> None:
    assert reasons(replace(good, nvml=FakeNvml([])))[0] == "the NVIDIA driver counts no device"


@pytest.mark.parametrize("visible", ["", " ", "-1", "-1,0", "1", "GPU-bbbb", "none"])
def test_hidden(good: Host, visible: str) -> None:
    reason, looked_for = reasons(replace(good, environ={"CUDA_VISIBLE_DEVICES": visible}))
    assert reason == f"CUDA_VISIBLE_DEVICES={visible!r} shows none of the 1 devices here"
    assert f"CUDA_VISIBLE_DEVICES: {visible!r}" in looked_for


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["a", "b", "c"]),
        ("2,0", ["c", "a"]),
        ("GPU-c1, GPU-a", ["c", "a"]),
        ("1,-1,0", ["b"]),
        ("0,7,1", ["a"]),
        ("MIG-5c0c", ["a"]),
    ],
)
def test_visible_devices_are_those_of_cuda_in_its_order(good: Host, visible: str | None, names: list[str]) -> None:
    nvml = FakeNvml([Card("a", "GPU-a1"), Card("b", "GPU-b1"), Card("c", "GPU-c1")])
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    found = cuda_devices(replace(good, nvml=nvml, environ=environ))
    assert [device.name for device in found] == names
    assert [device.index for device in found] == list(range(len(names)))


def test_an_old_device_keeps_its_number(good: Host) -> None:
    nvml = FakeNvml([Card("old", "GPU-a1", (6, 1)), Card("new", "GPU-b1")])
    assert [(device.index, device.name) for device in cuda_devices(replace(good, nvml=nvml))] == [(1, "new")]


@pytest.mark.parametrize(("asked", "uuid"), [(None, "GPU-b1"), ("cuda", "GPU-b1"), ("cuda:1", "GPU-b1"),
                                              ("cuda:2", "GPU-c1")])  # fmt: skip
def test_a_device_is_chosen_by_its_number(good: Host, asked: str | None, uuid: str) -> None:
    nvml = FakeNvml([Card("old", "GPU-a1", (6, 1)), Card("b", "GPU-b1"), Card("c", "GPU-c1")])
    assert choose(cuda_devices(replace(good, nvml=nvml)), asked).detail["uuid"] == uuid


@pytest.mark.parametrize("asked", ["cuda:0", "cuda:3", "cuda:01", "cpu", "b", "", "cuda:"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(good: Host, asked: str) -> None:
    nvml = FakeNvml([Card("old", "GPU-a1", (6, 1)), Card("b", "GPU-b1"), Card("c", "GPU-c1")])
    with pytest.raises(UsageError) as caught:
        choose(cuda_devices(replace(good, nvml=nvml)), asked)
    assert str(caught.value) == f"--device takes cuda:1 (b), cuda:2 (c) here, not {asked!r}"


def test_memory_that_the_machine_shares(good: Host) -> None:
    (device,) = cuda_devices(replace(good, nvml=FakeNvml([Card(memory=None)])))
    assert device.memory is None


def test_the_driver_needed_is_that_of_the_pinned_torch() -> None:
    pin = next(line for line in (ENVS / "cuda.txt").read_text().splitlines() if line.startswith("cuda-toolkit=="))
    toolkit = pin.split()[0].partition("==")[2].split(".")
    assert (int(toolkit[0]), int(toolkit[1])) == MINIMUM_DRIVER_CUDA


def test_the_processor() -> None:
    device = cpu_device()
    assert (device.kind, device.index) == ("cpu", 0)
    assert device.name and device.memory
    assert int(device.detail["cores"]) >= 1
    assert hash(device) == hash(Device(device.kind, device.index, device.name, device.memory))
