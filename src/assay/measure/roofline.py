"""What a machine sustains: matrix products and memory bandwidth, the two roofs of the roofline model.

(Williams, Waterman and Patterson, CACM 52, 2009.) Each is the best of what the environment offers, and the best of
several tries: a roof is what can be reached, and all that disturbs makes it lower.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from assay.devices import Device
from assay.machine import cores, threads
from assay.schema import Precision
from assay.session_report import MachinePeak, Rate

SIZES = (1024, 2048, 4096, 8192)
"""Rows and columns of the matrices, up to the first whose product takes long enough."""
LONG = 0.005
"""Seconds that a product takes at the least, so that starting it, tens of microseconds, is no part of its time."""
TRIES, SECONDS = 3, 0.12
"""Of each way so many tries, and as many more as that time has room for: the best of five short ones is 2 % lower."""
CACHES, ROOM = 4, 2**26
"""Arrays are so many times as large as the caches, as STREAM asks (McCalpin, 1995), and so many bytes at the least."""
APART = 1.15
"""Times by which two peaks of one session may differ. On a quiet machine the best of several repeats within this."""

Measured = dict[str, float]
Product = Callable[[int], Callable[[], object]]
"""Makes a call that multiplies two square matrices of that size."""


def products(device: Device, precision: Precision, only: str | None = None) -> Measured:
    """FLOP/s of a matrix product by what computes it, or by one of them `only`."""
    ways = _cuda_products(device, precision) if device.kind == "cuda" else _cpu_products(precision)
    return {name: _sustained(make) for name, make in ways if only in (None, name)}


def bandwidth(device: Device, only: str | None = None) -> Measured:
    """Bytes/s of reading, and of copying, where what is read and written counts twice; or of one of them `only`."""
    import torch

    place = f"cuda:{device.index}" if device.kind == "cuda" else "cpu"
    source = torch.ones(_array_size() // 4, device=place)
    target = torch.empty_like(source)
    rows = source.view(1024, -1)
    vector = torch.ones(rows.shape[1], device=place)
    ways: dict[str, tuple[int, Callable[[], object]]] = {
        "sum": (1, source.sum),
        "matrix-vector product": (1, lambda: torch.mv(rows, vector)),
        "copy": (2, lambda: target.copy_(source)),
    }
    wait = torch.cuda.synchronize if device.kind == "cuda" else _nothing
    return {
        name: times * source.nbytes / _best(call, wait) for name, (times, call) in ways.items() if only in (None, name)
    }


def best(tried: Mapping[str, float]) -> Rate:
    """The best of what was tried."""
    by = max(tried, key=lambda name: tried[name])
    return Rate(value=tried[by], by=by, tried=dict(tried))


def disturbance(peaks: Sequence[MachinePeak]) -> str | None:
    """How far apart the peaks of a session are, where that tells a machine that was disturbed; else None."""
    roofs = {"memory bandwidth": [peak.bandwidth.value for peak in peaks]}
    for precision in dict.fromkeys(precision for peak in peaks for precision in peak.products):
        found = [peak.products[precision].value for peak in peaks if precision in peak.products]
        roofs[f"{precision} matrix product"] = found
    apart = {name: max(found) / min(found) for name, found in roofs.items() if len(found) > 1 and min(found) > 0}
    name = max(apart, key=lambda each: apart[each], default="")
    if not name or apart[name] <= APART:
        return None
    return f"its {name} was {apart[name]:.2f} times as fast at one time as at another"


def load() -> float | None:
    """Processes that ran or waited to over the last minute."""
    return psutil.getloadavg()[0] if hasattr(psutil, "getloadavg") else None


def frequency() -> float | None:
    """Hz of the processor now, where the system tells."""
    try:
        told: Any = psutil.cpu_freq()  # None where the system hides it, which its stubs do not say
    except (OSError, NotImplementedError, RuntimeError):
        return None
    return 1e6 * told.current if told else None


def _sustained(make: Product) -> float:
    """FLOP/s: a product of n x n matrices is 2 n^3."""
    rate = 0.0
    for size in SIZES:
        seconds = _best(make(size))
        rate = max(rate, 2 * size**3 / seconds)
        if seconds >= LONG:
            break
    return rate


def _best(call: Callable[[], object], wait: Callable[[], object] = lambda: None) -> float:
    """Seconds of the fastest of several calls, after one that warms up."""
    call()
    wait()
    found: list[float] = []
    while len(found) < TRIES or sum(found) < SECONDS:
        started = time.perf_counter()
        call()
        wait()
        found.append(time.perf_counter() - started)
    return min(found)


def _nothing() -> None:
    """A processor is done when the call returns."""


def _cpu_products(precision: Precision) -> Iterator[tuple[str, Product]]:
    import torch

    torch.set_num_threads(threads())
    yield "torch", _torch_product("cpu", precision)
    if importlib.util.find_spec("openvino") and _openvino_computes(precision):
        yield "openvino", partial(_openvino_product, precision)
    if precision is Precision.F32 and importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
        yield "onnxruntime", _onnxruntime_product


def _cuda_products(device: Device, precision: Precision) -> Iterator[tuple[str, Product]]:
    import torch

    from assay.backends.torch_eager import ieee

    ieee()
    make = _torch_product(f"cuda:{device.index}", precision)

    def synchronised(size: int) -> Callable[[], object]:
        multiply = make(size)

        def call() -> None:
            multiply()
            torch.cuda.synchronize()

        return call

    yield "torch", synchronised


def _torch_product(place: str, precision: Precision) -> Product:
    import torch

    dtype = {Precision.F32: torch.float32, Precision.BF16: torch.bfloat16, Precision.F16: torch.float16}[precision]

    def make(size: int) -> Callable[[], object]:
        left, right = (torch.rand(size, size, device=place).to(dtype) for _ in range(2))
        result = torch.empty_like(left)
        return lambda: torch.mm(left, right, out=result)

    return make


def _openvino_computes(precision: Precision) -> bool:
    """Whether it has instructions for it; it would take f32 without a word."""
    import openvino

    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return {Precision.F32: "FP32", Precision.BF16: "BF16", Precision.F16: "FP16"}[precision] in able


def _openvino_product(precision: Precision, size: int) -> Callable[[], object]:
    """With one matrix as a weight, as models have it."""
    import openvino
    from openvino import opset13

    left, right = _matrices(size)
    given = opset13.parameter([size, size], np.float32)
    model = openvino.Model([opset13.matmul(given, opset13.constant(right), False, False)], [given])
    settings = {
        "INFERENCE_PRECISION_HINT": str(precision), "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads(),
    }  # fmt: skip
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(left))
    infer: Callable[[], object] = request.infer
    return infer


def _onnxruntime_product(size: int) -> Callable[[], object]:
    import onnx
    import onnxruntime
    from onnx import helper, numpy_helper

    left, right = _matrices(size)
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [size, size]) for name in ("left", "product")]
    node = helper.make_node("MatMul", ["left", "right"], ["product"])
    graph = helper.make_graph([node], "product", ports[:1], ports[1:], [numpy_helper.from_array(right, "right")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"left": left})


def _matrices(size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((size, size), dtype=np.float32), rng.random((size, size), dtype=np.float32)


def _array_size(root: Path = Path("/")) -> int:
    """Bytes of an array that caches do not hold; at most an eighth of the memory that is free."""
    caches = sum(_caches(root).values())
    wanted = max(ROOM, CACHES * caches)
    return int(min(wanted, psutil.virtual_memory().available // 8)) // 4096 * 4096


def _caches(root: Path) -> dict[tuple[str, str], int]:
    """Bytes of every cache of the processors that this process may run on, by its level and whose it is."""
    found = {}
    for number in cores():
        for size in root.glob(f"sys/devices/system/cpu/cpu{number}/cache/index*/size"):
            owners = size.with_name("shared_cpu_list")
            whose = owners.read_text(encoding="utf-8").strip() if owners.exists() else str(number)
            found[size.parent.name, whose] = _bytes(size.read_text(encoding="utf-8"))
    return found


def _bytes(text: str) -> int:
    """`32768K` as the kernel writes it."""
    number, unit = text.strip()[:-1], text.strip()[-1:]
    return int(number) * {"K": 2**10, "M": 2**20, "G": 2**30}.get(unit, 0) if number.isdecimal() else 0
