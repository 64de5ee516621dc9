"""Backends that must be caught: each pretends in one plain way. Installed through the entry point `assay.backends`."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np

from assay.backends.base import Artifact, Engine, Operation, PhaseClock, Stages, Tensors
from assay.backends.onnxruntime import OnnxRuntime, OnnxRuntimeDecoder
from assay.backends.openvino import OpenVino
from assay.backends.torch_eager import TorchEager
from assay.devices import Device, cpu_device
from assay.schema import Precision

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


class CachedEngine(Wrapped):
    """Answers every input of a shape that it has seen with the first answer for that shape."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._answers: dict[tuple[tuple[int, ...], ...], Tensors] = {}

    def run(self, inputs: Tensors) -> Tensors:
        key = tuple(array.shape for array in inputs.values())
        if key not in self._answers:
            self._answers[key] = {name: array.copy() for name, array in super().run(inputs).items()}
        return self._answers[key]


class Cached(Impostor):
    """Fast, because it remembers."""

    name = "cached"
    engine = CachedEngine


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


LAYER = "encoder.layer.1.output.dense"
"""The layer of BERT that the following spoil."""


def spoiled(folder: str, spoil: Callable[[np.ndarray], np.ndarray]) -> str:
    """A copy of an exported BERT in which the weights of that layer are others."""
    import onnx_ir

    target = Path(tempfile.mkdtemp())
    program = onnx_ir.load(str(Path(folder) / "model.onnx"))
    weight = program.graph.initializers[f"model.{LAYER}.weight"]
    weight.const_value = onnx_ir.tensor(spoil(weight.const_value.numpy()), name=weight.name)
    onnx_ir.save(program, str(target / "model.onnx"), external_data="model.onnx.data")
    return str(target)


def as_bf16(array: np.ndarray) -> np.ndarray:
    """Cut to eight bits of mantissa."""
    return (array.view(np.uint32) & 0xFFFF0000).view(np.float32)


class Tampered(OnnxRuntime):
    """The artifact holds other weights in one layer; the twin's is what it should be."""

    name = "tampered"

    def build(self, checkpoint: object, *, precision: Precision) -> Artifact:
        artifact = super().build(checkpoint, precision=precision)  # type: ignore[arg-type]
        return replace(artifact, path=spoiled(artifact.path, lambda weight: weight * np.float32(1.01)))


class Rounded(OpenVino):
    """The artifact is right, and the runtime holds one layer's weights in bf16."""

    name = "rounded"

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        own = replace(artifact, path=spoiled(artifact.path, as_bf16))
        return super().open(own, device=device, precision=precision, phase=phase)


@contextmanager
def tanh_for_erf() -> Iterator[None]:
    """The exporter meets another GELU; under an opset of its own, so that the cache keeps it apart."""
    from torch.nn import functional
    from transformers.activations import GELUActivation

    from assay.backends import onnx_export

    honest, opset = GELUActivation.forward, onnx_export.OPSET
    GELUActivation.forward = lambda self, x: functional.gelu(x, approximate="tanh")
    onnx_export.OPSET = 21
    try:
        yield
    finally:
        GELUActivation.forward, onnx_export.OPSET = honest, opset


class WrongGelu(OnnxRuntime):
    """Exports tanh where the model has erf."""

    name = "wrong-gelu"

    def build(self, checkpoint: object, *, precision: Precision) -> Artifact:
        with tanh_for_erf():
            return super().build(checkpoint, precision=precision)  # type: ignore[arg-type]

    def stages(self, checkpoint: Path, artifact: Artifact) -> Stages | None:
        with tanh_for_erf():
            return super().stages(checkpoint, artifact)


class Undiagnosable(Lowered):
    """Computes in bf16, and takes whoever asks why down with it."""

    name = "undiagnosable"

    def stages(self, checkpoint: Path, artifact: Artifact) -> Stages | None:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


zeros, cached, magic, random_weights = Zeros(), Cached(), Magic(), RandomWeights()
torch_inside, lowered, crashing, hanging = TorchInside(), Lowered(), Crashing(), Hanging()
homeless, telephoning, stale = Homeless(), Telephoning(), Stale()
tampered, rounded, wrong_gelu, undiagnosable = Tampered(), Rounded(), WrongGelu(), Undiagnosable()

ENTRY_POINTS = {
    backend.name: f"assay_impostors:{name}"
    for name, backend in list(globals().items())
    if isinstance(backend, OnnxRuntime | OpenVino | TorchEager)
}


def install(folder: Path) -> None:
    """Write what pip would leave behind: a distribution with these entry points."""
    info = folder / "assay_impostors-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: assay-impostors\nVersion: 1\n")
    lines = "".join(f"{name} = {value}\n" for name, value in ENTRY_POINTS.items())
    (info / "entry_points.txt").write_text(f"[assay.backends]\n{lines}")
