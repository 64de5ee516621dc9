"""The tensors of ONNX files, found and replaced as the bytes they are: graphs are not taken apart for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MATRIX = 2


@dataclass(frozen=True)
class Initializer:
    """A tensor that a graph holds.

    Attributes:
        proto: its `onnx.TensorProto`.
        array: its numbers; of a tensor outside of the graph's file they are read where they are looked at.
        file: the name of the file that it is in, if that is not the graph's.
        offset: where it begins there, in bytes.
    """

    proto: Any
    array: np.ndarray
    file: str | None = None
    offset: int = 0

    def replace(self, array: np.ndarray, folder: Path) -> None:
        """Put an array of its type and shape in its place: in the graph, or in a copy of the other file in a folder."""
        if self.file is None:
            from onnx import numpy_helper

            self.proto.CopyFrom(numpy_helper.from_array(array, self.proto.name))
            return
        with (folder / self.file).open("r+b") as stream:
            stream.seek(self.offset)
            stream.write(np.ascontiguousarray(array).data)


def graphs(folder: Path) -> Iterator[tuple[str, Any]]:
    """Name and `onnx.ModelProto` of each graph in a folder, tensors in other files left there."""
    import onnx

    for file in sorted(folder.glob("*.onnx")):
        yield file.name, onnx.load(file, load_external_data=False)


def initializers(folder: Path) -> Iterator[np.ndarray]:
    """Every tensor that the graphs of a folder hold."""
    for _, model in graphs(folder):
        yield from (each.array for each in held(model, folder))


def held(model: Any, folder: Path) -> Iterator[Initializer]:
    """The tensors of a model, and of the graphs inside it."""
    for graph in _nested(model.graph):
        yield from (_initializer(tensor, folder) for tensor in graph.initializer)


def _nested(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _nested(inner)


def _initializer(tensor: Any, folder: Path) -> Initializer:
    import onnx
    from onnx.external_data_helper import ExternalDataInfo

    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return Initializer(tensor, onnx.numpy_helper.to_array(tensor))
    place, kind = ExternalDataInfo(tensor), onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    offset = int(place.offset or 0)
    array = np.memmap(folder / place.location, kind, "r", offset, tuple(tensor.dims))
    return Initializer(tensor, array, place.location, offset)


class Parameters:
    """Tensors by name, found by their content, bit for bit; matrices transposed too, as exporters may keep them."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._alike: dict[tuple[object, ...], list[tuple[str, bool, np.ndarray]]] = {}
        for name, array in arrays.items():
            for turned, each in enumerate(either_way(array)):
                self._alike.setdefault(_glimpse(each), []).append((name, bool(turned), each))

    def find(self, array: np.ndarray) -> list[tuple[str, bool]]:
        """All of which it has the content: name, and whether it is the transpose."""
        alike = self._alike.get(_glimpse(array), ())
        return [(name, turned) for name, turned, each in alike if same_bits(each, array)]


def either_way(array: np.ndarray) -> tuple[np.ndarray, ...]:
    """As it is, and for a matrix transposed."""
    return (array, array.T) if array.ndim == MATRIX else (array,)


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether type, shape and every bit are the same: zeros have a sign, and NaN is itself."""
    return left.dtype == right.dtype and np.array_equal(_bits(left), _bits(right))


def _glimpse(array: np.ndarray) -> tuple[object, ...]:
    """What tells most tensors apart, and costs nothing: type, shape and some of the first row's bits."""
    return array.dtype.str, array.shape, np.atleast_1d(array)[:1].ravel()[:64].tobytes()


def _bits(array: np.ndarray) -> np.ndarray:
    return array.view(f"u{array.itemsize}")
