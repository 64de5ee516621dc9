"""ONNX Runtime on the processor, from the shared ONNX export."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from assay.backends.base import Artifact, Engine, Operation, PhaseClock, Tensors
from assay.backends.onnx_export import MODEL_FILE, OnnxBackend
from assay.devices import Device, cpu_device
from assay.schema import Precision

COMPUTE = frozenset({
    "MatMul", "Gemm", "Conv", "FusedMatMul", "FusedGemm", "FusedConv", "Attention", "MultiHeadAttention",
    "GroupQueryAttention", "MatMulNBits", "MatMulInteger", "DynamicQuantizeMatMul", "QLinearMatMul",
})  # fmt: skip
"""Operators that hold nearly all arithmetic."""

PROVIDER = "CPUExecutionProvider"
_PRECISIONS = {"float": "f32", "float16": "f16", "bfloat16": "bf16", "double": "f64", "int8": "i8", "uint8": "u8"}
_PROVIDER_DEVICES = {PROVIDER: "cpu", "CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}


class OnnxRuntime(OnnxBackend):
    """The `onnxruntime` column."""

    name = "onnxruntime"
    environment = "onnxruntime"
    preload = ("onnxruntime",)
    libraries = ("libonnxruntime", "onnxruntime_pybind11_state")
    runner_memory = 6
    """The session's copy of the weights, and that of the session which is traced; 8.0 for BERT, 6.2 for MiniLM."""
    packages = ("onnxruntime", "torch", "transformers", "onnx", "onnxscript", "numpy")

    def devices(self) -> Sequence[Device]:
        """The processor, always."""
        return (cpu_device(),)

    def precisions(self, device: Device) -> Sequence[Precision]:
        """The CPU provider computes in the types of the graph, and transformers need f32 there."""
        return (Precision.F32,)

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        """One session on the CPU provider; optimising the graph is part of creating it."""
        path = Path(artifact.path) / MODEL_FILE
        with phase("compile"):
            session = _session(path, _options())
        return OnnxRuntimeEngine(session, path)


def _options() -> Any:
    import onnxruntime

    from assay.machine import threads

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin between calls would steal the cores from whatever runs beside the session.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _session(path: Path, options: Any) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, options, providers=[PROVIDER])
    # Asked for a provider that it lacks, ONNX Runtime warns and takes another: what it took is compared.
    if session.get_providers() != [PROVIDER]:
        raise RuntimeError(f"asked for {PROVIDER}, ONNX Runtime took {', '.join(session.get_providers())}")
    return session


class OnnxRuntimeEngine(Engine):
    """An inference session. Tracing opens a second one: profiling costs 15-20 % and would disturb the first."""

    def __init__(self, session: Any, path: Path) -> None:
        self._session = session
        self._path = path
        self._inputs = [node.name for node in session.get_inputs()]
        self._outputs = [node.name for node in session.get_outputs()]

    def run(self, inputs: Tensors) -> Tensors:
        """One forward pass; an unfed input is an error."""
        return self._run(self._session, inputs)

    def _run(self, session: Any, inputs: Tensors) -> Tensors:
        if missing := [name for name in self._inputs if name not in inputs]:
            raise KeyError(f"the graph's inputs {', '.join(missing)} are not fed; fed are: {', '.join(sorted(inputs))}")
        feed = {name: inputs[name] for name in self._inputs}
        return dict(zip(self._outputs, session.run(self._outputs, feed), strict=True))

    def trace(self, inputs: Tensors) -> tuple[Tensors, list[Operation]]:
        """One pass in a profiling session of the same options, and its profile's node events."""
        options = _options()
        options.enable_profiling = True
        with tempfile.TemporaryDirectory() as folder:
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = _session(self._path, options)
            outputs = self._run(session, inputs)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return outputs, operations(events)


def operations(events: Iterable[Mapping[str, Any]]) -> list[Operation]:
    """A profile's node events as operations; times are seconds."""
    found = []
    for event in events:
        arguments = event.get("args", {})
        if event.get("cat") != "Node" or "provider" not in arguments:
            continue
        types = [kind for output in arguments.get("output_type_shape", ()) for kind in output]
        provider = arguments["provider"]
        found.append(Operation(
            name=arguments.get("op_name", ""), kernel=f"{provider}:{arguments.get('op_name', '')}",
            device=_PROVIDER_DEVICES.get(provider, provider.lower()),
            precision=_PRECISIONS.get(types[0]) if types else None,
            compute=arguments.get("op_name") in COMPUTE, work=event.get("dur", 0) / 1e6,
        ))  # fmt: skip
    return found


BACKEND = OnnxRuntime()
