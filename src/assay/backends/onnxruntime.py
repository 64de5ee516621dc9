"""ONNX Runtime on the processor, from the shared ONNX export."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.backends.base import Artifact, Engine, Operation, PhaseClock, Tensors
from assay.backends.onnx_decoding import DecodingEngine
from assay.backends.onnx_export import ENCODER_FILE, MODEL_FILE, OnnxBackend
from assay.devices import Device, cpu_device
from assay.errors import Unavailable
from assay.schema import Precision

if TYPE_CHECKING:
    from assay.families.generation import GeneratingFamily

COMPUTE = frozenset({
    "MatMul", "Gemm", "Conv", "FusedMatMul", "FusedGemm", "FusedConv", "Attention", "MultiHeadAttention",
    "GroupQueryAttention", "MatMulNBits", "MatMulInteger", "DynamicQuantizeMatMul", "QLinearMatMul",
})  # fmt: skip
"""Operators that hold nearly all arithmetic."""
INTEGER = "MatMulNBits"
"""The operator whose weights are integers. Of others a profile does not tell whether they have weights: packed ones are
no inputs any more."""

PROVIDER = "CPUExecutionProvider"
_PRECISIONS = {"float": "f32", "float16": "f16", "bfloat16": "bf16", "double": "f64", "int8": "i8", "uint8": "u8"}
_PROVIDER_DEVICES = {PROVIDER: "cpu", "CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}


class OnnxRuntime(OnnxBackend):
    """The `onnxruntime` column."""

    name = "onnxruntime"
    environment = "onnxruntime"
    quantiser = "assay.backends.onnxruntime_int8"
    preload = ("onnxruntime",)
    libraries = ("libonnxruntime", "onnxruntime_pybind11_state")
    runner_memory = 6
    """The session's copy of the weights, and that of the session which is traced; 8.0 for BERT, 6.2 for MiniLM."""
    packages = ("onnxruntime", "torch", "transformers", "onnx", "onnxscript", "numpy")

    def devices(self) -> Sequence[Device]:
        """The processor, always."""
        return (cpu_device(),)

    def precisions(self, device: Device) -> Sequence[Precision]:
        """f32, with weights in int8 too, whatever the processor."""
        return (Precision.F32, Precision.INT8)

    def lacks(self, device: Device, precision: Precision) -> Unavailable:
        """Of a graph in f16 it casts the operands of matrix products to f32, and one in bf16 it refuses."""
        return Unavailable(
            "ONNX Runtime's CPU provider has matrix products in f32 alone",
            [f"kernels of {PROVIDER} for MatMul, Gemm and Conv in {precision}: none"],
        )

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        """A session a graph on the CPU provider; optimising the graph is part of creating it."""
        with phase("compile"):
            return opened(artifact)


def opened(artifact: Artifact, *, optimized: bool = True) -> Engine:
    """The artifact's graphs in sessions on the CPU provider, as they are or as ONNX Runtime optimises them."""
    import onnxruntime

    from assay import families
    from assay.families.generation import GeneratingFamily

    folder, family = Path(artifact.path), families.load(artifact.family)

    def graph(path: Path) -> Graph:
        options = _options()
        if not optimized:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return Graph(path, options)

    model, encoder = graph(folder / MODEL_FILE), folder / ENCODER_FILE
    if not isinstance(family, GeneratingFamily):
        return OnnxRuntimeEngine(model)
    return OnnxRuntimeDecoder(family, model, graph(encoder) if encoder.is_file() else None)


def _options() -> Any:
    import onnxruntime

    from assay.machine import threads

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads spin between operators, which saves a wake-up each, and not between calls: that would steal the cores from
    # whatever runs beside the session.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # What a softmax leaves of a masked position may be too small to be a normal number, and those take a processor many
    # times as long: CLAP's windows a sixth of a call. OpenVINO takes them for zero by itself.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return options


def _session(path: Path, options: Any) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, options, providers=[PROVIDER])
    # Asked for a provider that it lacks, ONNX Runtime warns and takes another: what it took is compared.
    if session.get_providers() != [PROVIDER]:
        raise RuntimeError(f"asked for {PROVIDER}, ONNX Runtime took {', '.join(session.get_providers())}")
    return session


class Graph:
    """A graph's session. Tracing opens a second one: profiling costs 15-20 % and would disturb the first."""

    def __init__(self, path: Path, options: Any = None) -> None:
        self.path = path
        self.session = _session(path, options or _options())
        self.inputs = {node.name: node.shape for node in self.session.get_inputs()}
        self.outputs = [node.name for node in self.session.get_outputs()]

    def fed(self, inputs: Tensors) -> dict[str, np.ndarray]:
        """The graph's inputs; one that nobody feeds is an error."""
        if missing := [name for name in self.inputs if name not in inputs]:
            raise KeyError(f"the graph's inputs {', '.join(missing)} are not fed; fed are: {', '.join(sorted(inputs))}")
        return {name: inputs[name] for name in self.inputs}

    def run(self, inputs: Tensors) -> dict[str, np.ndarray]:
        """One run, outputs by name."""
        return dict(zip(self.outputs, self.session.run(self.outputs, self.fed(inputs)), strict=True))

    def profiled(self, folder: str) -> Graph:
        """The same in a session of the same options that writes a profile."""
        options = _options()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        return Graph(self.path, options)

    def profile(self) -> list[Operation]:
        """What a profiled session has executed."""
        return operations(json.loads(Path(self.session.end_profiling()).read_text(encoding="utf-8")))


class OnnxRuntimeEngine(Engine):
    """A model of one graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def run(self, inputs: Tensors) -> Tensors:
        """One forward pass; an unfed input is an error."""
        return self._graph.run(inputs)

    def trace(self, inputs: Tensors) -> tuple[Tensors, list[Operation]]:
        """One pass in a profiling session, and its profile's node events."""
        with tempfile.TemporaryDirectory() as folder:
            graph = self._graph.profiled(folder)
            return graph.run(inputs), graph.profile()


class OnnxRuntimeDecoder(DecodingEngine):
    """A decoder whose keys and values never leave ONNX Runtime: outputs of one step are bound as inputs of the next."""

    def __init__(self, family: GeneratingFamily, decoder: Graph, encoder: Graph | None) -> None:
        super().__init__(family)
        self._family = family
        self._decoder = decoder
        self._encoder = encoder
        self._present = [name for name in decoder.outputs if name.startswith("present_")]
        self._bound: dict[str, Any] = {}

    def begin(self, batch: int, source: Tensors) -> Tensors:
        """Empty keys and values, and those of the source."""
        from onnxruntime import OrtValue

        empty = {
            name: np.zeros((batch, shape[1], 0, shape[3]), np.float32)
            for name, shape in self._decoder.inputs.items()
            if name.startswith("past_")
        }
        self._bound = {name: OrtValue.ortvalue_from_numpy(array) for name, array in empty.items()}
        if self._encoder:
            values = self._encoder.session.run_with_ort_values(
                self._encoder.outputs,
                {name: OrtValue.ortvalue_from_numpy(array) for name, array in self._encoder.fed(source).items()},
            )
            self._bound |= dict(zip(self._encoder.outputs, values, strict=True))
        return {name: value.numpy() for name, value in self._bound.items() if name not in self._decoder.inputs}

    def decode(self, feed: Tensors) -> Tensors:
        """One run with everything bound; keys and values alone are not copied out."""
        binding = self._decoder.session.io_binding()
        for name in self._decoder.inputs:
            if name in self._bound:
                binding.bind_ortvalue_input(name, self._bound[name])
            else:
                binding.bind_cpu_input(name, feed[name])
        for name in self._decoder.outputs:
            binding.bind_output(name)
        self._decoder.session.run_with_iobinding(binding)
        values = dict(zip(self._decoder.outputs, binding.get_outputs(), strict=True))
        self._bound |= {name.replace("present", "past"): values.pop(name) for name in self._present}
        return {name: value.numpy() for name, value in values.items()}

    def reset(self) -> None:
        """Drop keys and values."""
        self._bound = {}
        self._mask = None

    def cache_size(self) -> int:
        """Bytes of all `past` values."""
        past = (value for name, value in self._bound.items() if name.startswith("past_"))
        return sum(4 * int(np.prod(value.shape())) for value in past)

    def trace(self, inputs: Tensors) -> tuple[Tensors, list[Operation]]:
        """One pass in profiling sessions, and what their profiles say."""
        with tempfile.TemporaryDirectory() as folder:
            graphs = [graph.profiled(folder) for graph in (self._decoder, self._encoder) if graph]
            outputs = OnnxRuntimeDecoder(self._family, graphs[0], graphs[1] if self._encoder else None).run(inputs)
            return outputs, [operation for graph in graphs for operation in graph.profile()]


def operations(events: Iterable[Mapping[str, Any]]) -> list[Operation]:
    """A profile's node events as operations; times are seconds."""
    found = []
    for event in events:
        arguments = event.get("args", {})
        if event.get("cat") != "Node" or "provider" not in arguments:
            continue
        types = [kind for output in arguments.get("output_type_shape", ()) for kind in output]
        provider, name = arguments["provider"], arguments.get("op_name", "")
        found.append(Operation(
            name=name, kernel=f"{provider}:{name}",
            device=_PROVIDER_DEVICES.get(provider, provider.lower()),
            precision=_PRECISIONS.get(types[0]) if types else None, compute=name in COMPUTE,
            work=event.get("dur", 0) / 1e6, weights="i8" if name == INTEGER else None,
        ))  # fmt: skip
    return found


BACKEND = OnnxRuntime()
