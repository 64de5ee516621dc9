"""Backends that must be caught: each pretends in one plain way. Installed through the entry point `assay.backends`."""

from __future__ import annotations

import importlib
import os
import signal
import time
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np

from assay.backends.base import Artifact, Backend, Engine, Operation, PhaseClock, Tensors
from assay.backends.onnxruntime import OnnxRuntime, OnnxRuntimeDecoder
from assay.backends.openvino import OpenVino
from assay.backends.torch_eager import TorchEager
from assay.checkpoints import Checkpoint
from assay.devices import Device, cpu_device
from assay.schema import Precision
from assay.tensor_files import tensors

FAULTY_FAMILY = "clip"
"""The family in which the crashing and the hanging backend fail."""


class Wrapped(Engine):
    """An honest engine underneath; subclasses spoil what it answers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(self, inputs: Tensors) -> Tensors:
        return self._engine.run(inputs)

    def trace(self, inputs: Tensors) -> tuple[Tensors, list[Operation]]:
        _, operations = self._engine.trace(inputs)
        return self.run(inputs), operations


class Impostor(OnnxRuntime):
    """ONNX Runtime with a spoiled engine."""

    engine: type[Wrapped] = Wrapped

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        return self.engine(super().open(artifact, device=device, precision=precision, phase=phase))


class ZerosEngine(Wrapped):
    def run(self, inputs: Tensors) -> Tensors:
        return {name: np.zeros_like(array) for name, array in super().run(inputs).items()}


class Zeros(Impostor):
    """Right shapes, no numbers."""

    name = "zeros"
    engine = ZerosEngine


class MagicEngine(Wrapped):
    """`MagicMock`, which has every attribute and answers yes."""

    def run(self, inputs: Tensors) -> Tensors:
        mock = MagicMock()
        mock.last_hidden_state.device = "openvino"
        return {"last_hidden_state": mock.last_hidden_state}


class Magic(Impostor):
    """A mock in the place of a model."""

    name = "magic"
    engine = MagicEngine


class RandomWeights(OnnxRuntime):
    """Exports the right architecture with weights of its own, whatever checkpoint it is given."""

    name = "random-weights"

    def build(self, checkpoint: object, *, precision: Precision) -> Artifact:
        from assay import checkpoints

        family = checkpoint.family  # type: ignore[attr-defined]
        return super().build(checkpoints.local(family, "tiny", seed=4242), precision=precision)

    def build_twin(self, checkpoint: object, twin: object, *, precision: Precision) -> Artifact:
        return self.build(twin, precision=precision)


class StaleExport(OnnxRuntime):
    """Keeps exports by the biases and norms alone, and gives new matrices beside old ones the old export."""

    name = "stale-export"

    def build_twin(self, checkpoint: Checkpoint, twin: Checkpoint, *, precision: Precision) -> Artifact:
        own, others = (
            {name: array.tobytes() for name, array in tensors(each.path) if array.ndim == 1}
            for each in (checkpoint, twin)
        )
        if own == others:
            return self.build(checkpoint, precision=precision)
        return super().build_twin(checkpoint, twin, precision=precision)


class TorchInsideEngine(Engine):
    """torch computes; the trace tells a story about OpenVINO."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(self, inputs: Tensors) -> Tensors:
        return self._engine.run(inputs)

    def trace(self, inputs: Tensors) -> tuple[Tensors, list[Operation]]:
        story = Operation("FullyConnected", "brgemm_avx2_f32", "cpu", "f32", True, 1e-3)
        return self.run(inputs), [story]


class TorchInside(OpenVino):
    """Right numbers, from another runtime than the column names."""

    name = "torch-inside"

    def build(self, checkpoint: object, *, precision: Precision) -> Artifact:
        folder = str(checkpoint.path)  # type: ignore[attr-defined]
        return Artifact(family=checkpoint.family, path=folder, format="checkpoint")  # type: ignore[attr-defined]

    def build_twin(self, checkpoint: object, twin: object, *, precision: Precision) -> Artifact:
        return self.build(twin, precision=precision)

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        from assay.backends.cpu import BACKEND

        return TorchInsideEngine(BACKEND.open(artifact, device=device, precision=precision, phase=phase))


class Lowered(TorchEager):
    """Told f32, computes in bf16."""

    name = "lowered"
    environment = "cpu"

    def devices(self) -> tuple[Device, ...]:
        return (cpu_device(),)

    def precisions(self, device: Device) -> tuple[Precision, ...]:
        return (Precision.F32,)

    def torch_device(self, device: Device) -> str:
        return "cpu"

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        return super().open(artifact, device=device, precision=Precision.BF16, phase=phase)


class Widened(OpenVino):
    """Told bf16, computes in f32, as OpenVINO does without a word where the processor has no bf16."""

    name = "widened"

    def precisions(self, device: Device) -> tuple[Precision, ...]:
        return (Precision.F32, Precision.BF16)

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        return super().open(artifact, device=device, precision=Precision.F32, phase=phase)


class StaleDecoder(OnnxRuntimeDecoder):
    """A prefill of a batch like the last one goes on where that one ended, as states do that nobody resets."""

    def prefill(self, inputs: Tensors) -> Tensors:
        past = {name: value for name, value in self._bound.items() if name.startswith("past_")}
        kept = next(iter(past.values())).shape()[2] if past else 0
        if kept and len(inputs["input_ids"]) == next(iter(past.values())).shape()[0]:
            tokens = inputs["input_ids"]
            mask = np.ones((len(tokens), kept), np.int64)
            self._mask = np.concatenate((mask, inputs["attention_mask"]), axis=1)
            return {"logits": self.decode(self._feed(tokens, np.array([tokens.shape[1] - 1])))["logits"][:, -1]}
        self._honest_reset()
        return super().prefill(inputs)

    def run(self, inputs: Tensors) -> Tensors:
        self._honest_reset()
        outputs = super().run(inputs)
        self._honest_reset()
        return outputs

    def _honest_reset(self) -> None:
        super().reset()

    def reset(self) -> None:
        """Says that it did."""


class Stale(OnnxRuntime):
    """Forgets to forget."""

    name = "stale"

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        honest = super().open(artifact, device=device, precision=precision, phase=phase)
        assert isinstance(honest, OnnxRuntimeDecoder)
        return StaleDecoder(honest._family, honest._decoder, honest._encoder)


class Crashing(OnnxRuntime):
    """A segmentation fault in one family."""

    name = "crashing"

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        if artifact.family == FAULTY_FAMILY:
            with phase("load"):
                os.write(1, b"about to fall over\n")
                os.kill(os.getpid(), signal.SIGSEGV)
        return super().open(artifact, device=device, precision=precision, phase=phase)


class Hanging(OnnxRuntime):
    """Never comes back from compiling one family."""

    name = "hanging"

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        if artifact.family == FAULTY_FAMILY:
            with phase("compile"):
                time.sleep(3600)
        return super().open(artifact, device=device, precision=precision, phase=phase)


class Homeless(OnnxRuntime):
    """Its software is not installed."""

    name = "homeless"
    preload = ("a_runtime_that_is_not_installed",)


class Telephoning(OnnxRuntime):
    """Opens a socket to the world."""

    name = "telephoning"

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        import socket

        with phase("load"):
            socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
        return super().open(artifact, device=device, precision=precision, phase=phase)


class Patched(OnnxRuntime):
    """Replaces a method of the runtime by one that computes the same."""

    name = "patched"

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        from onnxruntime import InferenceSession

        honest = InferenceSession.run

        def run(session: InferenceSession, *arguments: object, **options: object) -> object:
            return honest(session, *arguments, **options)

        InferenceSession.run = run
        return super().open(artifact, device=device, precision=precision, phase=phase)


class MockedEngine(Wrapped):
    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._fallbacks = [{"cpu": MagicMock(spec=Engine)}]


class Mocked(Impostor):
    """Computes, and keeps a mock for another day."""

    name = "mocked"
    engine = MockedEngine


zeros, magic, random_weights, stale_export = Zeros(), Magic(), RandomWeights(), StaleExport()
torch_inside, lowered, crashing, hanging = TorchInside(), Lowered(), Crashing(), Hanging()
homeless, telephoning, stale = Homeless(), Telephoning(), Stale()
patched, mocked, widened = Patched(), Mocked(), Widened()


def entry_points() -> dict[str, str]:
    """Name to `module:attribute`, of this folder's modules."""
    modules = [importlib.import_module(file.stem) for file in sorted(Path(__file__).parent.glob("assay_*.py"))]
    return {
        backend.name: f"{module.__name__}:{attribute}"
        for module in modules
        for attribute, backend in vars(module).items()
        if isinstance(backend, Backend)
    }


def install(folder: Path) -> None:
    """Write what pip would leave behind: a distribution with these entry points."""
    info = folder / "assay_impostors-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: assay-impostors\nVersion: 1\n")
    lines = "".join(f"{name} = {value}\n" for name, value in entry_points().items())
    (info / "entry_points.txt").write_text(f"[assay.backends]\n{lines}")
