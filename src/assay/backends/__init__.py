"""The columns of the matrix, one file each."""

from __future__ import annotations

from assay import registry
from assay.backends.base import Backend

ON_DEMAND = ("cpu-compile", "cuda-compile")
"""Columns that run when they are asked for, and stand in the matrix when they did."""
ORDER = ("cpu", "cuda", "openvino", "onnxruntime", *ON_DEMAND)
"""The order of the columns; backends of other packages follow, by name."""

_HELPERS = frozenset({
    "base", "torch_compile", "torch_eager", "onnx_decoding", "onnx_export", "onnx_preload", "onnx_stages",
    "onnx_tensors", "onnxruntime_int8", "openvino_graph", "openvino_int8", "quantised",
})  # fmt: skip


def names() -> tuple[str, ...]:
    """Every backend's name, in the order of the matrix."""
    found = registry.sources("assay.backends", "assay.backends", _HELPERS)
    return (*(name for name in ORDER if name in found), *sorted(set(found) - set(ORDER)))


def columns() -> tuple[str, ...]:
    """The columns of a matrix, whether anybody ran them or not: all but those on demand."""
    return tuple(name for name in names() if name not in ON_DEMAND)


def built_in(name: str) -> bool:
    """Whether assay brings this backend itself: then its trace is the runtime's, read by assay's own code."""
    return registry.sources("assay.backends", "assay.backends", _HELPERS).get(name, "").startswith(f"{__name__}.")


def load(name: str) -> Backend:
    """The backend of that name.

    Raises:
        UsageError: no such backend.
    """
    backend: Backend = registry.load("backend", name, registry.sources("assay.backends", "assay.backends", _HELPERS))
    return backend
