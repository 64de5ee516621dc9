"""Backends whose numbers are right and come from somewhere else than their column says."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from assay_impostors import Impostor, Wrapped

from assay.backends.base import Artifact, Engine, Operation, PhaseClock, Tensors
from assay.backends.onnx_export import ENCODER_FILE, MODEL_FILE
from assay.backends.onnxruntime import OnnxRuntime, OnnxRuntimeDecoder
from assay.backends.torch_eager import TorchEager
from assay.devices import Device
from assay.schema import Precision

GPU = Device("cuda", 0, "NVIDIA H100 80GB HBM3", memory=80 * 2**30)
STORY = Operation("MatMul", "CPUExecutionProvider:MatMul", "cpu", "f32", True, 1e-3)


class SilentFallback(OnnxRuntime):
    """Asked for the GPU, takes the processor without a word; its profile is honest."""

    name = "silent-fallback"

    def devices(self) -> Sequence[Device]:
        return (GPU,)


class RenamedEngine(Wrapped):
    def trace(self, inputs: Tensors) -> tuple[Tensors, list[Operation]]:
        outputs, operations = self._engine.trace(inputs)
        return outputs, [replace(operation, device=GPU.id) for operation in operations]


class CalledCuda(TorchEager):
    """torch on the processor, which its device and every operation of its trace call cuda:0."""

    name = "cpu-called-cuda"
    environment = "cuda"

    def devices(self) -> Sequence[Device]:
        return (GPU,)

    def precisions(self, device: Device) -> Sequence[Precision]:
        return (Precision.F32,)

    def torch_device(self, device: Device) -> str:
        return "cpu"

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        return RenamedEngine(super().open(artifact, device=device, precision=precision, phase=phase))


class PartialDecoder(OnnxRuntimeDecoder):
    """The decoder in ONNX Runtime; the encoder is run by whoever was found."""

    def begin(self, batch: int, source: Tensors) -> Tensors:
        from onnxruntime import OrtValue

        encoder, self._encoder = self._encoder, None
        watched = super().begin(batch, {})
        self._encoder = encoder
        given = self.offloaded.run(source)  # type: ignore[attr-defined]
        self._bound |= {
            name: OrtValue.ortvalue_from_numpy(np.array(given[name])) for name in self._decoder.inputs if name in given
        }
        return watched


class Partial(OnnxRuntime):
    """Half of the model, the encoder, runs in OpenVINO; the trace shows all of it in ONNX Runtime."""

    name = "partial"

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        import openvino

        from assay.backends.openvino import Graph

        honest = super().open(artifact, device=device, precision=precision, phase=phase)
        assert isinstance(honest, OnnxRuntimeDecoder)
        engine = PartialDecoder(honest._family, honest._decoder, honest._encoder)
        model = openvino.Core().compile_model(
            Path(artifact.path) / ENCODER_FILE, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        engine.offloaded = Graph(model)
        return engine


class NumpyEngine(Engine):
    """The graph by ONNX's reference evaluator, which is numpy."""

    def __init__(self, path: Path) -> None:
        from onnx.reference import ReferenceEvaluator

        self._graph = ReferenceEvaluator(str(path))

    def run(self, inputs: Tensors) -> Tensors:
        feed = {name: inputs[name] for name in self._graph.input_names}
        return dict(zip(self._graph.output_names, self._graph.run(None, feed), strict=True))

    def trace(self, inputs: Tensors) -> tuple[Tensors, list[Operation]]:
        return self.run(inputs), [STORY]


class NumpyInside(OnnxRuntime):
    """ONNX Runtime is imported and idle: numpy computes, and the trace tells a story."""

    name = "numpy-inside"

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        with phase("load"):
            return NumpyEngine(Path(artifact.path) / MODEL_FILE)


def serve(connection: Connection, artifact: Artifact, device: Device, precision: Precision) -> None:
    """In the helping process: OpenVINO, until the other side is gone."""
    from contextlib import nullcontext

    from assay.backends.openvino import BACKEND

    engine = BACKEND.open(artifact, device=device, precision=precision, phase=lambda _: nullcontext())
    while True:
        try:
            inputs = connection.recv()
        except EOFError:
            return
        connection.send({name: np.array(array) for name, array in engine.run(inputs).items()})


class HelpedEngine(Wrapped):
    """The trace is the honest one, of the runtime that does not compute the answers."""

    def __init__(self, engine: Engine, artifact: Artifact, device: Device, precision: Precision) -> None:
        super().__init__(engine)
        context = multiprocessing.get_context("spawn")  # this process has threads by now
        self._connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, artifact, device, precision), daemon=True)
        self._process.start()
        other.close()

    def run(self, inputs: Tensors) -> Tensors:
        self._connection.send(dict(inputs))
        answer: Tensors = self._connection.recv()
        return answer

    def close(self) -> None:
        self._connection.close()  # which ends the other side
        self._process.join()


class HelperProcess(Impostor):
    """Another process computes, with another runtime; only ONNX Runtime is mapped in the one that is looked at."""

    name = "helper-process"

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        honest = OnnxRuntime.open(self, artifact, device=device, precision=precision, phase=phase)
        return HelpedEngine(honest, artifact, device, precision)


silent_fallback, cpu_called_cuda, partial = SilentFallback(), CalledCuda(), Partial()
numpy_inside, helper_process = NumpyInside(), HelperProcess()
