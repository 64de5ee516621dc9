"""Backends that compute, and are wrong at one stage or in one layer: a diagnosis must find where."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from assay_impostors import Lowered

from assay.backends.base import Artifact, Engine, PhaseClock, Stages
from assay.backends.onnxruntime import OnnxRuntime
from assay.backends.openvino import OpenVino
from assay.devices import Device
from assay.schema import Precision

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
    onnx_export.OPSET = 22
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


tampered, rounded, wrong_gelu, undiagnosable = Tampered(), Rounded(), WrongGelu(), Undiagnosable()
