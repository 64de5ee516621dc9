"""OpenVINO on the processor, from the shared ONNX export."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from assay.backends.base import Artifact, Engine, Operation, PhaseClock, Tensors
from assay.backends.onnx_decoding import DecodingEngine
from assay.backends.onnx_export import ENCODER_FILE, MODEL_FILE, OnnxBackend
from assay.backends.openvino_graph import LENGTH, ROWS, fuse_attention, keep_cache, tell_length
from assay.devices import Device, cpu_device
from assay.errors import Unavailable
from assay.measure.peak import flags
from assay.schema import Precision

if TYPE_CHECKING:
    from assay.families.generation import GeneratingFamily

T = TypeVar("T")

COMPUTE = frozenset({
    "FullyConnected", "MatMul", "Gemm", "Convolution", "GroupConvolution", "ScaledDotProductAttention",
    "ScaledDotProductAttentionWithKVCache", "PagedAttention", "MHA", "QKVProjection", "LLMMLP", "LSTMSequence",
})  # fmt: skip
"""Layer types that hold nearly all arithmetic."""
WEIGHED = "FullyConnected"
"""The layer type of products with weights, whose type its trace states."""

_BF16 = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "avx512_bf16")
_FLAGS: Mapping[Precision, tuple[tuple[str, ...], ...]] = {
    Precision.F32: ((),),
    Precision.BF16: (_BF16,),
    Precision.F16: ((*_BF16, "avx_vnni", "avx512_fp16"), ("asimdhp",)),
    Precision.INT8: (("avx2",),),
}
"""By which flags the plugin knows that a processor has a precision, any one row of them: what it then names among its
`OPTIMIZATION_CAPABILITIES` (oneDNN's `avx512_core_bf16` and `avx512_core_fp16`; Arm's half floats). Asked for one that
is not there, it computes in f32 and says nothing. Two more it would take, and they are left out: bf16 made of f32 on
other processors with AVX-512, slower than f32 itself; and both with AVX-VNNI-INT8, a flag that Linux does not list.
Weights in int8 are widened inside matrix products with AVX2; without it the plugin widens them when it compiles."""
QUANTISER = "nncf"
"""The distribution that makes weights int8, of the extra `int8`."""

_FLOATS = {"f32", "bf16", "f16", "f64", "i8", "u8", "i4", "u4"}
_PRIMITIVE_PRECISION = re.compile(r"_(f32|bf16|f16|i8|u8)$")


class OpenVino(OnnxBackend):
    """The `openvino` column."""

    name = "openvino"
    environment = "openvino"
    quantiser = "assay.backends.openvino_int8"
    preload = ("openvino",)
    libraries = ("libopenvino", "_pyopenvino")
    runner_memory = 7
    """The file's weights, mapped, and the compiled copy; 8.6 for BERT, 7.1 for MiniLM."""
    packages = ("openvino", "nncf", "torch", "transformers", "onnx", "onnxscript", "numpy")

    def devices(self) -> Sequence[Device]:
        """The processor, always."""
        return (cpu_device(),)

    def precisions(self, device: Device) -> Sequence[Precision]:
        """f32 everywhere; the others where the processor has instructions for them, int8 where NNCF is installed."""
        known = flags()
        able = (each for each, rows in _FLAGS.items() if any(known.issuperset(row) for row in rows))
        return tuple(each for each in able if each is not Precision.INT8 or find_spec(QUANTISER))

    def lacks(self, device: Device, precision: Precision) -> Unavailable:
        """The flags that the processor has not, or the package."""
        if precision is Precision.INT8 and not find_spec(QUANTISER):
            return Unavailable(
                "weights are made int8 by NNCF, which is not installed: pip install 'assay[int8]'",
                [f"package {QUANTISER}: not found"],
            )
        known = flags()
        missing = (", ".join(flag for flag in row if flag not in known) for row in _FLAGS[precision])
        instead = "widen weights before it computes" if precision is Precision.INT8 else "compute in f32"
        return Unavailable(
            f"{device.name} has no instructions for {precision} that OpenVINO uses: it would {instead}",
            [f"processor flags {names}: not found" for names in missing],
        )

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        """Read and compile, told the precision: left to itself OpenVINO takes bf16 and a u8 cache."""
        import openvino

        from assay import families
        from assay.families.generation import GeneratingFamily
        from assay.machine import threads

        core, folder, family = openvino.Core(), Path(artifact.path), families.load(artifact.family)
        suffix = ".xml" if artifact.format == "openvino" else ".onnx"
        paths = [(folder / name).with_suffix(suffix) for name in (MODEL_FILE, ENCODER_FILE)]
        properties: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": str(precision.arithmetic),
            "KV_CACHE_PRECISION": str(precision.arithmetic),
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,  # activations are no integers, whatever the weights are
            "EXECUTION_MODE_HINT": "ACCURACY",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads(),
        }

        def compiled(model: Any, more: dict[str, Any]) -> Any:
            fuse_attention(model)
            if isinstance(family, GeneratingFamily) and family.target in _inputs(model):
                tell_length(model, family.target)
                keep_cache(model, family.target)
            return core.compile_model(model, device.kind.upper(), properties | more)

        def counted(path: Path) -> Any:
            return compiled(core.read_model(path), {"PERF_COUNT": True})

        present = [path for path in paths if path.is_file()]
        with phase("load"):
            models = [core.read_model(path) for path in present]
        with phase("compile"):
            made = zip(models, present, strict=True)
            graphs = [Graph(compiled(model, {}), partial(counted, path)) for model, path in made]
        if isinstance(family, GeneratingFamily):
            return OpenVinoDecoder(family, *graphs)
        return OpenVinoEngine(*graphs)


class Graph:
    """A compiled graph with one infer request.

    Tracing compiles it once more, for the runtime's counters cost some percent of a short call.
    """

    def __init__(self, compiled: Any, counted: Callable[[], Any] | None = None) -> None:
        self.compiled = compiled
        self._counted = counted
        self.request = compiled.create_infer_request()
        self._ports = [
            (index, sorted(port.get_names()), port.get_element_type().to_dtype())
            for index, port in enumerate(compiled.inputs)
        ]
        self._fed = self._ports
        self._set: dict[int, np.ndarray] = {}
        self.inputs = _inputs(compiled)
        self.outputs = [sorted(port.get_names()) for port in compiled.outputs]

    def run(self, inputs: Tensors) -> dict[str, np.ndarray]:
        """One run, whose outputs are the runtime's own memory, which the next run overwrites.

        A graph input that nobody feeds is an error: OpenVINO would run it as empty.
        """
        return self._named(tensor.data for tensor in self._computed(inputs))

    def run_inside(self, inputs: Tensors) -> dict[str, Any]:
        """The same, as tensors that another graph can read."""
        return self._named(self._computed(inputs))

    def _computed(self, inputs: Tensors) -> list[Any]:
        from openvino import Tensor

        for index, names, kind in self._fed:
            array = inputs[_given(names, inputs)]
            if self._set.get(index) is array:
                continue
            if array.dtype != kind or not array.flags.carray:
                array = np.require(array, kind, ("C", "W"))
            self.request.set_input_tensor(index, Tensor(array, shared_memory=True))
            self._set[index] = array  # the runtime reads the array itself, which must live as long
        # On a thread of the runtime, which stays on its core. `infer` would compute on this one, moved to that core and
        # back by every call; where another process is on it, each call then waits for a time slice.
        self.request.start_async()
        self.request.wait()
        return [self.request.get_output_tensor(index) for index in range(len(self.outputs))]

    def _named(self, outputs: Iterable[T]) -> dict[str, T]:
        return {name: each for each, names in zip(outputs, self.outputs, strict=True) for name in names}

    def hold(self, tensors: Mapping[str, Any]) -> None:
        """Set these inputs for all runs until others are held; runs are not fed them."""
        self._fed, self._set = [], {}
        for port in self._ports:
            index, names, _ = port
            if found := [name for name in names if name in tensors]:
                self.request.set_input_tensor(index, tensors[found[0]])
            else:
                self._fed.append(port)

    def counted(self) -> Graph:
        """The same with counters. This one is given up for it, so that no weights are held twice."""
        if self._counted is None:
            return self
        del self.request, self.compiled
        return Graph(self._counted())

    def executed(self) -> list[Operation]:
        """The execution graph of the last run of a counted graph: primitive, precision and time of every node."""
        device = ",".join(self.compiled.get_property("EXECUTION_DEVICES")).lower()
        return operations(self.compiled.get_runtime_model().get_ordered_ops(), device)


class OpenVinoEngine(Engine):
    """A model of one graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def run(self, inputs: Tensors) -> Tensors:
        """One forward pass."""
        return self._graph.run(inputs)

    def trace(self, inputs: Tensors) -> tuple[Tensors, list[Operation]]:
        """One pass, and what it executed; the engine keeps its counters from then on."""
        self._graph = self._graph.counted()
        outputs = {name: np.array(array) for name, array in self.run(inputs).items()}
        return outputs, self._graph.executed()


class OpenVinoDecoder(DecodingEngine):
    """A decoder whose keys and values are states of its infer request."""

    def __init__(self, family: GeneratingFamily, decoder: Graph, encoder: Graph | None = None) -> None:
        super().__init__(family)
        self._decoder = decoder
        self._encoder = encoder
        self._length = np.zeros(1, np.int64)

    def begin(self, batch: int, source: Tensors) -> Tensors:
        """States of no tokens, each row going on from itself."""
        import openvino

        # Keys and values of the source go from one graph to the other without a copy, and once for all steps.
        read = self._encoder.run_inside(source) if self._encoder else {}
        self._length[:] = 0
        held = {ROWS: openvino.Tensor(np.arange(batch, dtype=np.int32)), LENGTH: openvino.Tensor(self._length, True)}
        self._decoder.hold({name: tensor for name, tensor in read.items() if name in self._decoder.inputs} | held)
        return {name: np.array(tensor.data) for name, tensor in read.items() if name not in self._decoder.inputs}

    def decode(self, feed: Tensors) -> Tensors:
        """One run; forgetting to reset states between sequences would raise nothing."""
        outputs = self._decoder.run(feed)
        self._length += feed[self._target].shape[1]
        return outputs

    def reset(self) -> None:
        """States as they were before the first token."""
        self._decoder.request.reset_state()
        self._mask = None

    def cache_size(self) -> int:
        """Bytes of all states, at the precision in which the runtime keeps them: what it shows is a copy in f32."""
        kept = self._decoder.compiled.get_property("KV_CACHE_PRECISION").size
        return sum(int(state.state.size) * int(kept) for state in self._decoder.request.query_state())

    def trace(self, inputs: Tensors) -> tuple[Tensors, list[Operation]]:
        """One pass, and what decoder and encoder executed; the engine keeps its counters from then on."""
        self._decoder, self._encoder = self._decoder.counted(), self._encoder.counted() if self._encoder else None
        outputs = {name: np.array(array) for name, array in self.run(inputs).items()}
        graphs = [graph for graph in (self._decoder, self._encoder) if graph]
        return outputs, [operation for graph in graphs for operation in graph.executed()]


def _inputs(model: Any) -> frozenset[str]:
    """Names of the inputs of a model, compiled or not."""
    return frozenset(name for port in model.inputs for name in port.get_names())


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
        kernel, stated = info.get("primitiveType", ""), info.get("runtimePrecision", "").lower()
        primitive = _PRIMITIVE_PRECISION.search(kernel)
        precision = primitive[1] if primitive else stated
        found.append(Operation(
            name=info.get("layerType", ""), kernel=kernel, device=device,
            precision=precision if precision in _FLOATS else None,
            compute=info.get("layerType") in COMPUTE, work=float(info["execTimeMcs"]) / 1e6,
            weights=stated if info.get("layerType") == WEIGHED and stated in _FLOATS else None,
        ))  # fmt: skip
    return found


BACKEND = OpenVino()
