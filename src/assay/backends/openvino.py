"""OpenVINO on the processor, from the shared ONNX export."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from assay.backends.base import Artifact, Engine, Operation, PhaseClock, Tensors
from assay.backends.onnx_export import MODEL_FILE, OnnxBackend
from assay.devices import Device, cpu_device
from assay.schema import Precision

COMPUTE = frozenset({
    "FullyConnected", "MatMul", "Gemm", "Convolution", "GroupConvolution", "ScaledDotProductAttention",
    "ScaledDotProductAttentionWithKVCache", "PagedAttention", "MHA", "QKVProjection", "LLMMLP", "LSTMSequence",
})  # fmt: skip
"""Layer types that hold nearly all arithmetic."""

_FLOATS = {"f32", "bf16", "f16", "f64", "i8", "u8", "i4", "u4"}
_PRIMITIVE_PRECISION = re.compile(r"_(f32|bf16|f16|i8|u8)$")


class OpenVino(OnnxBackend):
    """The `openvino` column."""

    name = "openvino"
    environment = "openvino"
    preload = ("openvino",)
    libraries = ("libopenvino", "_pyopenvino")
    runner_memory = 7
    """The file's weights, mapped, and the compiled copy; 8.6 for BERT, 7.1 for MiniLM."""
    packages = ("openvino", "torch", "transformers", "onnx", "onnxscript", "numpy")

    def devices(self) -> Sequence[Device]:
        """The processor, always."""
        return (cpu_device(),)

    def precisions(self, device: Device) -> Sequence[Precision]:
        """f32 everywhere; what else the processor has comes with precision as a dimension."""
        return (Precision.F32,)

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        """Read and compile, told the precision: left to itself OpenVINO takes bf16 and a u8 cache."""
        import openvino

        from assay.machine import threads

        core = openvino.Core()
        with phase("load"):
            model = core.read_model(Path(artifact.path) / MODEL_FILE)
        properties = {
            "INFERENCE_PRECISION_HINT": str(precision),
            "KV_CACHE_PRECISION": str(precision),
            "EXECUTION_MODE_HINT": "ACCURACY",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads(),
            "PERF_COUNT": True,
        }
        with phase("compile"):
            compiled = core.compile_model(model, device.kind.upper(), properties)
        return OpenVinoEngine(compiled)


class OpenVinoEngine(Engine):
    """A compiled model with one infer request."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._inputs = [sorted(port.get_names()) for port in compiled.inputs]
        self._outputs = [sorted(port.get_names()) for port in compiled.outputs]

    def run(self, inputs: Tensors) -> Tensors:
        """One forward pass. A graph input that nobody feeds is an error: OpenVINO would run it as empty."""
        feed = {index: inputs[_given(names, inputs)] for index, names in enumerate(self._inputs)}
        results = self._request.infer(feed, share_inputs=True)
        return {name: results[index] for index, names in enumerate(self._outputs) for name in names}

    def trace(self, inputs: Tensors) -> tuple[Tensors, list[Operation]]:
        """One pass, and the execution graph with the primitive, precision and time of every node."""
        outputs = {name: np.array(array) for name, array in self.run(inputs).items()}
        device = ",".join(self._compiled.get_property("EXECUTION_DEVICES")).lower()
        return outputs, operations(self._compiled.get_runtime_model().get_ordered_ops(), device)


def _given(names: Sequence[str], inputs: Tensors) -> str:
    for name in names:
        if name in inputs:
            return name
    raise KeyError(f"the graph's input {'/'.join(names)} is not fed; fed are: {', '.join(sorted(inputs))}")


def operations(nodes: Sequence[Any], device: str) -> list[Operation]:
    """An execution graph's nodes as operations; times are seconds, nodes that did not run are left out."""
    found = []
    for node in nodes:
        info: Mapping[str, str] = {key: value.astype(str) for key, value in node.get_rt_info().items()}
        if info.get("execTimeMcs", "not_executed") == "not_executed":
            continue
        kernel = info.get("primitiveType", "")
        primitive = _PRIMITIVE_PRECISION.search(kernel)
        precision = primitive[1] if primitive else info.get("runtimePrecision", "").lower()
        found.append(Operation(
            name=info.get("layerType", ""), kernel=kernel, device=device,
            precision=precision if precision in _FLOATS else None,
            compute=info.get("layerType") in COMPUTE, work=float(info["execTimeMcs"]) / 1e6,
        ))  # fmt: skip
    return found


BACKEND = OpenVino()
