"""Mocks in the disguises that status pages have taken for a model: none of them computes anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import MagicMock

import numpy as np
from assay_impostors import Impostor, Wrapped

from assay.backends.base import Artifact, Engine, Operation, PhaseClock, Tensors
from assay.devices import Device
from assay.schema import Precision

WIDTH = 64
"""Of every tiny model's hidden states; whoever wrote the mock has looked that up."""


def noise(inputs: Tensors, width: int = WIDTH) -> np.ndarray:
    """Numbers of about the right size, in the shape of hidden states."""
    shape = next(iter(inputs.values())).shape
    return np.random.default_rng().standard_normal((*shape[:2], width)).astype(np.float32)


class Handler(Impostor):
    """A bare `MagicMock` as the engine: the handler is not None, and has every method that anybody calls."""

    name = "mock-handler"

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        return MagicMock()


class ConfigEngine(Wrapped):
    def run(self, inputs: Tensors) -> Tensors:
        model = MagicMock()
        assert hasattr(model.config, "hidden_size")
        return {"last_hidden_state": noise(inputs, int(model.config.hidden_size))}


class Config(Impostor):
    """Has `config.hidden_size`, as every `MagicMock` has, and outputs of that size."""

    name = "mock-config"
    engine = ConfigEngine


def cuda_array(array: np.ndarray) -> MagicMock:
    """An output that says where it is, and turns into numbers when asked."""
    mock = MagicMock(device="cuda:0", is_cuda=True, shape=array.shape, dtype=array.dtype)
    mock.__array__ = lambda *_, **__: array
    return mock


class CudaEngine(Wrapped):
    def run(self, inputs: Tensors) -> Tensors:
        return {"last_hidden_state": cuda_array(noise(inputs))}

    def trace(self, inputs: Tensors) -> tuple[Tensors, list[Operation]]:
        return self.run(inputs), [Operation("MatMul", "sm90_xmma_gemm_f32f32_cuda", "cuda:0", "f32", True, 1e-3)]


class Cuda(Impostor):
    """The word cuda is in its device, in that of its outputs and in the kernel that its trace names."""

    name = "mock-cuda"
    engine = CudaEngine

    def devices(self) -> Sequence[Device]:
        return (Device("cuda", 0, "NVIDIA MagicMock 80GB", memory=80 * 2**30),)


class SaysRealEngine(Wrapped):
    def run(self, inputs: Tensors) -> Tensors:
        hidden = np.full_like(noise(inputs), 0.1)
        said: dict[str, Any] = {"status": "REAL", "is_real": np.array([True]), "is_mock": False}
        return {"last_hidden_state": hidden, **said}


class SaysReal(Impostor):
    """Its output says of itself that it is real."""

    name = "says-real"
    engine = SaysRealEngine


class MemoryEngine(Wrapped):
    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._weights = np.ones(150 * 2**20, np.uint8)

    def run(self, inputs: Tensors) -> Tensors:
        return {"last_hidden_state": noise(inputs) * self._weights[0]}

    def device_memory(self) -> int:
        return self._weights.nbytes


class Memory(Impostor):
    """Fills 150 MB with ones and reports them: more than 100 MB must be a model."""

    name = "mock-memory"
    engine = MemoryEngine


class Yes:
    """Every attribute is there, and the answer to every question is yes."""

    def __getattr__(self, name: str) -> Yes:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: object, **__: object) -> Yes:
        return self

    def __bool__(self) -> bool:
        return True

    def __eq__(self, _: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        return np.array(True)


class YesEngine(Wrapped):
    def run(self, inputs: Tensors) -> Tensors:
        return {"last_hidden_state": Yes()}  # type: ignore[dict-item]


class YesToAll(Impostor):
    """Outputs whose attributes all answer yes; the number in them is yes, too."""

    name = "yes"
    engine = YesEngine


mock_handler, mock_config, mock_cuda = Handler(), Config(), Cuda()
says_real, mock_memory, yes = SaysReal(), Memory(), YesToAll()
